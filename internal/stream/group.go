package stream

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Group is the streams of one hub.
type Group struct {
	// Hub is whose clients' streams they are.
	Hub *hub.Hub
	// Left, if set, is told once of each client whose stream has ended in Serve, or later, and why. It has left the hub.
	Left func(*hub.Client, error)

	large atomic.Pointer[hub.Frame] // the last large message that was made anew in another form
	woken atomic.Uint64             // handler streams, to let others go on now and then
	sockets
}

// Serve writes hello to a client that has joined with a stream that New made, and then what the hub has for it, until
// the end; or until it has left the request, as a direct stream. It reports whether the response is to end in good
// order. If it is not, the handler panics with http.ErrAbortHandler. Headers are written. The error is a *HeldBack: then
// nothing has got through, and there may be another answer.
func (s *Stream) Serve(c *hub.Client, hello []byte) (clean bool, err error) {
	ended := hub.ErrAborted // if it panics
	detached := false
	defer func() {
		if !detached {
			clean = s.group.leave(c, ended)
		}
	}()
	end := s.begin(c)
	defer end()
	if err := s.writeBlock(hello); err != nil {
		ended = err
		return false, nil
	}
	if err := checkHeldBack(s.w); err != nil {
		return false, err
	}
	if s.past && !s.changed() {
		if s.direct && s.detach() {
			detached = true
			return true, nil
		}
		s.goPast()
	}
	stop := s.watchHangUp()
	defer stop()
	ended = s.run()
	return false, nil // for the deferred function to say
}

// leave takes a client out whose stream has ended. It reports whether that was in good order.
func (g *Group) leave(c *hub.Client, ended error) (clean bool) {
	cause := g.Hub.Leave(c, ended)
	if g.Left != nil {
		g.Left(c, cause)
	}
	return hub.EndsCleanly(cause) && hub.EndsCleanly(ended)
}

// News of a stream.
const (
	writable hub.News = 1 << iota // the stream would take frames, or its socket bytes
	hungUp                        // the peer has closed its side
	aborted                       // the hub has cut the stream
	lookNow                       // it is time to see whether the socket gets anywhere
)

// headway tells whether a write gets anywhere. A thin line takes some bytes all the same, and then the write
// goes on; one that has taken none for as long as its timeout is stuck.
type headway struct {
	seen  time.Time // when the write began, or was last seen to have got further
	acked uint64    // what the peer had acknowledged by then
}

func (p *headway) begin() { p.seen = time.Now() }

// stuck reports whether a write has got nowhere for that long. It is asked now and then, with what the peer has
// acknowledged by now.
func (p *headway) stuck(acked uint64, timeout time.Duration) bool {
	if acked != p.acked {
		p.acked, p.seen = acked, time.Now()
	}
	return time.Since(p.seen) >= timeout
}

// MayPass reports whether nothing wraps a response but what Caddy brings, so that a stream may write past that. Ask
// before the headers are written.
func MayPass(w http.ResponseWriter) bool { return plainResponse(w) }
