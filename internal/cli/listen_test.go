package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience bounds each wait; it is long because tests load the machine.
const patience = 30 * time.Second

// input returns a file of testdata as an answer.
func input(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".sse") {
		return e2etest.EventStream(string(content))
	}
	return string(content)
}

// written is what a command writes.
type written struct{ e2etest.Written }

// await waits until it was written.
func (w *written) await(t *testing.T, words string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(w.String(), words); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q never came; there is %q", words, w.String())
		}
	}
}

// listening is a listener that runs.
type listening struct {
	out, err *written
	end      func() int // interrupts it; its exit code
	code     chan int
}

func listen(t *testing.T, address string, change func(l *listener)) *listening {
	t.Helper()
	l := newListener()
	r := &listening{out: new(written), err: new(written), code: make(chan int, 1)}
	l.out, l.err.Writer = r.out, r.err
	if change != nil {
		change(l)
	}
	if err := l.prepare(address); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { r.code <- l.run(ctx) }()
	r.end = func() int { cancel(); return <-r.code }
	t.Cleanup(cancel)
	return r
}

// ends waits until it ends by itself, and returns the exit code.
func (r *listening) ends(t *testing.T) int {
	t.Helper()
	select {
	case code := <-r.code:
		return code
	case <-time.After(patience):
		t.Fatalf("it goes on; it said %q", r.err)
		return -1
	}
}

func TestAServerChoosesTheWaitWithinBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, says string }{
		{"retry-zero.sse", "connecting again in 100ms"},
		{"retry-huge.sse", "connecting again in 1h0m0s"},
		{"retry-after-30-days.http", "503 Service Unavailable; connecting again in 1h0m0s"},
		{"retry-after-date.http", "503 Service Unavailable; connecting again in 1h0m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := e2etest.Speak(t, input(t, c.name))
			l := listen(t, server.URL, nil)
			l.err.await(t, c.says)
			if code := l.end(); code != 0 {
				t.Errorf("it ended with %d", code)
			}
		})
	}
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                              2 * time.Second,
		"soon":                          2 * time.Second,
		"-1":                            2 * time.Second,
		"0":                             100 * time.Millisecond,
		"5":                             5 * time.Second,
		"99999999999999999999":          time.Hour,
		"18446744073709551615":          time.Hour,
		"Mon, 30 Nov 2026 12:00:07 GMT": 7 * time.Second,
		"Mon, 30 Nov 2026 11:00:00 GMT": 100 * time.Millisecond,
		"Wed, 21 Oct 9999 07:28:00 GMT": time.Hour,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("Retry-After: %s means %v, want %v", header, got, want)
		}
	}
}

func TestAnEmptyIDClearsTheOneBefore(t *testing.T) {
	t.Parallel()
	server := e2etest.Speak(t, input(t, "empty-id.http"), e2etest.EventStream("data: third\n\n"))
	l := listen(t, server.URL, func(l *listener) { l.count = 3 })
	if code := l.ends(t); code != 0 || l.out.String() != "first\nsecond\nthird\n" {
		t.Errorf("it printed %q and ended with %d", l.out, code)
	}
	if asked := server.Asked(); len(asked) != 2 || asked[1].Header.Values("Last-Event-ID") != nil {
		t.Errorf("it came back %d times, with %q", len(asked)-1, asked[1].Header)
	}
}

func TestNoContentEndsIt(t *testing.T) {
	t.Parallel()
	for count, want := range map[uint64]int{0: 0, 2: exitRefused} {
		server := e2etest.Speak(t, e2etest.EventStream("retry: 100\ndata: one\n\n"), input(t, "status-204.http"))
		l := listen(t, server.URL, func(l *listener) { l.count = count })
		if code := l.ends(t); code != want || !strings.HasSuffix(l.err.String(), "there is nothing more to come\n") {
			t.Errorf("with --count %d it ended with %d and said %q", count, code, l.err)
		}
	}
}

