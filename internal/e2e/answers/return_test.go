package answers

import (
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

// begin asks, has the model say the events up to the nth, and waits until the reader has them.
func begin(t *testing.T, site site, n int, options ...e2etest.Option) (answer, *modeltest.Call) {
	t.Helper()
	return beginAt(t, site, "/chat", n, options...)
}

func beginAt(t *testing.T, site site, path string, n int, options ...e2etest.Option) (answer, *modeltest.Call) {
	t.Helper()
	reader := ask(t, site.URL(path), options...)
	call := site.model.Asked(t)
	tokens(call, 1, n)
	reader.has(t, 1, n)
	return reader, call
}

func TestReadersGoOnWhereTheyWere(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	first, call := begin(t, site, 5)
	first.Close()
	tokens(call, 6, 8)
	post := e2etest.Post(`{"stream":true}`)
	reload := openAs(t, first.url)
	readers := map[int]answer{ // by the number of the first event they lack
		1: reload,
		4: openAs(t, site.URL("/chat"), e2etest.LastEventID(first.event(3))),
		6: openAs(t, site.URL("/chat"), post, e2etest.LastEventID(first.event(5))),
		9: openAs(t, first.url, e2etest.LastEventID(first.event(8))),
		// The ID names the stream, so that any request of the route will do.
		8: openAs(t, site.URL("/elsewhere?x"), e2etest.LastEventID(first.event(7))),
	}
	for from, reader := range readers {
		if reader.id != first.id {
			t.Errorf("who lacks event %d got another stream", from)
		}
		reader.has(t, from, 8)
	}
	tokens(call, 9, 12)
	call.End()
	for _, reader := range readers {
		reader.has(t, 9, 12)
		reader.ends(t)
	}
	// After the end it is the same.
	late := openAs(t, first.url, e2etest.LastEventID(first.event(10)))
	late.has(t, 11, 12)
	late.ends(t)
	if got := e2etest.Send(t, "GET", first.url, "", e2etest.LastEventID(first.event(12))); got.Status != 204 {
		t.Errorf("a GET that has had all is answered with %d", got.Status)
	}
	got := e2etest.Send(t, "POST", site.URL("/chat"), `{"stream":true}`, e2etest.LastEventID(first.event(12)))
	if got.Status != 200 || got.Body != "" || !strings.HasPrefix(got.Header.Get("Content-Type"), "text/event-stream") {
		t.Errorf("a POST that has had all is answered with %d %v %q", got.Status, got.Header, got.Body)
	}
	if calls := site.model.Calls(); calls != 1 {
		t.Errorf("the model was asked %d times", calls)
	}
	if site.model.Left() != 0 {
		t.Error("the model was cancelled")
	}
}

func TestForeignIDsGoUpstream(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	for _, id := range []string{"42", "sse", "evt_1.5", "sseABC.1", "sseabcdefghijklmnopqrstuvwxyz.1"} {
		seen := ""
		site.model.On("/chat", func(c *modeltest.Call) {
			seen = c.Request.Header.Get("Last-Event-ID")
			modeltest.Plain(1, 0)(c)
		})
		reader := ask(t, site.URL("/chat"), e2etest.LastEventID(id))
		reader.has(t, 1, 1)
		reader.Expect(t, "[DONE]")
		reader.ends(t)
		if seen != id {
			t.Errorf("the model was told the ID %q, want %q", seen, id)
		}
	}
}

func TestRefusalsComeBeforeTheHeaders(t *testing.T) {
	t.Parallel()
	site := start(t, "bind {header.X-User}")
	alice, bob := e2etest.Header("X-User", "alice"), e2etest.Header("X-User", "bob")
	first, call := begin(t, site, 3, alice)
	unknown := "sse" + strings.Repeat("A", 26)
	for _, bad := range []string{"", ".", ".x", ".-1", ".1.2", ".99999999999999999999", ".01", ".0x1"} {
		site.refused(t, 400, "GET", site.URL("/chat"), "", alice, e2etest.LastEventID(first.id+bad))
	}
	for _, never := range []string{".0", ".4", ".1000000"} {
		site.refused(t, 400, "GET", site.URL("/chat"), "", alice, e2etest.LastEventID(first.id+never))
		site.refused(t, 400, "POST", site.URL("/chat"), "{}", alice, e2etest.LastEventID(first.id+never))
	}
	for _, method := range []string{"GET", "POST"} {
		stranger := site.refused(t, 404, method, site.URL("/chat"), "", alice, e2etest.LastEventID(unknown+".1"))
		others := site.refused(t, 404, method, site.URL("/chat"), "", bob, e2etest.LastEventID(first.event(1)))
		nobody := site.refused(t, 404, method, site.URL("/chat"), "", e2etest.LastEventID(first.event(1)))
		for _, got := range []e2etest.Answer{others, nobody} {
			if strings.ReplaceAll(got.Body, first.id, "") != strings.ReplaceAll(stranger.Body, unknown, "") {
				t.Errorf("another's answer is told from an unknown one: %s and %s", got.Body, stranger.Body)
			}
		}
	}
	at := site.URL("/chat?sse_stream=")
	site.refused(t, 404, "GET", at+unknown, "", alice)
	site.refused(t, 404, "GET", at+first.id, "", bob)
	site.refused(t, 404, "GET", at+first.id+"&sse_status", "", bob)
	site.refused(t, 404, "GET", at+unknown+"&sse_status", "", alice)
	// A number that is never given out for another is no hint either.
	site.refused(t, 404, "GET", site.URL("/chat"), "", bob, e2etest.LastEventID(first.event(1000)))
	// Another's DELETE is answered as one of nothing.
	for _, who := range []e2etest.Option{bob, e2etest.Header("X-User", "")} {
		if got := e2etest.Send(t, "DELETE", first.url, "", who); got.Status != 204 {
			t.Errorf("DELETE of another's is answered with %d", got.Status)
		}
	}
	tokens(call, 4, 4)
	call.End()
	first.has(t, 4, 4)
	first.ends(t)
}

func TestAnswersAreKeptForTheirTTL(t *testing.T) {
	t.Parallel()
	site := start(t, "ttl 1s")
	first, call := begin(t, site, 3)
	call.End()
	first.ends(t)
	e2etest.Await(t, "the answer is forgotten", func() bool {
		return e2etest.Send(t, "GET", site.URL("/chat"), "", e2etest.LastEventID(first.event(1))).Status == 404
	})
	site.refused(t, 404, "POST", site.URL("/chat"), "{}", e2etest.LastEventID(first.event(3)))
	site.refused(t, 404, "GET", first.url, "")
}
