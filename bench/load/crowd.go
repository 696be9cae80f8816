//go:build linux

package load

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Crowd is subscribers of one topic that count the bytes that come. The first one reads them, too, and decompresses
// what is compressed: all get the same, so what it has others have that were sent as much.
type Crowd struct {
	conns  []net.Conn
	first  atomic.Int64 // bytes of the first
	others atomic.Int64 // and of all others
	heard  chan error   // for each message that the first has read; an error is the last
	wg     sync.WaitGroup
}

// Assemble subscribes n clients, which accept gzip if so said. The crowd is to be closed also after an error.
func Assemble(ctx context.Context, addr, path string, acceptGzip bool, n int) (*Crowd, error) {
	c := &Crowd{conns: make([]net.Conn, n), heard: make(chan error, 1)}
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n", path, addr)
	if acceptGzip {
		request += "Accept-Encoding: gzip\r\n"
	}
	request += "\r\n"
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(dialers)
	for i := range n {
		g.Go(func() error {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return err
			}
			c.conns[i] = conn
			if _, err := io.WriteString(conn, request); err != nil {
				return err
			}
			if i == 0 {
				return c.readFirst(conn, acceptGzip)
			}
			head := make([]byte, 4<<10) // with what follows it
			n, err := conn.Read(head)
			if err != nil || !strings.HasPrefix(string(head[:n]), "HTTP/1.1 200") {
				return fmt.Errorf("a client was answered %q, %w", head[:n], err)
			}
			c.wg.Go(func() { c.count(conn, head) })
			return nil
		})
	}
	return c, g.Wait()
}

// count reads the stream of one of the others.
func (c *Crowd) count(conn net.Conn, buffer []byte) {
	for {
		n, err := conn.Read(buffer)
		if c.others.Add(int64(n)); err != nil {
			return
		}
	}
}

// readFirst reads the head of the first stream, and has the rest read.
func (c *Crowd) readFirst(conn net.Conn, wantsGzip bool) error {
	response, err := http.ReadResponse(bufio.NewReader(counted{conn, &c.first}), nil)
	if err != nil {
		return err
	}
	if isGzip := response.Header.Get("Content-Encoding") == "gzip"; response.StatusCode != http.StatusOK || isGzip != wantsGzip {
		return fmt.Errorf("the first client was answered %s, compressed: %v", response.Status, isGzip)
	}
	c.wg.Go(func() {
		defer response.Body.Close()
		var body io.Reader = response.Body
		if wantsGzip {
			if body, err = gzip.NewReader(body); err != nil {
				c.heard <- err
				return
			}
		}
		lines := bufio.NewScanner(body)
		for lines.Scan() {
			if line := lines.Text(); strings.HasPrefix(line, "data: ") && !strings.Contains(line, `"status":"connected"`) {
				c.heard <- nil
			}
		}
		c.heard <- errors.Join(errLastChunk, lines.Err())
	})
	return nil
}

// counted counts what is read.
type counted struct {
	io.Reader
	bytes *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// Close ends all clients.
func (c *Crowd) Close() {
	for _, conn := range c.conns {
		if conn != nil {
			conn.Close()
		}
	}
	go func() { // the first may be telling
		for range c.heard {
		}
	}()
	c.wg.Wait()
	close(c.heard)
}

// Clients returns how many there are.
func (c *Crowd) Clients() int { return len(c.conns) }

// Bytes returns how many have come in all, without those of heads.
func (c *Crowd) Bytes() int64 { return c.first.Load() + c.others.Load() }

// Publish sends a message and waits until every client has it. With alike all of them must be sent as many bytes as the
// first; else it waits until no more come.
func (c *Crowd) Publish(p *Publisher, request []byte, alike bool) error {
	first, others := c.first.Load(), c.others.Load()
	status, err := p.Do(request)
	if err != nil {
		return err
	}
	if status < 200 || status > 299 {
		return fmt.Errorf("a publish was answered %d", status)
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case err = <-c.heard:
	case <-timeout.C:
		err = errors.New("a message does not come")
	}
	if err != nil {
		return err
	}
	want := (c.first.Load() - first) * int64(len(c.conns)-1)
	for began, last := time.Now(), c.others.Load(); ; time.Sleep(100 * time.Microsecond) {
		switch now := c.others.Load(); {
		case alike && now-others == want:
			return nil
		case now != last:
			began, last = time.Now(), now
		case !alike && time.Since(began) > 30*time.Millisecond:
			return nil
		case time.Since(began) > patience:
			return fmt.Errorf("clients were sent %d bytes of a message, where the first had %d each", now-others, want/int64(len(c.conns)-1))
		}
	}
}
