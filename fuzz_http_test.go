package sse_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// wireLine is what every line of a stream looks like, whatever was published.
var wireLine = regexp.MustCompile(`^(id: [0-9a-f]+-[0-9]+|event: [^\x00\r\n]{1,256}|retry: [0-9]+|data: [^\r\n]*|)$`)

// wireMessage is one block, read line by line and by no decoder of ours.
type wireMessage struct {
	id, event string
	data      []string
}

// readWire returns the blocks before the one whose data is the marker.
func readWire(t *testing.T, stream *bufio.Reader, marker string) (messages []wireMessage) {
	t.Helper()
	var m wireMessage
	for {
		line, err := stream.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		line = strings.TrimSuffix(line, "\n")
		if !wireLine.MatchString(line) {
			t.Fatalf("the framing is broken at %q", line)
		}
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "id":
			m.id = value
		case "event":
			m.event = value
		case "data":
			m.data = append(m.data, value)
		case "":
			if slices.Equal(m.data, []string{marker}) {
				return messages
			}
			messages = append(messages, m)
			m = wireMessage{}
		}
	}
}

// FuzzPublish: whatever is posted is either refused, and leaves no trace, or arrives as what it was.
func FuzzPublish(f *testing.F) {
	for _, query := range []string{"topic=a", "topic=a&topic=b&event=e&retry=5", "client_id=x&ephemeral", "user=u", "broadcast"} {
		for _, media := range []string{"", ndjsonType, eventsType} {
			for _, body := range []string{"", "a\nb\r\nc\rd\n\n", "data: a\n\nevent: b\nid: 5\nretry: 7\ndata: c\ndata: d\n\n", "\xff", "\x00", "event: gap\ndata: x\n\n"} {
				f.Add(query, media, body)
			}
		}
	}
	for body := range badMessages {
		f.Add("", jsonType, body)
		f.Add("", ndjsonType, body)
	}
	f.Add("", jsonType, `[{"topic":"a","data":{"b": [1, "c\n"]}},{"broadcast":true,"data":"d\r\ne"}]`)
	f.Add("", formType, "topic=a&topic=b&data=c%0Dd&event=e&retry=0&ephemeral=true")
	f.Add("topic=a", "", "\xEF\xBB\xBFx")
	f.Add("", ndjsonType, "\xEF\xBB\xBF{\"topic\":\"a\",\"data\":{\"b\":1,\"b\":2}}\n \t\n")
	f.Add("topics=a", "", "x")
	f.Add("event=x", jsonType, `{"topic":"a","data":1}`)
	f.Add("topic=%2A", "text/plain", "x")
	f.Add("topic=a&event=a%0Aid:%205", "", "data")

	s := serveOnce(f, listenedRoute)
	client := e2etest.H1(f)
	response := openUnread(f, e2etest.H1(f), s.url("/listen?topic=**"))
	stream := bufio.NewReader(response.Body)
	const marker = "the marker that ends a round"
	for { // the connected event has a line of its own
		line, err := stream.ReadString('\n')
		if err != nil {
			f.Fatal(err)
		}
		if line == "\n" {
			break
		}
	}
	f.Fuzz(func(t *testing.T, query, media, body string) {
		if strings.Contains(query+body, "marker") || strings.Contains(query, "#") || hasKey(body) {
			t.Skip()
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url("/events"), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.URL.RawQuery = query
		if media != "" {
			request.Header.Set("Content-Type", media)
		}
		response, err := client.Do(request)
		if err != nil {
			if strings.Contains(err.Error(), "net/http: ") {
				t.Skip("not to be sent by this client")
			}
			t.Fatalf("no answer: %v", err)
		}
		defer response.Body.Close()
		content, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, s.url("/events?topic=m"), marker)
		got := readWire(t, stream, marker)
		for _, m := range got {
			if slices.Contains([]string{"connected", "gap", "expired", "closed"}, m.event) || !utf8.ValidString(m.event+strings.Join(m.data, "")) {
				t.Fatalf("%+v was published", m)
			}
		}
		answer := e2etest.Answer{Status: response.StatusCode, Header: response.Header, Body: string(content)}
		checkPublished(t, answer, got, strings.TrimPrefix(body, "\xEF\xBB\xBF"))
	})
}

// hasKey reports whether a body may have been published before, and so answered without being so again.
func hasKey(body string) bool {
	const name = "idempotency_key"
	form, _ := url.ParseQuery(body)
	var object map[string]any
	_ = json.Unmarshal([]byte(body), &object)
	return form.Has(name) || object[name] != nil || strings.Contains(body, name)
}

