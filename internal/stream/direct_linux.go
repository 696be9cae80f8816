package stream

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/sys/unix"
)

// directStream writes a client's messages to its socket, past the HTTP server, which has let the
// connection go after the headers. It needs no goroutine, no request and no buffer: one of a few writers
// gives it a turn when there is something to do. All but its atomic fields belong to that writer.
type directStream struct {
	client *hub.Client
	group  *Group
	writer *writer
	fd     int // the socket, which is this stream's alone

	queued  atomic.Bool   // it is in line for a turn
	news    atomic.Uint32 // what has happened since its last turn
	blocked atomic.Bool   // the socket takes no more; parked tells what waits for it
	over    bool
	cause   error // why it ends once EndOfStream is written; nil while it goes on
	parked  *parking
}

// parking is what a stream keeps while its socket is full.
type parking struct {
	unsent []*hub.Message
	skip   int // how many bytes of the first are sent already
	progress
	timer *time.Timer
}

// What happens to a stream between its turns.
const (
	toTake   uint32 = 1 << iota // the hub has something for the client
	writable                    // the socket takes bytes again
	hungUp                      // the peer has closed its side
	aborted                     // the hub has cut the stream
	lookNow                     // it is time to see whether the socket gets anywhere
)

// MayDetach reports whether the stream of a request can leave it: over plain HTTP/1.1 on a TCP socket. Where the
// server has a write timeout Caddy flushes the response of a request that has taken longer, which panics if its
// connection is gone.
func MayDetach(r *http.Request) bool {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return ok && server.WriteTimeout == 0 &&
		r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.TLS == nil && plainSocket(r.Context())
}

// plainSocket reports whether what is written to the socket that a request came by arrives as it is: nothing lies
// above it but what Caddy puts there.
func plainSocket(ctx context.Context) bool {
	conn, _ := ctx.Value(connKey{}).(net.Conn)
	for conn != nil {
		if _, ok := conn.(*net.TCPConn); ok {
			return true
		}
		if !isCaddys(conn) {
			return false
		}
		conn = below(conn)
	}
	return false
}

// Detach goes on with a stream whose headers and hello have been written, without the request, which is to
// return. It reports whether it does; if not, nothing has happened.
func (s *Handler) Detach(c *hub.Client) bool {
	hijacker, ok := innermost(s.w).(http.Hijacker)
	if !ok {
		return false
	}
	fd := s.socket.duplicate()
	if fd < 0 {
		return false
	}
	direct := &directStream{client: c, group: s.group, fd: fd}
	if direct.writer = s.group.writers.add(c, direct); direct.writer == nil {
		unix.Close(fd)
		return false
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		s.group.writers.remove(c)
		unix.Close(fd)
		return false
	}
	conn.Close()                                           // the socket lives on in its duplicate
	watched := s.group.writers.watch(c, fd, unix.EPOLLOUT) // before anybody can end the stream, and close its descriptor
	c.HandOver(direct)
	switch cut := s.finish(); {
	case cut == hub.ErrGone:
		direct.post(hungUp)
	case cut != nil || watched != nil:
		direct.post(aborted)
	default:
		direct.post(toTake)
	}
	return true
}

// WatchHangup has a stream that stays in its request end when its peer hangs up. The HTTP server notices as well, but
// over HTTP/1 only until the peer has sent anything after its request. The returned function is to be called before the
// handler returns: the connection may serve another request then. If the socket is closed before, by whomever, the
// kernel ceases to watch it.
func (s *Handler) WatchHangup(c *hub.Client) (stop func()) {
	writers := &s.group.writers
	if s.request.ProtoMajor != 1 || s.socket == nil || writers.add(c, s) == nil {
		return func() {}
	}
	_ = s.socket.raw.Control(func(fd uintptr) { _ = writers.watch(c, int(fd), 0) })
	return func() {
		_ = s.socket.raw.Control(func(fd uintptr) { writers.unwatch(int(fd)) })
		writers.remove(c)
	}
}

