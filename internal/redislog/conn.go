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

// dialer returns how to connect to Redis until the log is severed. A patient connection waits for
// replies as long as something comes.
func (l *Log) dialer(patient bool) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, l.Timeout)
		defer cancel()
		defer context.AfterFunc(l.severed, cancel)()
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := &line{transport: conn.(transport), patient: patient}
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

// tlsConfigFor returns how to speak TLS to one of the servers, of which there may be several: each has to be what its own
// name says. One that is known by its IP address only is held against the URL's host.
func (l *Log) tlsConfigFor(address string) *tls.Config {
	host, _, err := net.SplitHostPort(address)
	if l.OneServer || err != nil || net.ParseIP(host) != nil {
		return l.TLS
	}
	config := l.TLS.Clone()
	config.ServerName = host
	return config
}

// transport is what TCP and Unix connections are; go-redis looks into it to see whether it was closed.
type transport interface {
	net.Conn
	syscall.Conn
}

// line is a connection to Redis. The read deadline of a patient one is no moment but a patience: it
// has passed when the line was silent that long. A large reply on a slow line may take as long as it
// takes.
type line struct {
	transport
	release  func() bool
	patient  bool
	patience atomic.Int64 // time.Duration; 0 is without end
}

func (c *line) SetReadDeadline(t time.Time) error {
	patience := int64(0)
	if !t.IsZero() {
		patience = max(1, int64(time.Until(t)))
	}
	c.patience.Store(patience)
	return c.transport.SetReadDeadline(t)
}

func (c *line) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *line) Read(b []byte) (int, error) {
	if patience := time.Duration(c.patience.Load()); c.patient && patience > 0 {
		if err := c.transport.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return 0, err
		}
	}
	return c.transport.Read(b)
}

func (c *line) Close() error {
	c.release()
	return c.transport.Close()
}
