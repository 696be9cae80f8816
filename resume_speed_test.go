package sse

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/live"
)

// BenchmarkPassing measures what a response that is not kept costs beyond what is behind.
func BenchmarkPassing(b *testing.B) {
	h := &Resume{
		bind: "{http.auth.user.id}", MaxBody: 1 << 20, MaxTime: caddy.Duration(time.Hour), MaxTotal: 1 << 30,
		MaxBytes: 1 << 20, MaxLive: 10, logger: zap.NewNop(), live: &live.Hub{Answers: answers.NewStore()},
	}
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		growStack() // about as deep as proxying
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Date", "Tue, 01 Dec 2026 02:30:36 GMT")
		w.WriteHeader(http.StatusOK)
		_, err := io.WriteString(w, "{}")
		return err
	})
	for name, serve := range map[string]func(http.ResponseWriter, *http.Request) error{
		"through": func(w http.ResponseWriter, r *http.Request) error { return h.ServeHTTP(w, r, next) },
		"without": next,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				growStack()
				for pb.Next() {
					w := httptest.NewRecorder()
					r := httptest.NewRequest(http.MethodPost, "/chat", http.NoBody)
					r.Header.Set("User-Agent", "bench")
					r.Header.Set("Accept-Encoding", "gzip")
					r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
					_ = serve(w, r)
				}
			})
		})
	}
}
