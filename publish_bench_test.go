package sse_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// BenchmarkPost is what Caddy and a route do for a POST, without net/http: ours, and a route of Caddy's own that
// reads as much and answers as much.
func BenchmarkPost(b *testing.B) {
	for name, route := range map[string]string{
		"sse": openRoute,
		"respond": `
			vars body {http.request.body}
			header Content-Type application/json
			header Cache-Control no-store
			respond /events "{\"id\":\"0123456789abcdef-1234567\",\"receivers\":0}"`,
	} {
		b.Run(name, func(b *testing.B) {
			serve(b, route)
			app, err := caddy.ActiveContext().App("http")
			if err != nil {
				b.Fatal(err)
			}
			server := app.(*caddyhttp.App).Servers["srv0"]
			data := strings.Repeat("x", 200)
			var w answer
			for b.Loop() {
				b.StopTimer()
				r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/events?topic=news", strings.NewReader(data))
				w = answer{header: make(http.Header)}
				b.StartTimer()
				server.ServeHTTP(&w, r)
			}
			if w.status != http.StatusOK || w.written == 0 {
				b.Fatalf("answered %d with %d bytes", w.status, w.written)
			}
		})
	}
}

// answer is a ResponseWriter that drops what is written, and takes deadlines.
type answer struct {
	header  http.Header
	status  int
	written int
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) { a.status = status }

func (a *answer) Write(p []byte) (int, error) {
	a.written += len(p)
	return len(p), nil
}

func (a *answer) SetWriteDeadline(time.Time) error { return nil }

func (a *answer) SetReadDeadline(time.Time) error { return nil }
