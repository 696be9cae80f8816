package js_test

import (
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

const open = `
{
	sse {
		broker bolt {{dir}}/sse.db
	}
}
:{{port}} {
	sse /events {
		publish {
			open
		}
	}
}
`

func TestWhatIsInDistIsWhatIsBuilt(t *testing.T) {
	t.Parallel()
	built := filepath.Join(build(t), "dist")
	files, err := os.ReadDir(built)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		want, err := os.ReadFile(filepath.Join(built, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join("dist", file.Name())); err != nil || !bytes.Equal(got, want) {
			t.Errorf("dist/%s is not what is built, %v: run npm ci && npm run build in clients/js", file.Name(), err)
		}
	}
}

// Each example is to be copied as a whole, and so has the client in it. EventSource alone is shown where it is the point.
func TestExamplesListenWithThisClient(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("dist/caddy-sse.js")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob("../../examples/*/www/*.js")
	if err != nil {
		t.Fatal(err)
	}
	copies := 0
	for _, script := range scripts {
		got, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		example := filepath.Base(filepath.Dir(filepath.Dir(script)))
		switch {
		case filepath.Base(script) == "caddy-sse.js":
			copies++
			if !bytes.Equal(got, want) {
				t.Errorf("%s is not the client as it is built: cp clients/js/dist/caddy-sse.js there", script)
			}
		case bytes.Contains(got, []byte("new EventSource(")) && example != "quickstart" && example != "reconnect":
			t.Errorf("%s listens without the client", script)
		}
	}
	if copies < 8 {
		t.Errorf("%d examples have the client", copies)
	}
}

func TestClientIsSmallerThan4KB(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("dist/caddy-sse.js")
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	_, _ = w.Write(content)
	_ = w.Close()
	if n := packed.Len(); n > 4096 {
		t.Errorf("it has %d bytes, compressed", n)
	}
}

func TestNothingIsLostOrDoubledOverCutsAndRestarts(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, open)
	proxy := e2etest.NewProxy(t, strings.TrimPrefix(server.URL(""), "http://"))
	p := listen(t, "http://"+proxy.Addr()+"/events", map[string]any{"topics": []string{"a", "b"}})
	p.await(`"live"`)
	publish := func(data string) { e2etest.Publish(t, server.URL("/events?topic=b"), data) }
	for round := range 3 {
		for i := range 20 {
			publish(fmt.Sprint(round, i))
			if i == 10 {
				proxy.Cut()
				proxy.Heal()
			}
		}
		server.Kill()
		server.Restart()
		publish(fmt.Sprint(round, " missed"))
		for i := range 20 {
			p.expect(fmt.Sprintf(`"data":"%d %d"`, round, i))
		}
		p.expect(fmt.Sprintf(`"data":"%d missed"`, round))
	}
	if last := p.leave(); !strings.Contains(last, `"closed"`) {
		t.Errorf("at last it said %s", last)
	}
}

func TestGapIsTold(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, strings.Replace(open, "broker bolt {{dir}}/sse.db", "broker memory", 1))
	p := listen(t, server.URL("/events"), map[string]any{"topics": "a"})
	p.await(`{"greeting":"none"}`)
	server.Kill()
	server.Restart()
	p.await(`{"greeting":"gap"}`)
	p.expect(`{"gap":"resume"}`)
}

func TestSinceIsAsked(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.RawQuery + " " + r.Header.Get("Last-Event-ID")
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	listen(t, server.URL+"/?x=1", map[string]any{
		"topics": "a b", "since": "-50", "clientId": "me", "lastEventId": "é-1",
	}).await(`"closed"`)
	if got, want := <-asked, "x=1&topic=a+b&since=-50&client_id=me é-1"; got != want {
		t.Errorf("it asked %q; want %q", got, want)
	}
}

