package e2etest

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// Freezing makes a client of [H1] or [H2] freeze when it is told to: from then on it reads nothing any more
// from its connections, which stay open until it closes them.
func Freezing(client *http.Client) (freeze func()) {
	frozen := make(chan struct{})
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &freezingConn{Conn: conn, frozen: frozen, closed: make(chan struct{})}, nil
	}
	return func() { close(frozen) }
}

type freezingConn struct {
	net.Conn
	frozen    <-chan struct{}
	closed    chan struct{}
	closeOnce sync.Once
}

func (c *freezingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.frozen:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *freezingConn) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
