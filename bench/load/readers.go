//go:build linux

package load

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Readers are clients that only count what comes.
type Readers struct {
	conns    []net.Conn
	messages atomic.Int64
	wg       sync.WaitGroup
}

// Read sends the same GET on n connections, and counts what is answered. The readers are to be closed also after an
// error.
func Read(ctx context.Context, addr, path string, n int) (*Readers, error) {
	r := &Readers{conns: make([]net.Conn, n)}
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, addr)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(dialers)
	for i := range n {
		g.Go(func() (err error) {
			if r.conns[i], err = new(net.Dialer).DialContext(ctx, "tcp", addr); err != nil {
				return err
			}
			_, err = io.WriteString(r.conns[i], request)
			return err
		})
	}
	err := g.Wait()
	for _, conn := range r.conns {
		if conn != nil {
			r.wg.Go(func() { r.count(conn) })
		}
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// count counts the lines that begin a message. That one falls between two reads is rare, and no matter.
func (r *Readers) count(conn net.Conn) {
	for buffer := make([]byte, 8<<10); ; {
		n, err := conn.Read(buffer)
		if r.messages.Add(int64(bytes.Count(buffer[:n], []byte("\ndata: ")))); err != nil {
			return
		}
	}
}

// Messages returns how many have come in all.
func (r *Readers) Messages() int64 { return r.messages.Load() }

// Close ends them.
func (r *Readers) Close() {
	for _, conn := range r.conns {
		if conn != nil {
			conn.Close()
		}
	}
	r.wg.Wait()
}

// Replay reads one stream until so many messages have come, and ends it.
func Replay(ctx context.Context, addr, path string, messages int) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, addr); err != nil {
		return err
	}
	for buffer := make([]byte, 64<<10); messages > 0; {
		n, err := conn.Read(buffer)
		if messages -= bytes.Count(buffer[:n], []byte("\ndata: ")); err != nil {
			return err
		}
	}
	return nil
}
