package live

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Reading is the reading of a publisher's body, which others may end.
type Reading struct {
	w http.ResponseWriter

	mu   sync.Mutex // guards all below: no deadline may be set after the request is answered
	cut  bool
	over bool
}

// NewReading is for the body of the request that w answers.
func NewReading(w http.ResponseWriter) *Reading { return &Reading{w: w} }

// Stop makes reads of the body fail, now and from now on.
func (r *Reading) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.cut = true
		_ = http.NewResponseController(r.w).SetReadDeadline(time.Unix(1, 0))
	}
}

// Stopped reports whether reads have been made to fail.
func (r *Reading) Stopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cut
}

// end says that the request is answered.
func (r *Reading) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

// StopAtExit makes reads of a body fail when the hub ends: an endless publisher must not delay the exit. Call
// undo when the request is answered.
func (h *Hub) StopAtExit(r *Reading) (undo func()) {
	stop := context.AfterFunc(h.Core.Context(), r.Stop)
	return func() {
		stop()
		r.end()
	}
}

// LiftWriteDeadline lets the answer be written after the server's write timeout: messages may have come one
// by one, or have waited for a busy machine. Caddy's idle timeout bounds how long writing the answer may
// take.
func LiftWriteDeadline(w http.ResponseWriter, r *http.Request) {
	if _, w := caddyhttp.IdleTimeoutsFromContext(r.Context()); w != nil {
		w.Deadline.HardDeadline = time.Time{}
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
}
