package load

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// stream follows one event stream as its bytes come: the head of the HTTP/1.1 answer, chunks, lines, messages. It
// keeps nothing but the line that a read cut in two.
type stream struct {
	tally *tally
	next  []uint32 // by publisher, the number of the message that is due

	part  part
	left  int    // of the chunk being read
	carry []byte // what is there of a line, or of the head

	pending header // the message whose blank line has not come
	isThere bool

	missing    int // messages that later ones overtook, and that have not come since
	outOfOrder int // messages that came after a later one, or twice
	ended      error
}

// part is what of the answer comes next.
type part uint8

const (
	inHead part = iota
	inChunkSize
	inChunk
	inChunkEnd // the CR LF after a chunk
	inBody     // of an answer without chunks
)

var errLastChunk = errors.New("the server ended the stream")

// readHTTP takes bytes of an HTTP/1.1 answer. The error is final.
func (s *stream) readHTTP(b []byte, at int64) error {
	for len(b) > 0 {
		switch s.part {
		case inHead:
			rest, err := s.readHead(b)
			if err != nil {
				return err
			}
			b = rest
		case inChunkSize:
			c := b[0]
			b = b[1:]
			if c == '\n' {
				if s.left == 0 {
					return errLastChunk
				}
				s.part = inChunk
			} else if c != '\r' {
				s.left = s.left<<4 | int(hexValues[c])
			}
		case inChunk:
			n := min(s.left, len(b))
			s.readBody(b[:n], at)
			b = b[n:]
			if s.left -= n; s.left == 0 {
				s.part = inChunkEnd
			}
		case inChunkEnd:
			if b[0] == '\n' {
				s.part = inChunkSize
			}
			b = b[1:]
		case inBody:
			s.readBody(b, at)
			return nil
		}
	}
	return nil
}

// readHead returns what follows the head.
func (s *stream) readHead(b []byte) (rest []byte, err error) {
	before := len(s.carry)
	s.carry = append(s.carry, b...)
	end := bytes.Index(s.carry, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, nil
	}
	head := strings.ToLower(string(s.carry[:end]))
	s.carry = s.carry[:0]
	status, fields, _ := strings.Cut(head, "\r\n")
	if !strings.HasPrefix(status, "http/1.1 200") {
		return nil, fmt.Errorf("the answer was %q", status)
	}
	s.part = inBody
	if strings.Contains(fields, "transfer-encoding: chunked") {
		s.part = inChunkSize
	}
	s.tally.ready++
	return b[end+4-before:], nil
}

// readBody takes bytes of the event stream itself.
func (s *stream) readBody(b []byte, at int64) {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			s.carry = append(s.carry, b...)
			return
		}
		if len(s.carry) == 0 {
			s.readLine(b[:i], at)
		} else {
			s.carry = append(s.carry, b[:i]...)
			s.readLine(s.carry, at)
			s.carry = s.carry[:0]
		}
		b = b[i+1:]
	}
}

func (s *stream) readLine(line []byte, at int64) {
	switch {
	case len(line) == 0 || line[0] == '\r':
		if s.isThere {
			s.isThere = false
			s.count(s.pending, at)
		}
	case line[0] == 'd' && bytes.HasPrefix(line, []byte("data:")):
		if h, found := findHeader(line); found && h.publisher < len(s.next) {
			s.pending, s.isThere = h, true
		}
	}
}

// count enters a message that has come whole.
func (s *stream) count(h header, at int64) {
	switch due := s.next[h.publisher]; {
	case h.number == due:
		s.next[h.publisher]++
	case h.number > due:
		s.missing += int(h.number - due)
		s.next[h.publisher] = h.number + 1
	default:
		s.outOfOrder++
		s.missing = max(0, s.missing-1)
	}
	s.tally.count(h, at)
}

// settle returns what the stream lost and got out of order of so many messages that each publisher sent, and
// forgets it.
func (s *stream) settle(sent []uint32) (lost, outOfOrder int) {
	lost, outOfOrder = s.missing, s.outOfOrder
	for publisher, n := range sent {
		lost += int(n - s.next[publisher])
		s.next[publisher] = n
	}
	s.missing, s.outOfOrder = 0, 0
	return lost, outOfOrder
}
