package stream

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Stream writes a client's frames through the ResponseWriter, from the goroutine of its request. It works with every
// protocol and every wrapper. Its shard fills a buffer and lets the goroutine go on, which says when it has written it.
type Stream struct {
	group      *Group
	client     *hub.Client
	w          http.ResponseWriter
	controller *http.ResponseController
	request    *http.Request
	socket     *Socket // below the response; nil where that can't be told
	timeout    time.Duration
	most       int           // bytes written at once
	past       bool          // it may write past what wraps the response
	direct     bool          // it may leave its request
	turn       chan struct{} // given by Send
	abort      chan struct{} // closed when the stream is cut

	mu sync.Mutex // guards all below
	// next is the stream that has taken the client over: what the shard says before it knows is for that one.
	next     hub.Stream
	idle     bool      // run waits for its turn
	buffer   *[]byte   // what run is to write; nil if there is nothing
	large    *hub.Weak // run is to write this, which is longer than a buffer, behind buffer; nil if there is none
	end      error     // why run is to return once all that is written; nil while it goes on
	writing  bool
	over     bool        // the handler is about to return, and w is off limits
	cut      error       // why it was cut; nil while it was not
	watchdog *time.Timer // runs, if guarded, from a write on until it finds none under way
	guarded  bool
	headway  // of the write under way
}

const (
	// maxWrite is all that a stream holds, and the most that is written at once.
	maxWrite = 12 << 10
	// maxBlind is the most that is written at once where nothing but the write's end tells that it gets anywhere: into
	// the windows of HTTP/2 and 3, a Unix socket, or what hides its socket. So a thin line is seen to be alive.
	maxBlind = 2 << 10
)

var writeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, maxWrite); return &b }}

// New returns the stream of a request whose client is to join.
func (g *Group) New(w http.ResponseWriter, r *http.Request, writeTimeout time.Duration) *Stream {
	s := &Stream{
		group:      g,
		w:          w,
		controller: http.NewResponseController(w),
		request:    r,
		timeout:    writeTimeout,
		turn:       make(chan struct{}, 1),
		abort:      make(chan struct{}),
		socket:     SocketOf(r.Context()),
		most:       maxBlind,
	}
	if r.ProtoMajor == 1 && s.socket.tellsProgress() {
		s.most = maxWrite
	}
	s.socket.findVanishedPeer()
	return s
}

// AllowDirect lets the stream go past what wraps the response, and leave the request, where that changes nothing. It
// is called before the headers are written, and sets what they need.
func (s *Stream) AllowDirect() {
	s.past = plainResponse(s.w)
	s.direct = s.past && s.mayGoDirect()
	if s.direct {
		s.w.Header().Set("Connection", "close") // the HTTP server will not be there for a further request
	}
}

// begin readies the response for a stream. The returned function is to be called before the handler returns.
func (s *Stream) begin(c *hub.Client) (end func()) {
	s.client = c
	restore := s.liftDeadlines()
	stop := context.AfterFunc(s.request.Context(), s.left)
	return func() {
		stop()
		_ = s.finish()
		restore()
	}
}