// checkPublished compares an answer with what arrived.
func checkPublished(t *testing.T, answer e2etest.Answer, got []wireMessage, body string) {
	t.Helper()
	if answer.Status != http.StatusOK {
		if !slices.Contains([]int{400, 413, 415, 422}, answer.Status) {
			t.Fatalf("answered %d %s", answer.Status, answer.Body)
		}
		r := wantRefusal(t, answer, answer.Status)
		if r.Detail == "" || len(got) > 0 && (r.Published == nil || len(got) > *r.Published) {
			t.Fatalf("answered %d %s, but %d messages arrived", answer.Status, answer.Body, len(got))
		}
		return
	}
	var r receipt
	answer.Decode(t, &r)
	switch {
	case r.Published != nil:
		if len(got) > *r.Published {
			t.Fatalf("%d were published, %d arrived", *r.Published, len(got))
		}
	case r.IDs != nil:
		if len(got) > len(r.IDs) {
			t.Fatalf("%d were published, %d arrived", len(r.IDs), len(got))
		}
	case r.Receivers == 0.0:
		if len(got) > 0 {
			t.Fatalf("nobody was addressed, but %+v arrived", got)
		}
	default:
		if len(got) != 1 || r.ID != nil && got[0].id != *r.ID || r.ID == nil && got[0].id != "" {
			t.Fatalf("answered %s, but %+v arrived", answer.Body, got)
		}
		lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(dataOf(body, got[0])), "\n")
		if !slices.Equal(got[0].data, lines) {
			t.Fatalf("%q arrived as %q", body, got[0].data)
		}
	}
}

// dataOf returns the data that a body of one message holds: in form B what it says, else the body. Which
// form it was, the URL alone tells, and so that is told here by what arrived.
func dataOf(body string, arrived wireMessage) string {
	joined := strings.Join(arrived.data, "\n")
	if form, err := url.ParseQuery(body); err == nil && form.Has("data") && joined != body {
		return form.Get("data")
	}
	var object struct{ Data json.RawMessage }
	if json.Unmarshal([]byte(body), &object) != nil || object.Data == nil || joined == strings.TrimSpace(body) {
		return body
	}
	var text string
	if json.Unmarshal(object.Data, &text) == nil && string(object.Data) != "null" {
		return text
	}
	return joined // compact JSON
}

// FuzzLastEventID: whatever a client brings back, it gets a stream that says where it stands.
func FuzzLastEventID(f *testing.F) {
	s := serveOnce(f, openRoute)
	known := make(map[string]bool)
	for range 3 {
		id := *publish(f, s.url("/events?topic=a"), "x").ID
		known[id] = true
		f.Add(id)
		f.Add(id + "0")
		f.Add(strings.ToUpper(id))
	}
	for _, id := range []string{"", "-", "-0", "0-0", "7", "a-1-1", "\r\n", "\x00", "\xff", "é", `"}`, strings.Repeat("9", 500), "a\n\ndata: x\n\n"} {
		f.Add(id)
	}
	first := slices.Sorted(func(yield func(string) bool) {
		for id := range known {
			if !yield(id) {
				return
			}
		}
	})[0]
	epoch, _, _ := strings.Cut(first, "-")
	known[epoch+"-0"] = true
	client := e2etest.H1(f)
	f.Fuzz(func(t *testing.T, id string) {
		if len(id) > 10_000 {
			t.Skip()
		}
		for _, where := range []string{"query", "header"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("/events?topic=a"), nil)
			if err != nil {
				t.Fatal(err)
			}
			want := id
			if where == "query" {
				request.URL.RawQuery += "&last_event_id=" + url.QueryEscape(id)
			} else {
				request.Header.Set("Last-Event-ID", id)
				want = strings.Trim(id, " \t") // as HTTP has it
			}
			response, err := client.Do(request)
			if err != nil {
				if strings.Contains(err.Error(), "net/http: ") {
					continue // not to be sent by this client
				}
				t.Fatal(err)
			}
			stream := bufio.NewReader(response.Body)
			var block strings.Builder
			for !strings.HasSuffix(block.String(), "\n\n") && err == nil {
				var line string
				line, err = stream.ReadString('\n')
				block.WriteString(line)
			}
			response.Body.Close()
			parts := connectedBlock.FindStringSubmatch(block.String())
			if response.StatusCode != http.StatusOK || err != nil || parts == nil {
				t.Fatalf("%s %q is answered %d %q, %v", where, id, response.StatusCode, block.String(), err)
			}
			resume := "gap"
			switch {
			case want == "":
				resume = "none"
			case known[want]:
				resume = "complete"
			}
			if parts[2] != resume || resume == "complete" && parts[1] != want {
				t.Errorf("%s %q is told %q after %q", where, id, parts[2], parts[1])
			}
		}
	})
}

var connectedBlock = regexp.MustCompile(`^retry: 2000\nid: ([0-9a-f]+-[0-9]+)\nevent: connected\ndata: ` +
	`\{"status":"connected","client_id":"[A-Z0-9]{26}","generated":true,"topics":\["[a-z]+"\],"resume":"(none|complete|gap)"\}\n\n$`)
