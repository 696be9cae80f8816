package sse_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// object is one line of an NDJSON stream, or one message of an answer in JSON.
type object struct {
	ID, Topic, To, Event, Key, Data string
	Time                            time.Time
	Retry                           int
}

// lineStream is a subscription in NDJSON.
type lineStream struct {
	header http.Header
	major  int
	lines  *bufio.Reader
	close  func()
}

// subscribeLines subscribes by any client.
func subscribeLines(t testing.TB, client *http.Client, url string, headers ...string) *lineStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if kind := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || kind != "application/x-ndjson" {
		t.Fatalf("%s is answered %d as %s", url, response.StatusCode, kind)
	}
	var body io.Reader = response.Body
	if response.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			t.Fatal(err)
		}
	}
	return &lineStream{response.Header, response.ProtoMajor, bufio.NewReader(body), cancel}
}

// next returns the next line that is no heartbeat.
func (s *lineStream) next(t testing.TB) (o object) {
	t.Helper()
	line := "\n"
	for err := error(nil); line == "\n"; {
		if line, err = s.lines.ReadString('\n'); err != nil {
			t.Fatalf("waiting for a line: %v", err)
		}
	}
	if err := json.Unmarshal([]byte(line), &o); err != nil {
		t.Fatalf("%q is no JSON: %v", line, err)
	}
	return o
}

func (s *lineStream) expect(t testing.TB, data string) object {
	t.Helper()
	o := s.next(t)
	if o.Data != data {
		t.Fatalf("got %+v; want %q", o, data)
	}
	return o
}

func TestLinesAndEnvelopesKeepWhatStreamsPromiseOverEachProtocol(t *testing.T) {
	for _, direct := range []string{"on", "off"} {
		s := serve(t, strings.Replace(openRoute, "publish {", "heartbeat 100ms\ndirect_writes "+direct+"\npublish {", 1), withTLS)
		eachProtocol(t, s, func(t *testing.T, p protocol) {
			topic := strings.ReplaceAll("for/"+p.name, " ", "-")
			post := func(data string) { publish(t, p.url("/events?event=e&topic="+topic), data, p.via) }
			post("before")
			query := "/events?client_id=me&topic=for/*&topic=" + topic
			lines := subscribeLines(t, p.client, p.url(query+"&format=ndjson&since=-1"))
			wantHeaders(t, lines.header, "application/x-ndjson")
			connected := lines.next(t)
			if lines.major != p.major || connected.Event != "connected" || connected.ID == "" || connected.Retry != 2000 ||
				connected.Data != `{"status":"connected","client_id":"me","generated":false,"topics":["`+topic+`","for/*"],"resume":"none"}` {
				t.Errorf("over HTTP/%d the stream begins with %+v", lines.major, connected)
			}
			lines.expect(t, "before")
			envelopes := e2etest.Subscribe(t, p.url(query+"&format=envelope&since=-1"), p.via)
			wantStreamHeaders(t, envelopes.Response.Header)
			envelopes.Connected(t)
			first := mustNext(t, envelopes)
			for _, data := range []string{"one\r\ntwo", "{\"a\":\"<&>\"}", "", strings.Repeat("0123456789", 5_000)} {
				post(data)
				publish(t, p.url("/events?ephemeral&topic="+topic), "passing", p.via)
				line := lines.expect(t, data)
				event := mustNext(t, envelopes)
				var envelope object
				if err := json.Unmarshal(event.Data, &envelope); err != nil {
					t.Fatal(err)
				}
				if envelope.ID != "" || event.ID != line.ID || event.Name != "e" {
					t.Errorf("the envelope %+v has ID %s", event, line.ID)
				}
				envelope.ID = event.ID
				if line != envelope || line.Topic != topic || line.Event != "e" || time.Since(line.Time).Abs() > time.Hour {
					t.Errorf("the line is    %+v\nthe envelope   %+v", line, envelope)
				}
				if passing := lines.expect(t, "passing"); passing.ID != "" || passing.Event != "" {
					t.Errorf("an ephemeral message is %+v", passing)
				}
				if passing := mustNext(t, envelopes); passing.ID != "" {
					t.Errorf("an ephemeral message has ID %s", passing.ID)
				}
			}
			lines.close()
			again := subscribeLines(t, p.client, p.url(query), "Accept", "application/x-ndjson", "Last-Event-ID", first.ID)
			if told := again.next(t); !strings.Contains(told.Data, `"resume":"complete"`) || told.ID != first.ID {
				t.Errorf("it resumes with %+v", told)
			}
			again.expect(t, "one\r\ntwo")
			again.expect(t, "{\"a\":\"<&>\"}")
		})
		s.stop()
	}
}

func wantHeaders(t *testing.T, header http.Header, kind string) {
	t.Helper()
	if got := header.Get("Content-Type"); got != kind {
		t.Errorf("it comes as %q; want %q", got, kind)
	}
	header = header.Clone()
	header.Set("Content-Type", "text/event-stream; charset=utf-8")
	wantStreamHeaders(t, header)
}