// goPast makes the stream write past what wraps the response, which would set a deadline for each write.
func (s *Stream) goPast() {
	if s.request.ProtoMajor == 3 { // where those deadlines are needed: see liftDeadlines
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w = innermost(s.w)
	s.controller = http.NewResponseController(s.w)
	_ = s.controller.SetWriteDeadline(time.Time{})
}

// run writes what the shard gives it, until the stream ends. It returns why.
func (s *Stream) run() error {
	for {
		s.mu.Lock()
		s.idle = true
		s.mu.Unlock()
		s.client.Post(writable)
		select {
		case <-s.turn:
		case <-s.abort:
			return s.cut
		}
		if err := s.writeGiven(); err != nil {
			return err
		}
		s.mu.Lock()
		end := s.end
		s.mu.Unlock()
		if end != nil {
			return end
		}
	}
}

// Send implements hub.Stream.
func (s *Stream) Send(frames []*hub.Frame, end error) (taken int, ready bool) {
	if next := s.successor(); next != nil {
		return next.Send(frames, end)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.idle || s.over || s.cut != nil {
		return 0, false
	}
	if len(frames) > 0 {
		s.buffer = writeBuffers.Get().(*[]byte)
		b := (*s.buffer)[:0]
		for _, f := range frames {
			block := f.Block()
			if len(b)+len(block) > maxWrite {
				if len(block) > maxWrite && len(b) == 0 {
					s.large = f.Weak()
					taken++
				}
				break
			}
			b = append(b, block...)
			if taken++; s.eachAlone() {
				break
			}
		}
		*s.buffer = b
	}
	if taken == len(frames) {
		s.end = end
	}
	s.idle = false
	s.turn <- struct{}{}
	// All at once they would stand in the scheduler's line before whoever publishes next. Like this that one comes
	// first, messages gather, and go out in one write.
	if few := uint64(perProcessor * runtime.GOMAXPROCS(0)); s.group.woken.Add(1)%few == 0 {
		runtime.Gosched()
	}
	return taken, false
}

// eachAlone reports whether each frame is to be a chunk of its own: some clients of that form take a chunk for an event.
func (s *Stream) eachAlone() bool { return s.client.Form == hub.Updates && s.request.ProtoMajor == 1 }

// perProcessor is how many streams are woken for each processor before the scheduler's line is let go on.
const perProcessor = 8

// Notice implements hub.Stream.
func (s *Stream) Notice(news hub.News) (ready bool) {
	if next := s.successor(); next != nil {
		return next.Notice(news)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.idle && !s.over && s.cut == nil
}

// Abort implements hub.Stream. To close a socket is to wait for who is using it, so it is done apart.
func (s *Stream) Abort() {
	if next := s.successor(); next != nil {
		next.Abort()
		return
	}
	go s.cutFor(hub.ErrAborted)
}

func (s *Stream) successor() hub.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// handOver lets another stream go on with the client.
func (s *Stream) handOver(next hub.Stream) {
	s.mu.Lock()
	s.next = next
	s.mu.Unlock()
	s.client.HandOver(next)
}

// Blocked implements hub.Stream.
func (s *Stream) Blocked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// HTTP/2 and 3 have windows of their own above the socket; there a write under way is all we know.
	return s.writing && (s.request.ProtoMajor != 1 || s.socket.blocked())
}

// writeGiven writes what Send has left for run, and flushes once.
func (s *Stream) writeGiven() error {
	s.mu.Lock()
	buffer := s.buffer
	s.buffer = nil
	s.mu.Unlock()
	if buffer == nil {
		return nil
	}
	defer writeBuffers.Put(buffer)
	if large := s.large; large != nil {
		s.large = nil
		return s.writeLarge(large, (*buffer)[:0])
	}
	return s.writeBlock(*buffer)
}

// writeLarge writes a frame that is longer than a buffer, in pieces. Between them it holds none of it.
func (s *Stream) writeLarge(large *hub.Weak, piece []byte) error {
	for done := 0; ; done += len(piece) {
		f := large.Value(&s.group.large)
		if f == nil {
			return hub.ErrSlow // nobody keeps it any more
		}
		block := f.Block()
		last := len(block)-done <= maxWrite
		piece = append(piece[:0], block[done:min(len(block), done+maxWrite)]...)
		f, block = nil, ""
		if err := s.writeBlock(piece); err != nil || last {
			return err
		}
	}
}

// writeBlock writes a block and sends it on its way, by as many writes as make progress show.
func (s *Stream) writeBlock(block []byte) error {
	for {
		piece := block[:min(len(block), s.most)]
		if err := s.watched(func() error { return s.writeAndFlush(piece) }); err != nil {
			return err
		}
		if block = block[len(piece):]; len(block) == 0 {
			return nil
		}
	}
}

func (s *Stream) writeAndFlush(p []byte) error {
	if len(p) > 0 {
		if _, err := s.w.Write(p); err != nil {
			return err
		}
	}
	return s.controller.Flush()
}

// watched runs one write under the watchdog.
func (s *Stream) watched(write func() error) error {
	s.mu.Lock()
	if s.cut != nil {
		defer s.mu.Unlock()
		return s.cut
	}
	s.writing = true
	s.headway.begin()
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
func (s *Stream) lookForProgress() {
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

// left runs when the client has ended its side. A write under way would not notice.
func (s *Stream) left() { s.cutFor(hub.ErrGone) }

func (s *Stream) cutFor(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutLocked(cause)
}

// cutLocked makes a write under way fail. HTTP/1 has the connection to itself. Of the others only the stream is
// reset, unless nothing can be sent, not even that.
func (s *Stream) cutLocked(cause error) {
	if s.over || s.cut != nil {
		return
	}
	s.cut = cause
	close(s.abort)
	switch {
	case s.socket == nil:
	case s.request.ProtoMajor == 1, errors.Is(cause, hub.ErrStuck) && s.socket.full():
		_ = s.socket.Close()
		return
	case !errors.Is(cause, hub.ErrGone) && s.socket.blocked():
		acked := s.socket.acked()
		time.AfterFunc(resetTime, func() { s.cutConnection(acked) })
	}
	_ = http.NewResponseController(innermost(s.w)).SetWriteDeadline(time.Unix(1, 0))
}

// resetTime is how long the reset of a stream may take on a connection that is full, as it may be of what others send.
const resetTime = time.Second

// cutConnection ends a connection that has taken nothing since so much was acknowledged, and so not the stream's reset:
// the handler still waits for that.
func (s *Stream) cutConnection(acked uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over && s.socket.blocked() && s.socket.acked() == acked {
		_ = s.socket.Close()
	}
}

// finish makes the stream leave the response alone from now on. It returns why the stream was cut, nil if it was not.
func (s *Stream) finish() (cut error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.watchdog != nil {
		s.watchdog.Stop()
	}
	return s.cut
}
