package stream

import (
	"context"
	"net"
	"reflect"
	"syscall"
	"time"
)

// Socket is the socket below a response, for what the layers above it hide. A nil Socket stands for one that can't be
// reached; it tells nothing.
type Socket struct {
	conn net.Conn // a *net.TCPConn or a *net.UnixConn
	raw  syscall.RawConn
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

// SocketOf returns the socket that a request came by; nil if it can't be found.
func SocketOf(ctx context.Context) *Socket {
	conn, _ := ctx.Value(connKey{}).(net.Conn)
	for range mostLayers {
		switch c := conn.(type) {
		case nil:
			return nil
		case *net.TCPConn:
			return newSocket(c, c)
		case *net.UnixConn:
			return newSocket(c, c)
		}
		conn = below(conn)
	}
	return nil
}

// mostLayers is how many connections may wrap one another.
const mostLayers = 16

func newSocket(conn net.Conn, under syscall.Conn) *Socket {
	raw, err := under.SyscallConn()
	if err != nil {
		return nil
	}
	return &Socket{conn, raw}
}

// below returns the connection that another one wraps, nil if that can't be told.
func below(conn net.Conn) net.Conn {
	switch wrapper := conn.(type) {
	case interface{ NetConn() net.Conn }: // as tls.Conn has it
		return wrapper.NetConn()
	case interface{ Raw() net.Conn }: // as the one of the PROXY protocol
		return wrapper.Raw()
	case interface{ Unwrap() net.Conn }:
		return wrapper.Unwrap()
	}
	wrapper := reflect.Indirect(reflect.ValueOf(conn)) // Caddy's own embed it
	if wrapper.Kind() != reflect.Struct {
		return nil
	}
	for _, field := range wrapper.Fields() {
		if !field.CanInterface() || field.Kind() != reflect.Interface {
			continue
		}
		if inner, ok := reflect.TypeAssert[net.Conn](field); ok && inner != nil {
			return inner
		}
	}
	return nil
}

// Close closes the socket itself, past whatever lies above it: a TLS connection would say goodbye first, and wait.
func (s *Socket) Close() error { return s.conn.Close() }

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
	if s == nil {
		return
	}
	tcp, ok := s.conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: probeAfter, Interval: probeEvery, Count: probes,
	})
	s.setUserTimeout(userTimeout)
}
