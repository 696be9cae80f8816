package sse

import (
	"net/http"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Group is the streams of one hub and what they share: writers for those that have left their request, turns for the
// others. The zero Group has none, and only needs Leave.
type Group struct {
	// Leave takes a client out whose stream has ended, and why. It reports whether the stream may end in good order.
	Leave func(c *hub.Client, cause error) bool

	writers writers
	turns   turns
}

// Retire says that no more streams will leave their requests. What the group runs ends with the last that has.
func (g *Group) Retire() { g.writers.retire() }

// Wait returns when the last stream that has left its request has ended after Retire, or after that long.
func (g *Group) Wait(atMost time.Duration) { g.writers.wait(atMost) }

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