func TestHeadAnswersTheHeadersOfEachForm(t *testing.T) {
	s := serve(t, openRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for format, kind := range map[string]string{
			"sse": "text/event-stream; charset=utf-8", "envelope": "text/event-stream; charset=utf-8",
			"ndjson": "application/x-ndjson", "json": "application/json",
		} {
			answer := e2etest.Send(t, http.MethodHead, p.url("/events?topic=a&format="+format), "", p.via)
			if answer.Status != http.StatusOK || answer.Body != "" {
				t.Errorf("%s is answered %d with %q", format, answer.Status, answer.Body)
			}
			wantHeaders(t, answer.Header, kind)
		}
		answer := e2etest.Send(t, http.MethodHead, p.url("/events?topic=a&format=xml"), "", p.via)
		if answer.Status != http.StatusBadRequest {
			t.Errorf("HEAD of what GET refuses is answered %d", answer.Status)
		}
	})
}

func TestTheFormIsTheOneThatIsAskedFor(t *testing.T) {
	s := serve(t, openRoute)
	const events, lines, answer = "text/event-stream; charset=utf-8", "application/x-ndjson", "application/json"
	for _, c := range []struct{ query, accept, want string }{
		{"", "", events},
		{"", "*/*", events},
		{"", "text/html,application/xhtml+xml,*/*;q=0.8", events},
		{"", "application/json", answer},
		{"", "Application/JSON; charset=utf-8", answer},
		{"", "application/x-ndjson", lines},
		{"", "application/x-ndjson, application/json", lines},
		{"", "text/plain, application/json, */*", answer},
		{"", "application/json, text/event-stream", events},
		{"", "application/json;q=0, */*", events},
		{"", "application/json, text/event-stream;q=0", answer},
		{"", "application/problem+json", events},
		{"", "application/json;;=, nonsense", events},
		{"&format=json", "text/event-stream", answer},
		{"&format=ndjson", "application/json", lines},
		{"&format=sse", "application/json", events},
		{"&format=envelope", "application/json", events},
		{"&format=json&format=ndjson", "", lines},
	} {
		got := e2etest.Send(t, http.MethodHead, s.url("/events?topic=a"+c.query), "", e2etest.Header("Accept", c.accept))
		if kind := got.Header.Get("Content-Type"); got.Status != http.StatusOK || kind != c.want {
			t.Errorf("%q with Accept: %q is answered %d as %q; want %q", c.query, c.accept, got.Status, kind, c.want)
		}
	}
}

func TestParametersThatTheRouteNamesAreTheRoutes(t *testing.T) {
	s := serve(t, `sse /events {
		topics {query.format}/{query.since} {query.limit}/{query.wait}
		publish {
			open
		}
	}`)
	stream := e2etest.Subscribe(t, s.url("/events?format=a&since=b&limit=c&wait=d"))
	if topics := stream.Connected(t).Topics; strings.Join(topics, " ") != "a/b c/d" {
		t.Errorf("the client listens to %q", topics)
	}
}

func TestLinesTellAGapWithoutTheEventConnected(t *testing.T) {
	s := serve(t, `sse /events {
		connected_event off
		retry 3s
		publish {
			open
		}
	}`)
	publish(t, s.url("/events?topic=a"), "kept")
	client := e2etest.H1(t)
	told := subscribeLines(t, client, s.url("/events?topic=a&format=ndjson&last_event_id=rubbish"))
	if gap := told.next(t); gap.Event != "gap" || gap.Data != `{"reason":"unknown_id"}` || gap.ID == "" {
		t.Errorf("a gap is told as %+v", gap)
	}
	told.expect(t, "kept")
	plain := subscribeLines(t, client, s.url("/events?topic=a&format=ndjson"))
	if begins := plain.next(t); begins.ID == "" || begins.Retry != 3000 || begins.Event != "" {
		t.Errorf("a stream begins with %+v", begins)
	}
}

// A message in another form may be gone from memory when a slow client comes to the rest of it: it is made again.
func TestALargeMessageReachesASlowClientInEachForm(t *testing.T) {
	data := "\r" + hugeData[:1<<20]
	for _, direct := range []string{"on", "off"} {
		s := serve(t, "sse /events {\ndirect_writes "+direct+"\npublish {\nopen\nmax_size 16MiB\n}\n}")
		for _, format := range []string{"ndjson", "envelope", "json"} {
			t.Run(format+", direct writes "+direct, func(t *testing.T) {
				client := lazyClient(t, protocol{major: 1})
				topic := "large-" + format
				if format == "json" {
					publish(t, s.url("/events?topic="+topic), data)
				}
				response := openUnread(t, client, s.url("/events?topic="+topic+"&format="+format))
				if format != "json" {
					publish(t, s.url("/events?topic="+topic), data)
				}
				body := bufio.NewReader(response.Body)
				for range 3 {
					if _, err := body.Discard(300 << 10); err != nil {
						t.Fatal(err)
					}
					runtime.GC()
				}
				rest, err := body.ReadBytes('"')
				if err != nil || !strings.HasSuffix(data, strings.TrimSuffix(string(rest), `"`)) || len(rest) > 1<<20 {
					t.Errorf("the rest is %d bytes, %v", len(rest), err)
				}
			})
		}
		s.stop()
	}
}
