package stream

import (
	"context"
	"io"
	"net"
	"syscall"
	"time"
)

// Socket is the connection below a response, without the layers that hide it. A nil Socket tells nothing.
type Socket struct {
	conn net.Conn        // the lowest that can be found
	raw  syscall.RawConn // the kernel's socket; nil if conn is none
}

// connKey finds in a request's context the connection that it came by.
type connKey struct{}

// KeepConn is for caddyhttp.Server.RegisterConnContext: it lets SocketOf find the connection.
func KeepConn(ctx context.Context, conn net.Conn) context.Context {
	if ctx.Value(connKey{}) != nil {
		return ctx // another route has kept it
	}
	return context.WithValue(ctx, connKey{}, conn)
}

// SocketOf returns the socket that a request came by; nil if it came by none, as over HTTP/3.
func SocketOf(ctx context.Context) *Socket {
	conn, _ := ctx.Value(connKey{}).(net.Conn)
	if conn == nil {
		return nil
	}
	s := &Socket{conn: lowest(conn, mostLayers)}
	if socket, ok := s.conn.(syscall.Conn); ok {
		s.raw, _ = socket.SyscallConn()
	}
	return s
}

// known reports whether the kernel can be asked about the socket.
func (s *Socket) known() bool { return s != nil && s.raw != nil }

// Close closes the socket itself, past whatever lies above it: a TLS connection would say goodbye first, and wait. One
// that hides its socket is closed apart, as it may do the same.
func (s *Socket) Close() error {
	if s.known() {
		return s.conn.Close()
	}
	err := s.conn.SetDeadline(time.Unix(1, 0))
	go s.conn.Close()
	return err
}

// Discard reads and drops what the peer still sends, for that long at most.
func (s *Socket) Discard(atMost time.Duration) {
	if s == nil {
		return
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(atMost))
	_, _ = io.Copy(io.Discard, s.conn)
}

// A peer that vanished without a word is found out within about a minute: a silent connection is
// probed, and data it does not acknowledge ends it. Heartbeats alone would vanish into the socket's
// buffer.
const (
	probeAfter  = 20 * time.Second
	probeEvery  = 10 * time.Second
	probes      = 3
	userTimeout = 30 * time.Second
)

func (s *Socket) findVanishedPeer() {
	if !s.known() {
		return
	}
	if tcp, ok := s.conn.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: probeAfter, Interval: probeEvery, Count: probes,
		})
	}
	s.setUserTimeout(userTimeout)
}
