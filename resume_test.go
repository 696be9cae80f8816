package sse_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// model is an upstream that streams what a test tells it to.
type model struct {
	*httptest.Server
	calls atomic.Int32
	ended atomic.Int32 // calls whose request was cancelled
}

// newModel starts an upstream. Each call gets a function that writes and flushes.
func newModel(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, say func(string))) *model {
	t.Helper()
	m := new(model)
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.calls.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		answer(w, r, func(text string) {
			_, _ = io.WriteString(w, text)
			_ = http.NewResponseController(w).Flush()
		})
		if r.Context().Err() != nil {
			m.ended.Add(1)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

// before returns a site's directives: sse_resume before reverse_proxy to the model.
func (m *model) before(options string) string {
	return fmt.Sprintf("sse_resume {\n%s\n}\nreverse_proxy %s", options, m.Listener.Addr())
}

func eventStream(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/event-stream") }

// ask makes a request. The test closes the body.
func ask(t *testing.T, method, url, body string, header ...string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := e2etest.H1(t).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// all reads the rest of a response, which must end in good order.
func all(t *testing.T, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("reading the response: %v, after %q", err, body)
	}
	return string(body)
}

// until reads lines until one has the text, and returns them.
func until(t *testing.T, reader *bufio.Reader, text string) string {
	t.Helper()
	var lines strings.Builder
	for {
		line, err := reader.ReadString('\n')
		lines.WriteString(line)
		if err != nil {
			t.Fatalf("%v before %q came; there was %q", err, text, lines.String())
		}
		if strings.Contains(line, text) {
			return lines.String()
		}
	}
}

var answerID = regexp.MustCompile(`sse_stream=(sse[A-Z0-9]{26})$`)

// idOf returns the ID of the answer that a response is of.
func idOf(t *testing.T, response *http.Response) string {
	t.Helper()
	found := answerID.FindStringSubmatch(response.Header.Get("Content-Location"))
	if found == nil {
		t.Fatalf("answered %s with Content-Location %q", response.Status, response.Header.Get("Content-Location"))
	}
	return found[1]
}

// events returns blocks of data with id lines, numbered from first.
func events(id string, first int, data ...string) string {
	var text strings.Builder
	for i, d := range data {
		fmt.Fprintf(&text, "id: %s.%d\ndata: %s\n\n", id, first+i, d)
	}
	return text.String()
}

func wantText(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestAnAnswerIsResumedByItsEventIDsAndItsURL(t *testing.T) {
	goOn := make(chan struct{})
	m := newModel(t, func(w http.ResponseWriter, _ *http.Request, say func(string)) {
		eventStream(w)
		w.Header().Set("X-Model", "fake")
		say("data: one\n\ndata: two\n\n")
		<-goOn
		say("data: three\n\n")
	})
	s := serve(t, m.before(""))
	first := ask(t, http.MethodPost, s.url("/chat?a=b"), "question")
	id := idOf(t, first)
	wantText(t, first.Header.Get("Content-Location"), "/chat?a=b&sse_stream="+id)
	wantText(t, first.Header.Get("X-Model"), "fake")
	wantText(t, first.Header.Get("Cache-Control"), "no-transform")
	until(t, bufio.NewReader(first.Body), id+".2")
	_ = first.Body.Close()

	again := ask(t, http.MethodPost, s.url("/chat?a=b"), "question", "Last-Event-ID", id+".1")
	wantText(t, idOf(t, again), id)
	got := until(t, bufio.NewReader(again.Body), "two")
	wantText(t, got, "id: "+id+".2\ndata: two\n")
	close(goOn)
	again = ask(t, http.MethodGet, s.url(first.Header.Get("Content-Location")), "")
	wantText(t, all(t, again), events(id, 1, "one", "two", "three"))
	again = ask(t, http.MethodGet, s.url("/chat"), "", "Last-Event-ID", id+".2")
	wantText(t, all(t, again), events(id, 3, "three"))
	over := ask(t, http.MethodGet, s.url("/chat"), "", "Last-Event-ID", id+".3")
	if over.StatusCode != http.StatusNoContent {
		t.Errorf("who has had all is answered %s", over.Status)
	}
	over = ask(t, http.MethodPost, s.url("/chat"), "", "Last-Event-ID", id+".3")
	if over.StatusCode != http.StatusOK || all(t, over) != "" {
		t.Errorf("who has had all and POSTs is answered %s", over.Status)
	}
	wantRefusal(t, get(t, s.url("/chat"), e2etest.Header("Last-Event-ID", id+".4")), http.StatusBadRequest)
	wantRefusal(t, get(t, s.url("/chat"), e2etest.Header("Last-Event-ID", id+".x")), http.StatusBadRequest)
	wantRefusal(t, get(t, s.url("/chat?sse_stream=x")), http.StatusBadRequest)
	unknown := "sse" + strings.Repeat("A", 26)
	wantRefusal(t, get(t, s.url("/chat"), e2etest.Header("Last-Event-ID", unknown+".1")), http.StatusNotFound)
	wantRefusal(t, get(t, s.url("/chat?sse_stream="+unknown)), http.StatusNotFound)
	if n := m.calls.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// The handler behind may have said all before the first reader looks.
func TestWhoAskedGetsAllOfAnAnswerThatIsOverAtOnce(t *testing.T) {
	s := serve(t, `
		sse_resume
		header Content-Type text/event-stream
		header Set-Cookie a=b
		respond /comment ": hello

"
		respond ": hello

data: a

"`)
	for range 50 {
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			got := ask(t, method, s.url("/"), "", "Accept", "text/event-stream")
			wantText(t, all(t, got), ": hello\n\n"+events(idOf(t, got), 1, "a"))
			got = ask(t, method, s.url("/comment"), "", "Accept", "text/event-stream")
			if got.StatusCode != http.StatusOK || got.Header.Get("Set-Cookie") != "a=b" {
				t.Errorf("who asks is answered %s with the cookie %q", got.Status, got.Header.Get("Set-Cookie"))
			}
			wantText(t, all(t, got), ": hello\n\n")
		}
	}
}

func TestDeleteStopsAnAnswer(t *testing.T) {
	m := newModel(t, func(w http.ResponseWriter, r *http.Request, say func(string)) {
		eventStream(w)
		say("data: one\n\n")
		<-r.Context().Done()
	})
	s := serve(t, m.before(""))
	first := ask(t, http.MethodPost, s.url("/chat"), "question")
	id := idOf(t, first)
	for range 2 { // also of what is stopped
		if deleted := ask(t, http.MethodDelete, s.url("/chat?sse_stream="+id), ""); deleted.StatusCode != http.StatusNoContent {
			t.Errorf("DELETE was answered %s", deleted.Status)
		}
	}
	wantText(t, all(t, first), events(id, 1, "one"))
	eventually(t, patience, "the upstream is cancelled", func() bool { return m.ended.Load() == 1 })
	status := ask(t, http.MethodGet, s.url("/chat?sse_stream="+id+"&sse_status"), "")
	wantText(t, all(t, status), `{"state":"stopped","events":1,"bytes":11}`+"\n")
}

func TestDeleteStopsAnAnswerBeforeItsFirstByte(t *testing.T) {
	m := newModel(t, func(_ http.ResponseWriter, r *http.Request, _ func(string)) { <-r.Context().Done() })
	s := serve(t, m.before("bind none\nname {header.X-Run}\nlookup {query.run}"))
	for round := range 20 { // whether the handlers behind return before or after the client's
		answered := make(chan *http.Response)
		go func() { answered <- ask(t, http.MethodPost, s.url("/chat"), "question", "X-Run", "r") }()
		eventually(t, patience, "the upstream is asked", func() bool { return int(m.calls.Load()) == round+1 })
		ask(t, http.MethodDelete, s.url("/chat?run=r"), "")
		if answer := <-answered; answer.StatusCode != http.StatusOK || all(t, answer) != "" {
			t.Fatalf("round %d: who asked is answered %s", round, answer.Status)
		}
	}
}

func TestWhatBreaksOffEndsWithAnError(t *testing.T) {
	m := newModel(t, func(w http.ResponseWriter, _ *http.Request, say func(string)) {
		eventStream(w)
		say("data: one\n\ndata: ha")
		panic(http.ErrAbortHandler)
	})
	s := serve(t, m.before(""))
	first := ask(t, http.MethodPost, s.url("/chat"), "question")
	id := idOf(t, first)
	lost := "id: " + id + ".2\nevent: error\ndata: " +
		`{"error":{"code":"upstream","message":"the upstream broke off","type":"stream_aborted"}}` + "\n\n"
	wantText(t, all(t, first), events(id, 1, "one")+lost)
	wantText(t, all(t, ask(t, http.MethodGet, s.url("/chat"), "", "Last-Event-ID", id+".1")), lost)
	over := ask(t, http.MethodGet, s.url("/chat"), "", "Last-Event-ID", id+".2")
	if over.StatusCode != http.StatusNoContent {
		t.Errorf("who has had the error is answered %s", over.Status)
	}
}

func TestWhatIsNoStreamPassesUntouched(t *testing.T) {
	m := newModel(t, func(w http.ResponseWriter, r *http.Request, say func(string)) {
		w.Header().Set("X-Asked", r.Header.Get("X-Ask"))
		switch r.URL.Path {
		case "/json":
			w.Header().Set("Content-Type", "application/json")
			say(`{"a":`)
			say(`1}`)
		case "/failed":
			eventStream(w)
			w.WriteHeader(http.StatusTooManyRequests)
			say("data: no\n\n")
		case "/ids":
			eventStream(w)
			say("data: one\n\n")
			say("id: 7\ndata: two\n\n")
			time.Sleep(time.Millisecond)
			say("id: 8\ndata: three\n\n")
		}
	})
	s := serve(t, m.before(""))
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/json":   {200, `{"a":1}`},
		"/failed": {429, "data: no\n\n"},
		"/empty":  {200, ""},
	} {
		answer := ask(t, http.MethodPost, s.url(path), "question", "X-Ask", "why")
		if answer.StatusCode != want.status || answer.Header.Get("Content-Location") != "" {
			t.Errorf("%s: answered %s, %v", path, answer.Status, answer.Header)
		}
		wantText(t, answer.Header.Get("X-Asked"), "why")
		wantText(t, all(t, answer), want.body)
	}
	own := ask(t, http.MethodPost, s.url("/ids"), "question")
	wantText(t, all(t, own), events(idOf(t, own), 1, "one")+"id: 7\ndata: two\n\nid: 8\ndata: three\n\n")
	own = ask(t, http.MethodGet, s.url("/ids"), "", "Accept", "text/event-stream", "Last-Event-ID", "8")
	wantText(t, all(t, own), events(idOf(t, own), 1, "one")+"id: 7\ndata: two\n\nid: 8\ndata: three\n\n")
}
