package answers

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

func TestEventsAreNumberedFromOneWithoutHoles(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	const count = 5000
	site.model.On("/chat", func(c *modeltest.Call) {
		c.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		c.Header().Set("X-Model", "fake-1")
		c.Header().Add("X-Twice", "a")
		c.Header().Add("X-Twice", "b")
		modeltest.Plain(count, 0)(c)
	})
	reader := ask(t, site.URL("/chat?model=x"))
	reader.has(t, 1, count)
	if event := reader.Expect(t, "[DONE]"); event.ID != reader.event(count+1) {
		t.Errorf("the last event has the ID %q", event.ID)
	}
	reader.ends(t)

	header := reader.Response.Header
	if got := header.Values("X-Twice"); header.Get("X-Model") != "fake-1" || fmt.Sprint(got) != "[a b]" ||
		header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("the headers of the model became %v", header)
	}
	if !strings.Contains(strings.Join(header.Values("Cache-Control"), ","), "no-transform") {
		t.Errorf("others may change the stream: Cache-Control is %q", header.Values("Cache-Control"))
	}
	if at, _ := url.Parse(reader.url); at.Path != "/chat" || at.Query().Get("model") != "x" {
		t.Errorf("Content-Location is %q", reader.url)
	}
	// Nothing is in it but the model's events and their IDs.
	var want strings.Builder
	for n := 1; n <= count+1; n++ {
		data := modeltest.Token(n - 1)
		if n > count {
			data = "[DONE]"
		}
		fmt.Fprintf(&want, "id: %s\ndata: %s\n\n", reader.event(n), data)
	}
	if got := reader.Raw(); got != want.String() {
		t.Errorf("the stream is not byte for byte the model's; it begins with %q", got[:min(200, len(got))])
	}
	if calls := site.model.Calls(); calls != 1 {
		t.Errorf("the model was asked %d times", calls)
	}
}

// What the model writes into its blocks, and how, is passed on.
func TestBlocksOfAllForms(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	ours := regexp.MustCompile(`id: sse[A-Z0-9]{26}\.(\d+)[\r\n]+`)
	for name, said := range map[string][]string{
		"LF":            {"data: a\n\n", "data: b\n\n"},
		"CRLF":          {"data: a\r\n\r\n", "data: b\r\n\r\n"},
		"CR":            {"data: a\r\r", "data: b\r\r"},
		"mixed":         {"data: a\r\n\n", "data: b\n\r\n", "data: c\r\n\r\n"},
		"BOM":           {"\xEF\xBB\xBFdata: a\n\n", "data: b\n\n"},
		"comments":      {": hello\n\n", "data: a\n\n: OPENROUTER PROCESSING\n\n", "data: b\n: inside\n\n", ": bye"},
		"at once":       {": hello\n\ndata: a\n\n: bye\n\n"},
		"only comments": {": hello\n\n: bye\n\n"},
		"multiple data": {"data: a\ndata: b\ndata\n\n", "data:c\n\n"},
		"names":         {"event: message_start\ndata: {\"a\":1}\n\n", "event: ping\ndata: {}\n\n"},
		"retry":         {"retry: 1000\ndata: a\n\n"},
		"no end":        {"data: a\n\n", "data: [DONE]"},
		"no empty line": {"data: a\n\n", "data: [DONE]\n"},
		"cut anywhere":  strings.Split("data: abc\r\n\r\nevent: x\r\ndata: déjà\r\n\r\ndata: last\r\n\r\n", ""),
		"large":         {"data: " + strings.Repeat("x", 300<<10) + "\n\n"},
		"odd fields":    {"data: a\nfoo: bar\nbaz\n\n", "\n\n\n", "data\n\n"},
		"empty":         {},
	} {
		for _, compressed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, gzip %v", name, compressed), func(t *testing.T) {
				path := "/" + strings.ReplaceAll(name, " ", "-") + fmt.Sprint(compressed)
				site.model.On(path, func(c *modeltest.Call) {
					if compressed {
						c.Gzip()
					}
					c.Begin(200)
					for _, piece := range said {
						c.Say(piece)
					}
				})
				reader := ask(t, site.URL(path))
				if err := reader.Ended(patience); err != io.EOF {
					t.Fatalf("it ended with %v", err)
				}
				raw, upstream := reader.Raw(), strings.Join(said, "")
				for i, id := range ours.FindAllStringSubmatch(raw, -1) {
					if id[1] != fmt.Sprint(i+1) {
						t.Errorf("ID %d has the number %s", i+1, id[1])
					}
				}
				if got, want := eventsOf(t, raw), eventsOf(t, upstream); got != want {
					t.Errorf("the events are\n%swant\n%s", got, want)
				}
				bare := ours.ReplaceAllString(raw, "")
				if !strings.HasPrefix(name, "no") && name != "BOM" && bare != upstream {
					t.Errorf("byte for byte it is %.300q, want %.300q", bare, upstream)
				}
			})
		}
	}
}

