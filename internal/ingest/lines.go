package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// Lines reads NDJSON: one message on each line.
type Lines struct {
	reader *bufio.Reader
	limit  int // bytes of a line
	read   func(line []byte) (Draft, error)
	number int
}

// NewLines reads lines of at most limit bytes, each of which read makes a message of.
func NewLines(body io.Reader, limit int, read func(line []byte) (Draft, error)) *Lines {
	return &Lines{reader: bufio.NewReaderSize(body, 16<<10), limit: limit, read: read}
}

func (s *Lines) Next() (Draft, error) {
	for {
		line, err := s.readLine()
		if err != nil {
			return Draft{}, err
		}
		if len(line) == 0 {
			continue
		}
		d, err := s.read(line)
		if err != nil {
			return Draft{}, &Error{err: err}
		}
		return d, nil
	}
}

// readLine returns the next line without its end. The last one needs none if the body ended properly.
func (s *Lines) readLine() (line []byte, err error) {
	s.number++
	for {
		part, err := s.reader.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > s.limit+len("\r\n"):
			return nil, tooLarge("the line has more than %d bytes", s.limit)
		case err == nil:
			return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), nil
		case errors.Is(err, bufio.ErrBufferFull):
		case err == io.EOF && len(line) > 0:
			return bytes.TrimSuffix(line, []byte("\r")), nil
		default:
			return nil, err
		}
	}
}

func (s *Lines) Buffered() bool {
	ahead, _ := s.reader.Peek(s.reader.Buffered())
	ahead = bytes.TrimLeft(ahead, "\r\n") // empty lines are no messages
	return bytes.IndexByte(ahead, '\n') >= 0
}

func (s *Lines) Line() int { return s.number }
