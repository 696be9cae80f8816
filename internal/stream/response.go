package stream

import (
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// innermost returns the ResponseWriter of the HTTP server itself.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}

// plainResponse reports whether nothing wraps a response but what Caddy brings, which bears being written past
// unless it has changed the response.
func plainResponse(w http.ResponseWriter) bool {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return comesFrom(w, "net/http") || comesFrom(w, "golang.org/x/net/http2")
		}
		if !isCaddys(w) {
			return false
		}
		w = wrapper.Unwrap()
	}
}

// isCaddys reports whether a value's type is one of Caddy's own.
func isCaddys(value any) bool { return comesFrom(value, "github.com/caddyserver/caddy/v2") }

// comesFrom reports whether a value's type is of a package, or of one below.
func comesFrom(value any, pkg string) bool {
	return strings.HasPrefix(reflect.Indirect(reflect.ValueOf(value)).Type().PkgPath()+"/", pkg+"/")
}

// changed reports whether a wrapper has made something else of the response than a plain stream.
func changed(w http.ResponseWriter) bool {
	for {
		if recorder, ok := w.(interface{ Buffered() bool }); ok && recorder.Buffered() {
			return true
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w.Header().Get("Content-Encoding") != ""
		}
		w = wrapper.Unwrap()
	}
}

// liftDeadlines frees the stream from the timeouts meant for ordinary answers; ours is the watchdog.
func (s *Stream) liftDeadlines() (restore func()) {
	restore = func() {}
	r, w := caddyhttp.IdleTimeoutsFromContext(s.request.Context())
	if r != nil { // HTTP/1 notices by a read under way that the client left
		r.Deadline.HardDeadline = time.Time{}
	}
	if w != nil {
		w.Deadline.HardDeadline = time.Time{}
		limit := 365 * 24 * time.Hour
		if s.request.ProtoMajor == 3 {
			limit = s.timeout // where a deadline is all that cuts, and each write sets it anew
		}
		restore = w.Override(limit, 0, 0)
	}
	_ = s.controller.SetWriteDeadline(time.Time{})
	_ = s.controller.SetReadDeadline(time.Time{})
	return restore
}
