//go:build linux

package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sync/errgroup"
)

// The windows are as large as HTTP/2 allows, and given anew when half of them is used: flow control is not measured.
const (
	maxWindow     = 1<<31 - 1
	defaultWindow = 65535
)

var errRefused = errors.New("the server reset the stream")

// dialH2 subscribes over HTTP/2, with as many streams a connection as the target says.
func (f *Fleet) dialH2(ctx context.Context, target Target) error {
	per := target.StreamsPerConn
	f.share(min(tlsTallies, len(f.streams)))
	var conns connections
	f.close = conns.close
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(dialers)
	for first := 0; first < len(f.streams); first += per {
		g.Go(func() error {
			conn, err := conns.dial(ctx, target.addr(first), "h2")
			if err != nil {
				return err
			}
			if p := conn.ConnectionState().NegotiatedProtocol; p != "h2" {
				return fmt.Errorf("the server speaks %q, not h2", p)
			}
			c := &h2Conn{fleet: f, first: first, streams: f.streams[first:min(first+per, len(f.streams))]}
			c.used = make([]int, len(c.streams))
			if err := c.open(conn, target); err != nil {
				return err
			}
			f.wg.Go(c.run)
			return nil
		})
	}
	return g.Wait()
}

// h2Conn is a connection and its streams. Stream i has the ID 2i+1.
type h2Conn struct {
	fleet   *Fleet
	first   int // the client that streams[0] is
	streams []*stream

	conn     *tls.Conn
	out      *bufio.Writer
	framer   *http2.Framer
	used     []int // of each stream's window
	usedConn int
}

// open sends all that a client says at the start. The server's settings come later, and hold nothing that matters.
func (c *h2Conn) open(conn *tls.Conn, target Target) error {
	c.conn, c.out = conn, bufio.NewWriter(conn)
	c.framer = http2.NewFramer(c.out, bufio.NewReaderSize(conn, tlsBuffer))
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.SetReuseFrames()
	c.out.WriteString(http2.ClientPreface) //nolint:errcheck // Flush tells
	c.framer.WriteSettings(                //nolint:errcheck // Flush tells
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow})
	c.framer.WriteWindowUpdate(0, maxWindow-defaultWindow) //nolint:errcheck // Flush tells
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := range c.streams {
		path, fields := target.Path(c.first + i)
		block.Reset()
		fields = append([]Field{
			{":method", "GET"},
			{":scheme", "https"},
			{":authority", target.addr(c.first)},
			{":path", path},
			{"accept", "text/event-stream"},
		}, fields...)
		for _, field := range fields {
			encoder.WriteField(hpack.HeaderField{Name: field.Name, Value: field.Value}) //nolint:errcheck // a Buffer takes it
		}
		c.framer.WriteHeaders(http2.HeadersFrameParam{ //nolint:errcheck // Flush tells
			StreamID: uint32(2*i + 1), BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true,
		})
	}
	if err := c.out.Flush(); err != nil {
		return fmt.Errorf("sending requests: %w", err)
	}
	return nil
}

func (c *h2Conn) run() {
	err := c.readAll()
	for _, s := range c.streams {
		s.tally.mu.Lock()
		c.fleet.endLocked(s, err)
		s.tally.mu.Unlock()
	}
}

func (c *h2Conn) readAll() error {
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			err = c.headers(frame)
		case *http2.DataFrame:
			err = c.data(frame)
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = errors.Join(c.framer.WriteSettingsAck(), c.out.Flush())
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = errors.Join(c.framer.WritePing(true, frame.Data), c.out.Flush())
			}
		case *http2.RSTStreamFrame:
			c.end(frame.StreamID, errRefused)
		case *http2.GoAwayFrame:
			err = fmt.Errorf("the server went away: %v", frame.ErrCode)
		}
		if err != nil {
			return err
		}
	}
}

func (c *h2Conn) stream(id uint32) (s *stream, i int, err error) {
	if i = int(id-1) / 2; id%2 == 0 || i >= len(c.streams) {
		return nil, 0, fmt.Errorf("a frame came for stream %d", id)
	}
	return c.streams[i], i, nil
}

func (c *h2Conn) headers(frame *http2.MetaHeadersFrame) error {
	s, _, err := c.stream(frame.StreamID)
	if err != nil {
		return err
	}
	if status := frame.PseudoValue("status"); status != "200" {
		c.end(frame.StreamID, fmt.Errorf("the answer was %s", status))
		return nil
	}
	s.tally.mu.Lock()
	s.tally.ready++
	s.tally.mu.Unlock()
	return nil
}

func (c *h2Conn) data(frame *http2.DataFrame) error {
	s, i, err := c.stream(frame.StreamID)
	if err != nil {
		return err
	}
	s.tally.mu.Lock()
	s.readBody(frame.Data(), now())
	s.tally.mu.Unlock()
	if frame.StreamEnded() {
		c.end(frame.StreamID, io.EOF)
	}
	return c.giveWindow(i, int(frame.Length))
}

func (c *h2Conn) giveWindow(i, n int) error {
	c.used[i] += n
	c.usedConn += n
	var err error
	if c.used[i] > maxWindow/2 {
		err = errors.Join(c.framer.WriteWindowUpdate(uint32(2*i+1), uint32(c.used[i])), c.out.Flush())
		c.used[i] = 0
	}
	if c.usedConn > maxWindow/2 {
		err = errors.Join(err, c.framer.WriteWindowUpdate(0, uint32(c.usedConn)), c.out.Flush())
		c.usedConn = 0
	}
	return err
}

func (c *h2Conn) end(id uint32, err error) {
	if s, _, unknown := c.stream(id); unknown == nil {
		s.tally.mu.Lock()
		c.fleet.endLocked(s, err)
		s.tally.mu.Unlock()
	}
}
