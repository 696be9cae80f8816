package stream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/sys/unix"

	"github.com/caddy-sse/caddy-sse/hub"
)

// directStream writes a client's frames to its socket, past the HTTP server, which has let the connection go after the
// headers. It needs no goroutine, no request and no buffer: the client's shard writes. All but blocked belongs to that.
type directStream struct {
	client  *hub.Client
	group   *Group
	fd      int         // the socket, which is this stream's alone
	blocked atomic.Bool // the socket takes no more; parked tells what waits for it
	over    bool
	cause   error // why it ends once all is written; nil while it goes on
	parked  *parking
}

// parking is what a stream keeps while its socket is full.
type parking struct {
	rest  []byte    // of what was sent in part, if it is short
	large *hub.Weak // else the frame itself, as long as anybody keeps it
	skip  int       // how many bytes of large are sent already
	headway
	timer *time.Timer
}

// maxRest is how many bytes of a frame that was sent in part a stream keeps itself.
const maxRest = 8 << 10

// lastChunk ends the body of a stream that ends in good order.
const lastChunk = "0\r\n\r\n"

// mayGoDirect reports whether the stream can leave its request: over plain HTTP/1.1 on a TCP socket. Where the
// server has a write timeout Caddy flushes the response of a request that has taken longer, which panics if its
// connection is gone.
func (s *Stream) mayGoDirect() bool {
	r := s.request
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return ok && server.WriteTimeout == 0 && r.Method != http.MethodHead &&
		r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.TLS == nil && plainSocket(r.Context())
}

// plainSocket reports whether what is written to the socket that a request came by arrives as it is: nothing lies
// above it but what Caddy puts there.
func plainSocket(ctx context.Context) bool {
	switch conn := ctx.Value(connKey{}).(type) {
	case *net.TCPConn:
		return true
	case net.Conn:
		_, ok := lowest(conn, 1).(*net.TCPConn)
		return ok && isCaddys(conn)
	}
	return false
}

// detach goes on with a stream whose headers and hello have been written, without the request, which is to
// return. It reports whether it does; if not, nothing has happened.
func (s *Stream) detach() bool {
	hijacker, ok := innermost(s.w).(http.Hijacker)
	if !ok {
		return false
	}
	fd := s.socket.duplicate()
	if fd < 0 {
		return false
	}
	d := &directStream{client: s.client, group: s.group, fd: fd}
	if s.group.sockets.add(s.client, d) != nil {
		unix.Close(fd)
		return false
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		s.group.sockets.remove(s.client)
		unix.Close(fd)
		return false
	}
	conn.Close() // the socket lives on in its duplicate
	// Its descriptor is watched before anything is said that could end the stream, and close it.
	s.handOver(d)
	watched := s.group.sockets.watch(s.client, fd, unix.EPOLLOUT)
	switch cut := s.finish(); {
	case errors.Is(cut, hub.ErrGone):
		s.client.Post(hungUp)
	case cut != nil || watched != nil:
		s.client.Post(aborted)
	default:
		s.client.Post(writable)
	}
	return true
}

// watchHangUp has a stream that stays in its request end when its peer hangs up. The HTTP server notices as well, but
// over HTTP/1 only until the peer has sent anything after its request. The returned function is to be called before the
// handler returns: the connection may serve another request then. If somebody closes the socket before, the kernel no
// longer watches it.
func (s *Stream) watchHangUp() (stop func()) {
	if s.request.ProtoMajor != 1 || !s.socket.known() || s.group.sockets.add(s.client, s) != nil {
		return func() {}
	}
	_ = s.socket.raw.Control(func(fd uintptr) { _ = s.group.sockets.watch(s.client, int(fd), 0) })
	return func() {
		_ = s.socket.raw.Control(func(fd uintptr) { s.group.sockets.unwatch(int(fd)) })
		s.group.sockets.remove(s.client)
	}
}

// reported implements watched: the peer has hung up. To close the socket is to wait for who is using it, so it is done
// apart.
func (s *Stream) reported(hub.News) { go s.left() }

// reported implements watched.
func (d *directStream) reported(news hub.News) { d.client.Post(news) }

