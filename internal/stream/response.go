package stream

import (
	"net/http"
	"reflect"
	"strings"

	"github.com/caddy-sse/caddy-sse/hub"
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

// Plain reports whether nothing wraps a response but what Caddy brings, which bears being written past
// unless it has changed the response.
func Plain(w http.ResponseWriter) bool {
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

// Changed reports whether a wrapper has made something else of the response than a plain stream.
func Changed(w http.ResponseWriter) bool {
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

// SetHeaders sets the headers of a response that is an event stream.
func SetHeaders(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream; charset=utf-8")
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
}

// EndsCleanly reports whether a stream that ended for this cause gets a proper last chunk. One that
// was cut does not: there is no telling what the client has.
func EndsCleanly(cause error) bool {
	switch cause {
	case hub.ErrGone, hub.ErrSlow, hub.ErrStuck, errAborted:
		return false
	}
	return true
}