func TestAPageIsNoEventStream(t *testing.T) {
	t.Parallel()
	l := listen(t, e2etest.Speak(t, input(t, "html-200.http")).URL, nil)
	if code := l.ends(t); code != exitRefused || l.out.String() != "" {
		t.Errorf("it printed %q and ended with %d", l.out, code)
	}
}

// A message that is too large would come again after each reconnect.
func TestAMessageThatIsTooLargeEndsIt(t *testing.T) {
	t.Parallel()
	if n := newListener().largest; n < 256<<20 {
		t.Errorf("a message may have %d bytes", n)
	}
	const limit = 2 << 20
	fits := strings.Repeat("x", limit)
	server := e2etest.Speak(t, e2etest.EventStream("data: "+fits+"\n\ndata: "+fits+"x\n\n"))
	l := listen(t, server.URL, func(l *listener) { l.largest = limit })
	if code := l.ends(t); code != exitRefused || l.err.String() != "refused: a message has more than 2 MiB\n" {
		t.Errorf("it ended with %d and said %q", code, l.err)
	}
	if l.out.String() != fits+"\n" || len(server.Asked()) != 1 {
		t.Errorf("it printed %d bytes and asked %d times", len(l.out.String()), len(server.Asked()))
	}
}

// hostile is what a terminal may obey: an escape sequence, the same by C1, by a byte that is no UTF-8, marks that
// turn text around, line separators, and a line that looks like ours.
const hostile = "a\x1b[31mb\u009b31mc\x9b31md\u202ee\u2066f\u061cg\u2028h\x7fi\rj"

const harmless = "a\ufffd[31mb\ufffd31mc\ufffd31md\ufffde\ufffdf\ufffdg\ufffdh\ufffdi\ufffdj"

func TestWhatComesFromOutsideIsPrintable(t *testing.T) {
	t.Parallel()
	if got := printable(hostile + "\n\t"); got != harmless+"\n\t" {
		t.Errorf("printable makes %q", got)
	}
	if got := printableLine(hostile + "\nrefused"); got != harmless+"\ufffdrefused" {
		t.Errorf("printableLine makes %q", got)
	}
	reason := strings.NewReplacer("\r", "", "\n", "").Replace(hostile)
	detail := `{"detail":"first\nrefused: \u009b31m\u202e"}`
	for name, answers := range map[string][]string{
		"a reason phrase":  {"HTTP/1.1 403 " + reason + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		"a detail":         {fmt.Sprintf("HTTP/1.1 403 No\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(detail), detail)},
		"an event of ours": {e2etest.EventStream("event: connected\ndata: " + reason + "\ndata: refused: x\n\nevent: closed\n\n")},
	} {
		l := listen(t, e2etest.Speak(t, answers...).URL, nil)
		if code := l.ends(t); code != exitRefused {
			t.Errorf("%s: ended with %d", name, code)
		}
		lines := strings.Count(l.err.String(), "\n")
		if said := l.err.String(); !strings.Contains(said, "\ufffd31m") || strings.ContainsFunc(strings.ReplaceAll(said, "\n", ""), steers) ||
			lines != 1+strings.Count(said, "connected") {
			t.Errorf("%s: it said %q", name, said)
		}
	}
	l := listen(t, e2etest.Speak(t, e2etest.EventStream("data: "+strings.ReplaceAll(hostile, "\r", "")+"\n\n")).URL, func(l *listener) {
		l.toTerminal, l.count = true, 1
	})
	l.ends(t)
	if want := strings.TrimSuffix(harmless, "\ufffdj") + "j\n"; l.out.String() != want {
		t.Errorf("on a terminal it printed %q, want %q", l.out, want)
	}
	l = listen(t, e2etest.Speak(t, e2etest.EventStream("data: \u009b\u202e\u2028\x7fé\n\n")).URL, func(l *listener) { l.json, l.count = true, 1 })
	l.ends(t)
	if want := `{"data":"\u009b\u202e\u2028\u007fé"}` + "\n"; l.out.String() != want {
		t.Errorf("as JSON it printed %q, want %q", l.out, want)
	}
}

// Secrets of the user are meant for the address that he names.
func TestNothingOfTheUsersGoesToAnotherHost(t *testing.T) {
	t.Parallel()
	stranger := e2etest.Speak(t, e2etest.EventStream("data: x\n\n"))
	var back string
	mux := http.NewServeMux()
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, stranger.URL, http.StatusFound) })
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/end", http.StatusFound) })
	mux.HandleFunc("/end", func(w http.ResponseWriter, r *http.Request) {
		back = r.Header.Get("X-Secret") + r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "text/event-stream")
		event := eventstream.Event{HasData: true}
		_, _ = w.Write(event.Append(nil))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	change := func(l *listener) {
		l.count, l.token, l.lastID = 1, "t0ken", "e-7"
		l.headers = []string{"X-Secret: s3cret", "Cookie: a=s3cret", "Referer: http://s3cret.example"}
	}
	if code := listen(t, server.URL+"/away?topic=s3cret", change).ends(t); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	asked := stranger.Asked()[0]
	if asked.Header.Get("Last-Event-ID") != "e-7" || asked.Header.Get("Accept") != "text/event-stream" {
		t.Errorf("what any listener sends does not go along: %q", asked.Header)
	}
	if text := fmt.Sprint(asked.Header, asked.URL); strings.Contains(text, "s3cret") || strings.Contains(text, "t0ken") ||
		asked.Header.Values("Referer") != nil {
		t.Errorf("the stranger is told %s", text)
	}
	if code := listen(t, server.URL+"/here", change).ends(t); code != 0 || back != "s3cretBearer t0ken" {
		t.Errorf("it ended with %d; to the same host went %q", code, back)
	}
}

// Who was sent away may be sent back, to a path that a stranger chooses.
func TestHeadersDoNotComeBackWithARedirection(t *testing.T) {
	t.Parallel()
	var home *httptest.Server
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, home.URL+"/end", http.StatusFound)
	}))
	t.Cleanup(stranger.Close)
	var got http.Header
	home = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/end" {
			http.Redirect(w, r, stranger.URL, http.StatusFound)
			return
		}
		got = r.Header
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(home.Close)
	if code := listen(t, home.URL, func(l *listener) { l.token = "t0ken" }).ends(t); code != 0 || got.Get("Authorization") != "" {
		t.Errorf("it ended with %d; back home went %q", code, got)
	}
}

