package answers

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

// twin runs two sites before the same upstream: with sse_resume at {{port}}, and without at {{plain}}.
func twin(t *testing.T, options, upstream string) *e2etest.Server {
	t.Helper()
	return e2etest.Start(t, fmt.Sprintf(`
http://:{{port}} {
	bind 127.0.0.1
	sse_resume {
		%s
	}
	reverse_proxy %s
}
http://:{{plain}} {
	bind 127.0.0.1
	reverse_proxy %s
}`, options, upstream, upstream))
}

// exchange makes a request on a connection of its own and writes down all that comes back, but for the Date.
func exchange(t *testing.T, addr, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	reader := bufio.NewReader(conn)
	var all bytes.Buffer
	continued := false
	for {
		response, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			fmt.Fprintf(&all, "no answer: %v\n", err)
			return all.String()
		}
		response.Header.Del("Date")
		if response.StatusCode == http.StatusContinue {
			// The upstream's comes behind net/http's own, which has no Server, or is dropped, as the race between them goes.
			if response.Header.Del("Server"); continued {
				continue
			}
			continued = true
		}
		fmt.Fprintf(&all, "%s %s, length %d, %v\n",
			response.Proto, response.Status, response.ContentLength, response.TransferEncoding)
		_ = response.Header.Write(&all)
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		fmt.Fprintf(&all, "%q %v\n", body, err)
		_ = response.Trailer.Write(&all)
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return all.String()
		}
	}
}

func TestWhatIsNoStreamIsByteForByteAsWithout(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex // guards asked
	var asked []string
	json := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	typed := func(kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{kind}
			_, _ = io.WriteString(w, body)
		}
	}
	stream := typed("text/event-stream", "data: a\n\ndata: b\n\n")
	zipped := e2etest.Gzip(t, `{"compressed":true}`)
	table := map[string]struct {
		reply  http.HandlerFunc
		method string // POST if empty
		header string
	}{
		"JSON":             {reply: json(200, `{"choices":[]}`)},
		"created":          {reply: json(201, `{"id":1}`)},
		"accepted":         {reply: json(202, ``)},
		"bad request":      {reply: json(400, `{"error":{"message":"bad"}}`)},
		"too many":         {reply: json(429, `{"error":{"message":"slow down"}}`)},
		"server error":     {reply: json(500, `oh no`)},
		"bad gateway":      {reply: json(502, `upstream of the upstream`)},
		"HTML":             {reply: typed("text/html; charset=utf-8", "<p>hi")},
		"no type":          {reply: typed("", "\x00\x01\x02")},
		"empty":            {reply: func(http.ResponseWriter, *http.Request) {}},
		"large":            {reply: json(200, strings.Repeat("0123456789abcdef", 1<<16))},
		"nearly a stream":  {reply: typed("text/event-streams", "data: a\n\n")},
		"stream of 500":    {reply: json(500, "data: a\n\n")},
		"not accepted GET": {reply: stream, method: "GET"},
		"PUT":              {reply: stream, method: "PUT"},
		"HEAD":             {reply: json(200, `{"a":1}`), method: "HEAD"},
		"HEAD of a stream": {reply: stream, method: "HEAD", header: "Accept: text/event-stream\n"},
		"OPTIONS":          {reply: json(200, ``), method: "OPTIONS"},
		"no content":       {reply: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }},
		"not modified": {reply: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"1"`)
			w.WriteHeader(304)
		}, method: "GET", header: "If-None-Match: \"1\"\n"},
		"redirect": {reply: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}},
		"range": {reply: func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "a.json", time.Unix(1, 0), strings.NewReader(`{"a":"0123456789"}`))
		}, method: "GET", header: "Range: bytes=3-8\n"},
		"gzip": {reply: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			json(200, zipped)(w, r)
		}, header: "Accept-Encoding: gzip\n"},
		"gzip of a stream that is refused": {reply: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			json(503, zipped)(w, r)
		}, header: "Accept-Encoding: gzip, br\n"},
		"flushed in pieces": {reply: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for i := range 20 {
				fmt.Fprintf(w, "[%d]", i)
				_ = http.NewResponseController(w).Flush()
			}
		}},
		"trailers": {reply: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("X-Sum", "42")
		}},
		"trailers unannounced": {reply: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("body", 2000))
			w.Header().Set(http.TrailerPrefix+"X-Late", "43")
		}},
		"early hints": {reply: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			json(200, `{}`)(w, r)
		}},
		"headers of many kinds": {reply: func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
			w.Header().Set("Cache-Control", "private, max-age=5")
			w.Header().Set("Content-Location", "/mine")
			w.Header().Set("Vary", "Origin")
			json(200, `{}`)(w, r)
		}},
		"broken off": {reply: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"half`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}},
		"no answer":                  {reply: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		"too large a body":           {reply: stream, header: "X-Large: yes\n"},
		"too large a body in chunks": {reply: stream, header: "X-Large: yes\nTransfer-Encoding: chunked\n"},
		"a body in chunks":           {reply: json(200, `{}`), header: "Transfer-Encoding: chunked\n"},
		"a body that waits":          {reply: json(200, `{}`), header: "Expect: 100-continue\n"},
		"a refused body that waits":  {reply: json(413, `{}`), header: "Expect: 100-continue\nX-Large: yes\n"},
		"hop by hop": {reply: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "X-Hop")
			w.Header().Set("X-Hop", "1")
			w.Header().Set("Keep-Alive", "timeout=5")
			json(200, r.Header.Get("X-Mine")+r.Header.Get("Te"))(w, r)
		}, header: "Connection: X-Mine, TE\nX-Mine: 1\nTE: trailers\n"},
		"a large header": {reply: func(w http.ResponseWriter, r *http.Request) {
			for i := range 300 {
				w.Header().Add("X-Much", strings.Repeat("x", i))
			}
			json(200, fmt.Sprint(len(r.Header.Values("X-Much"))))(w, r)
		}, header: strings.Repeat("X-Much: "+strings.Repeat("y", 100)+"\n", 50)},
		"echo of the header": {reply: func(w http.ResponseWriter, r *http.Request) {
			var all bytes.Buffer
			_ = r.Header.Write(&all)
			json(200, r.Host+"\n"+all.String())(w, r)
		}, header: "X-Mine: 1\nLast-Event-ID: 7\nCookie: a=b\n"},
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		asked = append(asked, fmt.Sprintf("%s %s %d", r.Method, r.URL, len(body)))
		mu.Unlock()
		table[r.Header.Get("X-Case")].reply(w, r)
	}))
	upstream.Config.ErrorLog = nil
	defer upstream.Close()
	server := twin(t, "max_body 1KiB", upstream.Listener.Addr().String())
	for name, c := range table {
		body := `{"stream":false}`
		if strings.Contains(c.header, "X-Large") {
			body = strings.Repeat("x", 5000)
		}
		method := c.method
		if method == "" {
			method = http.MethodPost
		}
		framing := fmt.Sprintf("Content-Length: %d\n\n%s", len(body), body)
		if strings.Contains(c.header, "chunked") {
			framing = fmt.Sprintf("\n%x\n%s\n0\n\n", len(body), body)
		}
		request := fmt.Sprintf("%s /v1/x?y=%%20z HTTP/1.1\nHost: example.com\nX-Case: %s\n%s%s",
			method, name, c.header, framing)
		want := exchange(t, server.Expand("127.0.0.1:{{plain}}"), request)
		got := exchange(t, server.Expand("127.0.0.1:{{port}}"), request)
		if got != want {
			t.Errorf("%s: with sse_resume it is\n%.1000s\nwithout\n%.1000s", name, got, want)
		}
		mu.Lock()
		if n := len(asked); n != 2 || asked[0] != asked[1] {
			t.Errorf("%s: the upstream was asked %q", name, asked)
		}
		asked = nil
		mu.Unlock()
	}
}

