//go:build linux

package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Where each connection has a goroutine, so many tallies keep them from waiting for each other.
const tlsTallies = 16

// tlsBuffer takes a whole TLS record.
const tlsBuffer = 16 << 10

// connections are what a fleet over TLS has open.
type connections struct {
	mu   sync.Mutex // guards open
	open []net.Conn
}

func (c *connections) dial(ctx context.Context, addr, protocol string) (*tls.Conn, error) {
	dialer := tls.Dialer{Config: &tls.Config{
		InsecureSkipVerify: true, // the certificate was made for this run
		NextProtos:         []string{protocol},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", addr, err)
	}
	c.mu.Lock()
	c.open = append(c.open, conn)
	c.mu.Unlock()
	return conn.(*tls.Conn), nil
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		// Not conn.Close(), which says goodbye to a server that may not read.
		conn.(*tls.Conn).NetConn().Close()
	}
}

// dialTLS subscribes over HTTP/1.1 and TLS.
func (f *Fleet) dialTLS(ctx context.Context, target Target) error {
	f.share(min(tlsTallies, len(f.streams)))
	var conns connections
	f.close = conns.close
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(dialers)
	for i, s := range f.streams {
		g.Go(func() error {
			conn, err := conns.dial(ctx, target.addr(i), "http/1.1")
			if err != nil {
				return err
			}
			if _, err := conn.Write(h1Request(target, i)); err != nil {
				return fmt.Errorf("sending a request: %w", err)
			}
			f.wg.Go(func() { f.readAll(conn, s) })
			return nil
		})
	}
	return g.Wait()
}

func (f *Fleet) readAll(conn io.Reader, s *stream) {
	buf := make([]byte, tlsBuffer)
	for {
		n, err := conn.Read(buf)
		s.tally.mu.Lock()
		if parseErr := s.readHTTP(buf[:n], now()); parseErr != nil {
			err = parseErr
		}
		if err != nil {
			f.endLocked(s, err)
		}
		s.tally.mu.Unlock()
		if err != nil {
			return
		}
	}
}
