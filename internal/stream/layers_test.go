package stream_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// wrappingListener wraps the connections that it accepts, as listener_wrappers do.
type wrappingListener struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (l *wrappingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(conn), nil
}

type lower interface{ net.Conn }

// hiding wraps a connection in a field that nobody else can read.
type hiding struct{ lower }

// nesting has it in a struct within a struct, under two names.
type nesting struct {
	hiding
	bottom net.Conn
}

// opaque has a connection that can't be found at all.
type opaque struct{ conn func() net.Conn }

func (o opaque) Read(p []byte) (int, error)         { return o.conn().Read(p) }
func (o opaque) Write(p []byte) (int, error)        { return o.conn().Write(p) }
func (o opaque) Close() error                       { return o.conn().Close() }
func (o opaque) LocalAddr() net.Addr                { return o.conn().LocalAddr() }
func (o opaque) RemoteAddr() net.Addr               { return o.conn().RemoteAddr() }
func (o opaque) SetDeadline(t time.Time) error      { return o.conn().SetDeadline(t) }
func (o opaque) SetReadDeadline(t time.Time) error  { return o.conn().SetReadDeadline(t) }
func (o opaque) SetWriteDeadline(t time.Time) error { return o.conn().SetWriteDeadline(t) }

// found are wrappers below which the socket is found; the others hide it.
var found = map[string]func(net.Conn) net.Conn{
	"hiding":           func(c net.Conn) net.Conn { return &hiding{c} },
	"hiding by value":  func(c net.Conn) net.Conn { return hiding{c} },
	"nesting":          func(c net.Conn) net.Conn { return &nesting{hiding{c}, c} },
	"hiding in hiding": func(c net.Conn) net.Conn { return hiding{&hiding{&nesting{hiding{c}, c}}} },
}

func hidden(c net.Conn) net.Conn { return opaque{func() net.Conn { return c }} }

func TestWhoLeavesIsNoticedBelowAnyWrapper(t *testing.T) {
	for name, wrap := range found {
		s := serveBehind(t, true, wrap)
		conn := stalled(t, s.plain(), "")
		s.awaitClients(1)
		fmt.Fprint(conn, "more")
		_ = conn.Close()
		s.awaitEnd(1, hub.ErrGone)
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestStalledClientsAreCutThoughTheirSocketIsHidden(t *testing.T) {
	for name, come := range map[string]func(s *site) net.Conn{
		"h1":          func(s *site) net.Conn { return stalled(s.t, s.plain(), "") },
		"h1 over TLS": (*site).stalledOverTLS,
		"h2":          (*site).stalledOverHTTP2,
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("by write_timeout", func(t *testing.T) {
				s := serveBehind(t, true, hidden)
				come(s)
				s.awaitClients(1)
				s.publish(strings.Repeat("x", 16<<20))
				s.awaitEnd(1, hub.ErrStuck)
			})
			t.Run("by the hub", func(t *testing.T) {
				s := serveBehind(t, true, hidden)
				s.timeout = time.Hour
				come(s)
				s.awaitClients(1)
				s.publish(strings.Repeat("x", 16<<20))
				s.hub.Abort()
				s.awaitEnd(1, hub.ErrAborted)
			})
		})
	}
}
