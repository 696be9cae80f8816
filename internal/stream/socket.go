package stream

import (
	"context"
	"net"
	"reflect"
	"syscall"
	"time"
)

// Socket is the TCP socket below a response, for what the layers above it hide. A nil Socket stands
// for one that can't be reached; it tells nothing.
type Socket struct {
	tcp *net.TCPConn
	raw syscall.RawConn
}

// Close closes the connection at once, whatever lies above it.
func (s *Socket) Close() error { return s.tcp.Close() }

// connKey finds in a request's context the connection that it came by.
type connKey struct{}

// KeepConn is for caddyhttp.Server.RegisterConnContext: it lets socketOf find the connection.
func KeepConn(ctx context.Context, conn net.Conn) context.Context {
	if ctx.Value(connKey{}) != nil {
		return ctx // another route has kept it
	}
	return context.WithValue(ctx, connKey{}, conn)
}

// SocketOf returns the TCP socket that a request came by.
func SocketOf(ctx context.Context) *Socket {
	conn, _ := ctx.Value(connKey{}).(net.Conn)
	for conn != nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			raw, err := tcp.SyscallConn()
			if err != nil {
				return nil
			}
			return &Socket{tcp, raw}
		}
		conn = below(conn)
	}
	return nil
}

// below returns the connection that another one wraps, nil if that can't be told.
func below(conn net.Conn) net.Conn {
	if wrapper, ok := conn.(interface{ NetConn() net.Conn }); ok { // as tls.Conn has it
		return wrapper.NetConn()
	}
	wrapper := reflect.Indirect(reflect.ValueOf(conn)) // Caddy's own embed it
	if wrapper.Kind() != reflect.Struct {
		return nil
	}
	field := wrapper.FieldByName("Conn")
	if !field.IsValid() || !field.CanInterface() {
		return nil
	}
	inner, _ := reflect.TypeAssert[net.Conn](field)
	return inner
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
	if s == nil {
		return
	}
	_ = s.tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: probeAfter, Interval: probeEvery, Count: probes,
	})
	s.setUserTimeout(userTimeout)
}