// Abort implements hub.Stream.
func (d *directStream) Abort() { d.client.Post(aborted) }

// Blocked implements hub.Stream. A socket may take bytes again before the stream has its turn: then it waits for us.
// Only the shard asks, so the descriptor is open.
func (d *directStream) Blocked() bool { return !d.over && d.blocked.Load() && isFull(d.fd) }

// Notice implements hub.Stream.
func (d *directStream) Notice(news hub.News) (ready bool) {
	switch {
	case d.over:
		return false
	case news&aborted != 0:
		return d.end(hub.ErrAborted)
	case news&hungUp != 0:
		return d.end(hub.ErrGone)
	case news&writable != 0:
		d.blocked.Store(false)
		return d.flush() && !d.finished()
	case d.parked == nil:
		return true
	case d.parked.stuck(ackedBy(d.fd), d.client.WriteTimeout):
		return d.end(hub.ErrStuck)
	}
	d.parked.timer.Reset(d.client.WriteTimeout / 4)
	return false
}

// Send implements hub.Stream.
func (d *directStream) Send(frames []*hub.Frame, end error) (taken int, ready bool) {
	if d.over || d.parked != nil {
		return 0, false
	}
	writer := d.group.sockets.writer(d.client)
	taken, sent, err := writer.write(d.fd, frames)
	if err != nil {
		return 0, d.end(hub.ErrGone)
	}
	if taken == len(frames) {
		d.cause = end
	}
	switch {
	case sent > 0: // of the last one it took
		d.park(frames[taken-1], sent)
		return taken, false
	case taken < len(frames):
		d.park(nil, 0)
		return taken, false
	}
	return taken, !d.finished()
}

// finished ends a stream that has written all. It reports whether there is an end.
func (d *directStream) finished() bool {
	if d.cause == nil {
		return false
	}
	if hub.EndsCleanly(d.cause) {
		_, _ = send(d.fd, []byte(lastChunk)) // five bytes find room, or the peer has given up
	}
	d.end(d.cause)
	return true
}

// park keeps what the socket did not take of a frame until it is writable.
func (d *directStream) park(f *hub.Frame, sent int) {
	p := &parking{headway: headway{acked: ackedBy(d.fd)}}
	switch {
	case f == nil:
	case len(f.Chunk())-sent <= maxRest:
		p.rest = []byte(f.Chunk()[sent:])
	default:
		p.large, p.skip = f.Weak(), sent
	}
	p.timer = time.AfterFunc(d.client.WriteTimeout/4, func() { d.client.Post(lookNow) })
	p.headway.begin()
	d.parked = p
	d.blocked.Store(true)
}

// flush sends what is parked. It reports whether the socket has taken it.
func (d *directStream) flush() bool {
	p := d.parked
	if p == nil {
		return true
	}
	for {
		rest := p.rest
		if p.skip > 0 {
			f := p.large.Value(&d.group.large)
			if f == nil { // nobody keeps it any more
				return d.end(hub.ErrSlow)
			}
			rest = bytesOf(f.Chunk())[p.skip:]
		}
		if len(rest) == 0 {
			d.unpark()
			return true
		}
		n, err := send(d.fd, rest)
		if err == unix.EAGAIN {
			p.headway.begin()
			d.blocked.Store(true)
			p.timer.Reset(d.client.WriteTimeout / 4)
			return false
		}
		if err != nil {
			return d.end(hub.ErrGone)
		}
		if p.skip > 0 {
			if p.skip += n; n == len(rest) {
				p.skip = 0
			}
		} else {
			p.rest = rest[n:]
		}
	}
}

func (d *directStream) unpark() {
	if d.parked != nil {
		d.parked.timer.Stop()
		d.parked = nil
		d.blocked.Store(false)
	}
}

// end is the last that the stream does. What is to be told of it takes no shard's time.
func (d *directStream) end(cause error) (ready bool) {
	d.over = true
	d.unpark()
	go func() {
		defer d.group.sockets.remove(d.client)
		defer unix.Close(d.fd)
		defer discard(d.fd)
		d.group.leave(d.client, cause)
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