// eventsOf writes down the events of a stream, without their IDs.
func eventsOf(t *testing.T, stream string) string {
	t.Helper()
	decoder := eventstream.NewDecoder(strings.NewReader(stream), 1<<20)
	decoder.KeepIncomplete = true
	var all bytes.Buffer
	for {
		event, err := decoder.Next()
		if err == io.EOF {
			return all.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if event.HasData {
			fmt.Fprintf(&all, "%q %q\n", event.Name, event.Data)
		}
	}
}

func TestHeadersComeBeforeTheFirstToken(t *testing.T) {
	t.Parallel()
	site := start(t, "heartbeat 1s")
	reader := ask(t, site.URL("/chat")) // or it would wait for a token
	call := site.model.Asked(t)
	// While the model thinks, a comment keeps the line open.
	e2etest.Await(t, "a heartbeat", func() bool { return strings.HasPrefix(reader.Raw(), ":") })
	if status := reader.status(t); status.State != "live" || status.Events != 0 {
		t.Errorf("the status is %+v", status)
	}
	tokens(call, 1, 1)
	call.End()
	reader.has(t, 1, 1)
	reader.ends(t)
	if status := reader.status(t); status.State != "done" || status.Events != 1 || status.Bytes == 0 {
		t.Errorf("the status is %+v", status)
	}
}

// A model that numbers its events resumes by itself.
func TestModelWithIDsOfItsOwnIsLeftAlone(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	site.model.On("/chat", func(c *modeltest.Call) {
		for piece := range strings.SplitSeq("id: 1\ndata: a\n\n|: still\n\n|id: 2\ndata: b\n\n", "|") {
			c.Say(piece)
		}
	})
	reader := e2etest.Subscribe(t, site.URL("/chat"), e2etest.Post("{}"), e2etest.KeepRaw())
	if err := reader.Ended(patience); err != io.EOF {
		t.Fatal(err)
	}
	if got, want := reader.Raw(), "id: 1\ndata: a\n\n: still\n\nid: 2\ndata: b\n\n"; got != want {
		t.Errorf("it became %q, want %q", got, want)
	}
}

func TestIDsOfTheModelAreReplacedIfWished(t *testing.T) {
	t.Parallel()
	site := start(t, "ids replace")
	site.model.On("/chat", func(c *modeltest.Call) {
		c.Say("id: 1\ndata: word0,\n\n")
		c.Say("data: word1,\nid: 2\n\n")
	})
	reader := ask(t, site.URL("/chat"))
	reader.has(t, 1, 2)
	reader.ends(t)
	if got, want := reader.Raw(), fmt.Sprintf("id: %s\ndata: word0,\n\nid: %s\ndata: word1,\n\n",
		reader.event(1), reader.event(2)); got != want {
		t.Errorf("it became %q, want %q", got, want)
	}
}

func TestModelThatBreaksOffIsToldOnce(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	first, call := begin(t, site, 3)
	call.Say("data: half an ev")
	call.BreakOff()
	first.aborts(t, 4, "upstream")
	if status := first.status(t); status.State != "aborted" || status.Reason != "upstream" {
		t.Errorf("the status is %+v", status)
	}
	// Who comes back without the error gets it, and who has had it is told to stop.
	again := openAs(t, site.URL("/chat"), e2etest.LastEventID(first.event(2)))
	again.has(t, 3, 3)
	again.aborts(t, 4, "upstream")
	got := e2etest.Send(t, "GET", site.URL("/chat"), "", e2etest.LastEventID(first.event(4)))
	if got.Status != http.StatusNoContent {
		t.Errorf("who had the error is answered with %d", got.Status)
	}
	if calls := site.model.Calls(); calls != 1 {
		t.Errorf("the model was asked %d times", calls)
	}
}
