package live

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Reading is the reading of a publisher's body, which others may end. The zero value is ready for Begin.
type Reading struct {
	w   http.ResponseWriter
	all *readings

	before, next *Reading // in all; guarded by its mutex

	mu   sync.Mutex // guards all below: no deadline may be set after the request is answered
	cut  bool
	over bool
}

// Begin is called before the body of the request that w answers is read. An endless publisher must not delay the
// exit, so the hub ends the reading when it ends itself. Call End when the request is answered.
func (r *Reading) Begin(h *Hub, w http.ResponseWriter) {
	r.w, r.all = w, &h.readings
	if r.all.add(r) {
		r.Stop()
	}
}

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

// End says that the request is answered.
func (r *Reading) End() {
	r.all.remove(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

// readings are the bodies that are being read. The zero value is ready.
type readings struct {
	mu    sync.Mutex // guards all below, and the links of each reading
	first *Reading
	over  bool // no further one may go on
}

// add reports whether the reading is to be stopped at once.
func (all *readings) add(r *Reading) (over bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if r.next = all.first; r.next != nil {
		r.next.before = r
	}
	all.first = r
	return all.over
}

func (all *readings) remove(r *Reading) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if r.before == nil {
		all.first = r.next
	} else {
		r.before.next = r.next
	}
	if r.next != nil {
		r.next.before = r.before
	}
}

// stop stops all of them, and those to come.
func (all *readings) stop() {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.over = true
	for r := all.first; r != nil; r = r.next {
		r.Stop()
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

// Answer answers a publisher.
func Answer(w http.ResponseWriter, contentType string, body []byte) {
	header, values := w.Header(), [...]string{contentType, "no-store", strconv.Itoa(len(body))}
	for i, name := range [...]string{"Content-Type", "Cache-Control", "Content-Length"} {
		header[name] = values[i : i+1 : i+1] // in one piece, as nobody else's: a header may be changed in place
	}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // the publisher may have gone
}