func TestAnAnswerOnATerminalIsPrintable(t *testing.T) {
	t.Parallel()
	body := "{\"id\":\"\u009b31m\"}\n"
	server := e2etest.Speak(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body))
	for _, toTerminal := range []bool{false, true} {
		out := new(written)
		s := &sender{retry: -1, out: out, toTerminal: toTerminal, err: &counter{Writer: new(written)}}
		if err := s.prepare(server.URL); err != nil {
			t.Fatal(err)
		}
		want := body
		if toTerminal {
			want = "{\"id\":\"\ufffd31m\"}\n"
		}
		if code := s.publish(t.Context(), "x"); code != 0 || out.String() != want {
			t.Errorf("it ended with %d and printed %q, want %q", code, out, want)
		}
	}
}

func TestListenAsksForWhereToBeginAndForTheForm(t *testing.T) {
	first := "id: e-1\ndata: {\"topic\":\"a\",\"data\":\"x\"}\n\n"
	speaker := e2etest.Speak(t, e2etest.EventStream("retry: 100\n"+first), e2etest.EventStream(first))
	l := listen(t, speaker.URL, func(l *listener) {
		l.since, l.format, l.count = "latest", "envelope", 2
	})
	if code := l.ends(t); code != 0 {
		t.Errorf("it ended with %d: %s", code, l.err.String())
	}
	if want := "{\"topic\":\"a\",\"data\":\"x\"}\n"; l.out.String() != want+want {
		t.Errorf("it printed %q", l.out.String())
	}
	for i, want := range []string{"format=envelope&since=latest", "format=envelope"} {
		if got := speaker.Asked()[i].URL.RawQuery; got != want {
			t.Errorf("request %d asked for %q; want %q", i, got, want)
		}
	}
}
