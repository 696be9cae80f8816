package stream

import (
	"net/http"
	"path"
	"reflect"
	"runtime"
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

// changed reports whether a wrapper has made something else of the response than the stream that it is.
func (s *Stream) changed() bool {
	own := ""
	if s.client.Gzip {
		own = "gzip"
	}
	return innermost(s.w).Header().Get("Content-Encoding") != own
}

// HeldBack is why no stream can pass: a wrapper keeps the response to itself until its end.
type HeldBack struct {
	By string // the package of the wrapper
}

func (e *HeldBack) Error() string {
	return e.By + " holds the response back until its end, which a stream does not have: let it leave this route alone"
}

// CheckFlush returns a *HeldBack if a wrapper lets no flush through. Ask before the headers are written.
func CheckFlush(w http.ResponseWriter) error {
	for end := w; ; {
		switch end.(type) {
		case http.Flusher, interface{ FlushError() error }:
			return nil
		}
		wrapper, ok := end.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return &HeldBack{packageOf(end)}
		}
		end = wrapper.Unwrap()
	}
}

// checkHeldBack returns a *HeldBack if a wrapper has let through nothing of a response that was written and flushed.
func checkHeldBack(w http.ResponseWriter) error {
	var foreign []string
	for {
		if recorder, ok := w.(interface{ Buffered() bool }); ok && recorder.Buffered() {
			if by := packageOf(w); by != caddyHTTP { // else it only waits for what another one holds
				return &HeldBack{by}
			}
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		if !isCaddys(w) {
			foreign = append(foreign, packageOf(w))
		}
		w = wrapper.Unwrap()
	}
	if len(foreign) > 0 && !begun(reflect.ValueOf(w)) {
		return &HeldBack{strings.Join(foreign, " or ")}
	}
	return nil
}

// begun reports whether the HTTP server has been given a status. It doesn't say so itself; if the field that does has
// another name one day, it is taken to be so.
func begun(server reflect.Value) bool {
	server = reflect.Indirect(server)
	if server.Kind() != reflect.Struct {
		return true
	}
	for _, name := range []string{"wroteHeader", "headerComplete"} { // of net/http and of quic-go
		if field := server.FieldByName(name); field.IsValid() && field.Kind() == reflect.Bool {
			return field.Bool()
		}
	}
	if state := server.FieldByName("rws"); state.IsValid() { // of HTTP/2
		return begun(state)
	}
	return true
}

// packageOf returns the package of a wrapper. That of a recorder of Caddy's is where it was decided that it buffers.
func packageOf(w http.ResponseWriter) string {
	value := reflect.Indirect(reflect.ValueOf(w))
	name := value.Type().PkgPath()
	if name == caddyHTTP && value.Kind() == reflect.Struct {
		for _, field := range value.Fields() {
			if field.Kind() != reflect.Func || field.IsNil() {
				continue
			}
			function := runtime.FuncForPC(field.Pointer()).Name()
			dir, base := path.Split(function)
			base, _, _ = strings.Cut(base, ".")
			name = dir + base
		}
	}
	if name == "" {
		name = value.Type().String()
	}
	return strings.TrimPrefix(name, caddyHTTP+"/")
}

const caddyHTTP = "github.com/caddyserver/caddy/v2/modules/caddyhttp"

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
