//go:build linux

package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

const linesPerChunk = 64

// lineStream is one NDJSON body under way, each line of which is published as it arrives.
type lineStream struct {
	publisher *Publisher
	chunk     []byte // scratch
	published int
}

func openLines(addr, path string) (*lineStream, error) {
	p, err := DialPublisher(addr)
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n", path, addr)
	if err := p.send([]byte(head)); err != nil {
		p.Close()
		return nil, err
	}
	return &lineStream{publisher: p}, nil
}

// send publishes so many lines.
func (s *lineStream) send(lines []byte, n int) error {
	s.published += n
	s.chunk = fmt.Appendf(s.chunk[:0], "%x\r\n%s\r\n", len(lines), lines)
	return s.publisher.send(s.chunk)
}

// finish ends the body and waits until the server has answered for all of it.
func (s *lineStream) finish() error {
	p := s.publisher
	status, err := p.Do([]byte("0\r\n\r\n"))
	if err != nil {
		return err
	}
	var answer struct{ Published int }
	body := p.buf[bytes.Index(p.buf, []byte("\r\n\r\n")):p.end]
	if err := json.Unmarshal(body, &answer); err != nil || status != 200 || answer.Published != s.published {
		return fmt.Errorf("%d messages were answered %d: %q", s.published, status, p.buf[:p.end])
	}
	return nil
}

// PublishLines publishes messages as the lines of one NDJSON body for a while, and returns how many there were when
// the server has answered for all of them. A server that is slower than we are is waited for by the sockets.
func PublishLines(ctx context.Context, addr, path string, size int, during time.Duration) (published int, elapsed time.Duration, err error) {
	s, err := openLines(addr, path)
	if err != nil {
		return 0, 0, err
	}
	defer s.publisher.Close()
	began := time.Now()
	var lines []byte
	for ctx.Err() == nil && time.Since(began) < during {
		lines = lines[:0]
		for i := range linesPerChunk {
			lines = appendPayload(lines, header{number: uint32(s.published + i), due: now()}, size)
			lines = append(lines, '\n')
		}
		if err := s.send(lines, linesPerChunk); err != nil {
			return 0, 0, err
		}
	}
	if err := s.finish(); err != nil {
		return 0, 0, err
	}
	return s.published, time.Since(began), nil
}

// Paced is lines that are published so many at a time.
type Paced struct {
	Line  func(b []byte, i int) []byte // appends line i, without its end
	Lines int                          // at a time
	Every time.Duration                // 0 = as fast as the server takes them
	Times int
}

// Publish publishes them as one NDJSON body, and returns when the server has answered for all of them.
func (l Paced) Publish(ctx context.Context, addr, path string) error {
	s, err := openLines(addr, path)
	if err != nil {
		return err
	}
	defer s.publisher.Close()
	var lines []byte
	due := time.Now()
	for range l.Times {
		lines = lines[:0]
		for i := range l.Lines {
			lines = append(l.Line(lines, s.published+i), '\n')
		}
		if err := s.send(lines, l.Lines); err != nil {
			return err
		}
		due = due.Add(l.Every)
		if sleep(ctx, time.Until(due)); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return s.finish()
}
