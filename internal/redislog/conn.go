package redislog

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// dialer returns a function that connects to Redis until the log is severed. Its connections are patient or
// not.
func (l *Log) dialer(patient bool) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, l.Timeout)
		defer cancel()
		defer context.AfterFunc(l.severed, cancel)()
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := &connection{transport: conn.(transport), patient: patient}
		c.release = context.AfterFunc(l.severed, func() { _ = c.transport.Close() })
		if l.TLS == nil {
			return c, nil
		}
		secure := tls.Client(c, l.tlsConfigFor(address))
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("shaking hands with %s: %w", address, err)
		}
		return secure, nil
	}
}

// tlsConfigFor returns how to speak TLS with one of the servers. Each server must have the name in its own
// address. A server with an IP address for a name must have that of TLS.ServerName.
func (l *Log) tlsConfigFor(address string) *tls.Config {
	host, _, err := net.SplitHostPort(address)
	if l.OneServer || err != nil || net.ParseIP(host) != nil {
		return l.TLS
	}
	config := l.TLS.Clone()
	config.ServerName = host
	return config
}

// transport is a TCP or Unix connection. go-redis uses syscall.Conn to see whether the peer has closed it.
type transport interface {
	net.Conn
	syscall.Conn
}

// connection is a connection to Redis. On a patient connection the read deadline is an idle timeout, renewed
// by every Read: a large reply over a slow line may take any time while bytes arrive.
type connection struct {
	transport
	patient     bool
	idleTimeout atomic.Int64 // a time.Duration; 0 for no timeout
	release     func() bool  // stops closing the connection when the log is severed
}

// SetReadDeadline implements net.Conn.
func (c *connection) SetReadDeadline(t time.Time) error {
	timeout := int64(0)
	if !t.IsZero() {
		timeout = max(1, int64(time.Until(t)))
	}
	c.idleTimeout.Store(timeout)
	return c.transport.SetReadDeadline(t)
}

// SetDeadline implements net.Conn.
func (c *connection) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// Read implements net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	if timeout := time.Duration(c.idleTimeout.Load()); c.patient && timeout > 0 {
		if err := c.transport.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return 0, err
		}
	}
	return c.transport.Read(b)
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.release()
	return c.transport.Close()
}