func TestUpgradesPass(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(conn, "heard "+line)
	}))
	defer upstream.Close()
	server := twin(t, "", upstream.Listener.Addr().String())
	conn, err := net.Dial("tcp", server.Expand("127.0.0.1:{{port}}"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn,
		"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\nAccept: text/event-stream\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answered with %v, %v", response, err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := reader.ReadString('\n'); line != "heard hello\n" {
		t.Errorf("it said %q, %v", line, err)
	}
}

// As without sse_resume, who leaves cancels what is no stream.
func TestLeavingCancelsWhatIsNoStream(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	released := make(chan *modeltest.Call, 1)
	site.model.On("/slow", func(c *modeltest.Call) {
		c.Header().Set("Content-Type", "application/json")
		c.Say(`{"half":`)
		released <- c
		<-c.Request.Context().Done()
	})
	conn, err := net.Dial("tcp", site.Expand("127.0.0.1:{{port}}"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "POST /slow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
	call := <-released
	_ = conn.Close()
	call.Gone(t)
}

func TestLinesOfJSONAreKeptByteForByte(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	const count = 50
	site.model.On("/api/chat", modeltest.Ollama(count, 0))
	first := e2etest.Send(t, "POST", site.URL("/api/chat"), `{"model":"fake"}`)
	lines := strings.SplitAfter(strings.TrimSuffix(first.Body, "\n"), "\n")
	if len(lines) != count+1 || first.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("%d lines of %s", len(lines), first.Header.Get("Content-Type"))
	}
	_, id, found := strings.Cut(first.Header.Get("Content-Location"), "sse_stream=")
	if !found || !streamID.MatchString(id) {
		t.Fatalf("Content-Location is %q", first.Header.Get("Content-Location"))
	}
	after := func(lines int) e2etest.Option { return e2etest.LastEventID(fmt.Sprintf("%s.%d", id, lines)) }
	for _, have := range []int{0, 1, 20, count} {
		got := e2etest.Send(t, "POST", site.URL("/api/chat"), `{"model":"fake"}`, after(have))
		if want := strings.Join(lines[have:], "") + "\n"; got.Status != 200 || got.Body != want {
			t.Errorf("after %d lines come %d %q", have, got.Status, got.Body)
		}
	}
	if got := e2etest.Send(t, "GET", site.URL("/api/chat"), "", after(count+1)); got.Status != 204 {
		t.Errorf("who has had all is answered with %d", got.Status)
	}
	again := e2etest.Send(t, "GET", site.URL("/api/chat?sse_stream="+id), "")
	if again.Body != first.Body {
		t.Errorf("it is given as %q", again.Body)
	}
	if calls := site.model.Calls(); calls != 1 {
		t.Errorf("the model was asked %d times", calls)
	}
}

// NDJSON has no form for an error: it is cut, so that nobody takes half for whole.
func TestLinesOfJSONThatBreakOffAreCut(t *testing.T) {
	t.Parallel()
	site := start(t, "")
	site.model.On("/api/chat", func(c *modeltest.Call) {
		c.Header().Set("Content-Type", "application/x-ndjson")
		c.Say("{\"a\":1}\n{\"b\"")
		c.BreakOff()
	})
	got, err := e2etest.Do(t.Context(), "POST", site.URL("/api/chat"), "{}")
	if err == nil || got.Body != "{\"a\":1}\n" {
		t.Errorf("it came as %q, %v", got.Body, err)
	}
}
