package stream

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Handler writes a client's messages through the ResponseWriter, from the ServeHTTP goroutine.
// It works with every protocol and every wrapper.
type Handler struct {
	w          http.ResponseWriter
	controller *http.ResponseController
	request    *http.Request
	socket     *Socket // below the response; nil where that can't be told
	timeout    time.Duration
	group      *Group
	turn       chan struct{}
	abort      chan struct{} // closed by Abort

	mu       sync.Mutex // guards all below
	writing  bool
	over     bool        // the handler is about to return, and w is off limits
	cut      error       // why it was aborted; nil while it was not
	watchdog *time.Timer // runs, if guarded, from a write on until it finds none under way
	guarded  bool
	progress // of the write under way
}

// maxWrite is the most that is written at once, so that progress shows on thin lines too, whatever
// lies between us and the socket.
const maxWrite = 16 << 10

var writeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, maxWrite); return &b }}

var errAborted = errors.New("stream was cut")

// New returns the stream of a request, whose single writes may be stuck for the timeout.
func (g *Group) New(w http.ResponseWriter, r *http.Request, timeout time.Duration) *Handler {
	s := &Handler{
		w:          w,
		controller: http.NewResponseController(w),
		request:    r,
		timeout:    timeout,
		group:      g,
		turn:       make(chan struct{}, 1),
		abort:      make(chan struct{}),
	}
	s.socket = SocketOf(r.Context())
	s.socket.findVanishedPeer()
	return s
}

// Open readies the response for a stream. The returned function is to be called before the handler returns.
func (s *Handler) Open() (end func()) {
	restore := s.liftDeadlines()
	stop := context.AfterFunc(s.request.Context(), s.left)
	return func() {
		stop()
		_ = s.finish()
		restore()
	}
}

// Hello writes what the stream begins with, so that the client has it at once.
func (s *Handler) Hello(block []byte) error { return s.writeLast(block) }

// BypassWrappers makes the stream write past what wraps the response, which would set a deadline for each write.
func (s *Handler) BypassWrappers() {
	if s.request.ProtoMajor == 3 { // where those deadlines are needed: see liftDeadlines
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w = innermost(s.w)
	s.controller = http.NewResponseController(s.w)
	_ = s.controller.SetWriteDeadline(time.Time{})
}

// Run writes all that the client is sent, until its stream ends. It returns why. A turn ends after one batch, behind
// the others, so that messages gather.
func (s *Handler) Run(c *hub.Client) error {
	var batch []*hub.Message
	for {
		var end error
		batch, end = c.Take(batch[:0])
		switch {
		case end != nil:
			return end
		case len(batch) > 0:
			if err := s.writeAll(batch); err != nil {
				return err
			}
			c.Wrote(batch)
			clear(batch)
			if c.Rest() {
				s.Wake()
			}
		}
		select {
		case <-s.turn:
		case <-s.abort:
			return s.cut
		}
	}
}

// writeAll writes the frames of a batch in as few writes as there can be, and flushes once.
func (s *Handler) writeAll(batch []*hub.Message) error {
	pooled := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(pooled)
	buffer := (*pooled)[:0]
	for _, m := range batch {
		if len(buffer)+len(m.Frame()) > maxWrite {
			if err := s.write(buffer); err != nil {
				return err
			}
			buffer = buffer[:0]
		}
		if len(m.Frame()) > maxWrite {
			if err := s.write(m.Frame()); err != nil {
				return err
			}
			continue
		}
		buffer = append(buffer, m.Frame()...)
	}
	return s.writeLast(buffer)
}

func (s *Handler) write(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), maxWrite)
		if err := s.watched(func() error { _, err := s.w.Write(p[:n]); return err }); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// writeLast writes no more than maxWrite bytes, and sends them and all before on their way.
func (s *Handler) writeLast(p []byte) error {
	return s.watched(func() error {
		if len(p) > 0 {
			if _, err := s.w.Write(p); err != nil {
				return err
			}
		}
		return s.controller.Flush()
	})
}

// watched runs one write under the watchdog.
func (s *Handler) watched(write func() error) error {
	s.mu.Lock()
	if s.cut != nil {
		defer s.mu.Unlock()
		return s.cut
	}
	s.writing = true
	s.begin()
	switch {
	case s.watchdog == nil:
		s.watchdog = time.AfterFunc(s.timeout/4, s.lookForProgress)
	case !s.guarded:
		s.watchdog.Reset(s.timeout / 4)
	}
	s.guarded = true
	s.mu.Unlock()

	err := write()

	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	switch {
	case s.cut != nil:
		return s.cut
	case err != nil:
		return hub.ErrGone
	}
	return nil
}

// lookForProgress runs now and then during a write.
func (s *Handler) lookForProgress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.writing || s.over {
		s.guarded = false
		return
	}
	acked := s.acked
	if s.request.ProtoMajor == 1 || s.socket.blocked() { // else what the peer takes is for other streams
		acked = s.socket.acked()
	}
	if s.stuck(acked, s.timeout) {
		s.cutLocked(hub.ErrStuck)
		return
	}
	s.watchdog.Reset(s.timeout / 4)
}

// Wake implements Stream.
func (s *Handler) Wake() { s.group.turns.enqueue(s) }

// giveTurn lets run go on.
func (s *Handler) giveTurn() {
	select {
	case s.turn <- struct{}{}:
	default:
	}
}

// Abort implements Stream.
func (s *Handler) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutLocked(errAborted)
}

// left runs when the client has ended its side. A write under way would not notice.
func (s *Handler) left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutLocked(hub.ErrGone)
}

// cutLocked makes a write under way fail. HTTP/1 has the connection to itself. Of the others only the stream is
// reset, unless nothing can be sent, not even that.
func (s *Handler) cutLocked(cause error) {
	if s.over || s.cut != nil {
		return
	}
	s.cut = cause
	close(s.abort)
	switch {
	case s.socket == nil:
	case s.request.ProtoMajor == 1, errors.Is(cause, hub.ErrStuck) && s.socket.blocked():
		_ = s.socket.tcp.Close() // and not the TLS connection, which would say goodbye first, and wait
		return
	case errors.Is(cause, errAborted) && s.socket.blocked():
		acked := s.socket.acked()
		time.AfterFunc(resetTime, func() { s.cutConnection(acked) })
	}
	_ = http.NewResponseController(innermost(s.w)).SetWriteDeadline(time.Unix(1, 0))
}

// resetTime is how long the reset of a stream may take on a connection that is full, as it may be of what others send.
const resetTime = time.Second

// cutConnection ends a connection that has taken nothing since so much was acknowledged, and so not the stream's reset.
func (s *Handler) cutConnection(acked uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over && s.socket.blocked() && s.socket.acked() == acked {
		_ = s.socket.tcp.Close()
	}
}

// Blocked implements Stream.
func (s *Handler) Blocked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// HTTP/2 and 3 have windows of their own above the socket; there a write under way is all we know.
	return s.writing && (s.request.ProtoMajor != 1 || s.socket.blocked())
}

// finish makes the stream leave the response alone from now on. It returns why the stream was cut, nil if it was not.
func (s *Handler) finish() (cut error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.watchdog != nil {
		s.watchdog.Stop()
	}
	return s.cut
}

// liftDeadlines frees the stream from the timeouts meant for ordinary answers; ours is the watchdog.
func (s *Handler) liftDeadlines() (restore func()) {
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