// Each answer comes once; then there is a stream with one message.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		header string
		body   string
		want   string // of the state that it brings
	}{
		"nothing more":     {204, "", "", `"closed","status":204,"why":"there is nothing more to come"`},
		"not granted":      {403, "", `{"detail":"no topic for you"}`, `"closed","status":403,"why":"no topic for you"`},
		"wrong":            {400, "", "", `"closed","status":400,"why":"the server answered 400"`},
		"signed out":       {401, "", "", `"closed","status":401`},
		"a page":           {200, "Content-Type: text/html", "<html>", `text/html, not text/event-stream`},
		"not quite a type": {200, "Content-Type: text/event-stream-foo", "", `"closed","status":200`},
		"full":             {503, "Retry-After: 0", "", `"waiting","why":"the server answered 503","status":503`},
		"broken":           {500, "", "", `"waiting"`},
		"slow down":        {429, "Retry-After: 1", "", `"waiting"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) > 1 {
					w.Header().Set("Content-Type", "text/event-stream;charset=utf-8")
					fmt.Fprint(w, "data: at last\n\n")
					return
				}
				if name, value, ok := strings.Cut(c.header, ": "); ok {
					w.Header().Set(name, value)
				}
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			defer server.Close()
			p := listen(t, server.URL, nil)
			p.await(`"connecting"`)
			if line := p.next(); !strings.Contains(line, c.want) {
				t.Errorf("it told %s; want %s", line, c.want)
			}
			if strings.Contains(c.want, "waiting") {
				p.await("at last")
				return
			}
			p.leave()
			if n := asked.Load(); n != 1 {
				t.Errorf("it asked %d times", n)
			}
		})
	}
}

// What a server asks for is kept within bounds. A subscription that is closed while it waits keeps no timer.
func TestWaitsHaveFloorsAndCeilings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header, body string
		least, most  float64 // ms
	}{
		"the usual":              {"", "", 1500, 2500},
		"retry: 0":               {"", "retry: 0\n\n", 75, 125},
		"a huge retry":           {"", "retry: 99999999999999999999\n\n", 2_700_000, 4_500_000},
		"no number":              {"", "retry: 1s\nretry: \n\n", 1500, 2500},
		"Retry-After":            {"600", "", 600_000, 750_000},
		"a month":                {"2592000", "", 3_600_000, 4_500_000},
		"a date":                 {time.Now().Add(20 * time.Minute).UTC().Format(http.TimeFormat), "", 900_000, 1_500_000},
		"a date that has gone":   {time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), "", 1500, 2500},
		"what is not to be read": {"soon", "", 1500, 2500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprint(w, c.body)
			}))
			defer server.Close()
			p := listen(t, server.URL, nil)
			var told struct{ Wait float64 }
			if err := json.Unmarshal([]byte(p.await(`"waiting"`)), &told); err != nil {
				t.Fatal(err)
			}
			if told.Wait < c.least || told.Wait > c.most {
				t.Errorf("it waits for %v ms; want %v to %v", told.Wait, c.least, c.most)
			}
			p.leave()
		})
	}
}

func TestSilentLineIsLeft(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "retry: 100\nid: %d\ndata: after %s\n\n", asked.Add(1), r.Header.Get("Last-Event-ID"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	p := listen(t, server.URL, map[string]any{"silence": 500})
	p.expect(`"after "`)
	if line := p.await(`"waiting"`); !strings.Contains(line, "the line is silent") {
		t.Errorf("it told %s", line)
	}
	p.expect(`"after 1"`)
}

func TestTokenIsRenewedOnceItHasExpiredOrIsRefused(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, `
:{{port}} {
	sse /events {
		publish {
			open
		}
		jwt {
			key HS256 0123456789abcdef0123456789abcdef
		}
	}
}
`)
	token := func(expires time.Duration) string { return signed(t, time.Now().Add(expires)) }
	p := listen(t, server.URL("/events"), map[string]any{
		"topics": "a", "tokens": []string{"wrong", token(4 * time.Second), token(time.Hour)},
	})
	p.expect(`{"renew":false}`, `{"renew":true}`)
	p.await(`"live"`)
	p.expect(`{"renew":true}`)
	p.await(`"live"`)
	e2etest.Publish(t, server.URL("/events?topic=a"), "hello")
	p.expect(`"hello"`)
}

// What refuses every token is not asked again and again.
func TestTokenThatIsRefusedTwiceWaits(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	p := listen(t, server.URL, map[string]any{"tokens": []string{"a"}})
	p.expect(`{"renew":false}`, `{"renew":true}`)
	p.await(`"waiting"`)
	p.leave()
}

// signed returns a token for all topics.
func signed(t *testing.T, expires time.Time) string {
	t.Helper()
	claims := fmt.Sprintf(`{"sub":"u","exp":%d,"sse":{"subscribe":["**"]}}`, expires.Unix())
	input := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte("0123456789abcdef0123456789abcdef"))
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestClosedByTheOperatorIsForGood(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, open)
	p := listen(t, server.URL("/events"), map[string]any{"topics": "a", "clientId": "me"})
	p.await(`"live"`)
	if a := e2etest.Send(t, http.MethodDelete, server.AdminURL("/sse/hubs/default/clients/me"), ""); a.Status >= 300 {
		t.Fatal(a)
	}
	p.await(`"closed"`)
	p.leave()
}

func TestHookShowsEachMessageOnceAndLeaves(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, open)
	p := run(t, "hook.mjs", server.URL("/events"))
	publish := func(topic, data string) { e2etest.Publish(t, server.URL("/events?topic="+topic), data) }
	p.await(`"live"`)
	for i := range 5 {
		publish("a", fmt.Sprint(i))
	}
	p.await(`{"topic":"a","news":["0","1","2","3","4"],"state":"live"}`)
	p.tell("b")
	p.await(`{"topic":"b","news":["0","1","2","3","4"],"state":"live"}`)
	publish("a", "not to be seen")
	publish("b", "5")
	p.await(`{"topic":"b","news":["0","1","2","3","4","5"],"state":"live"}`)
	p.leave()
}