// post implements watched: the peer has hung up. To close the socket is to wait for who is using it, so it is done apart.
func (s *Handler) post(uint32) { go s.left() }

// post notes that something has happened and sees to it that the stream has a turn.
func (s *directStream) post(news uint32) {
	s.news.Or(news)
	s.writer.enqueue(s)
}

// Wake implements Stream.
func (s *directStream) Wake() { s.post(toTake) }

// Abort implements Stream.
func (s *directStream) Abort() { s.post(aborted) }

// Blocked implements Stream. A socket may take bytes again before the stream has its turn: then it waits for us. The
// descriptor is still open: the client's mutex is held, and leaving, which goes before closing, needs it.
func (s *directStream) Blocked() bool { return s.blocked.Load() && isFull(s.fd) }

// turn writes what waits for the client. It reports whether there is more, for a further turn.
func (s *directStream) turn(w *writer) (more bool) {
	news := s.news.Swap(0)
	switch {
	case s.over:
		return false
	case news&aborted != 0:
		return s.end(errAborted)
	case news&hungUp != 0:
		return s.end(hub.ErrGone)
	case news&writable != 0:
		s.blocked.Store(false)
	case s.parked == nil:
	case news&lookNow != 0 && s.parked.stuck(ackedBy(s.fd), s.client.WriteTimeout):
		return s.end(hub.ErrStuck)
	default:
		s.parked.timer.Reset(s.client.WriteTimeout / 4)
		return false
	}
	var batch []*hub.Message
	var skip int
	if s.parked != nil {
		batch, skip = s.parked.unsent, s.parked.skip
	} else {
		var cause error
		batch, cause = s.client.Take(w.batch[:0])
		w.batch = batch
		switch {
		case len(batch) > 0:
		case cause == nil:
			return false
		case !EndsCleanly(cause):
			return s.end(cause)
		default:
			s.cause = cause
			batch = append(batch, hub.EndOfStream)
		}
	}
	rest, skip, err := w.write(s.fd, batch, skip)
	if err != nil {
		return s.end(hub.ErrGone)
	}
	if sent := batch[:len(batch)-len(rest)]; len(sent) > 0 {
		s.client.Wrote(sent)
	}
	if len(rest) > 0 {
		s.park(rest, skip)
		return false
	}
	s.unpark()
	if s.cause != nil {
		return s.end(s.cause)
	}
	return s.client.Rest()
}

// park keeps what the socket did not take until it is writable.
func (s *directStream) park(rest []*hub.Message, skip int) {
	if s.parked == nil {
		s.parked = &parking{unsent: slices.Clone(rest), progress: progress{acked: ackedBy(s.fd)}}
		s.parked.timer = time.AfterFunc(s.client.WriteTimeout/4, func() { s.post(lookNow) })
	} else {
		s.parked.unsent = rest
		s.parked.timer.Reset(s.client.WriteTimeout / 4)
	}
	s.parked.skip = skip
	s.parked.begin()
	s.blocked.Store(true)
}

func (s *directStream) unpark() {
	if s.parked != nil {
		s.parked.timer.Stop()
		s.parked = nil
		s.blocked.Store(false)
	}
}

// end is the stream's last turn. What is to be told of it takes no writer's time.
func (s *directStream) end(cause error) (more bool) {
	s.over = true
	s.unpark()
	go func() {
		s.group.Leave(s.client, cause)
		discard(s.fd)
		unix.Close(s.fd)
		s.group.writers.remove(s.client)
	}()
	return false
}

// discard reads what the peer has sent: if it were still there when the socket is closed, the peer would be told of
// a broken connection, and lose what it has not read yet.
func discard(fd int) {
	var b [512]byte
	for range 128 {
		if n, err := unix.Read(fd, b[:]); n <= 0 || err != nil {
			return
		}
	}
}
