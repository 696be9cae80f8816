package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// Lines is a [Source] for NDJSON: each line is a message. Empty lines are skipped.
type Lines struct {
	reader *bufio.Reader
	limit  int // bytes of a line
	read   func(line []byte) (Draft, error)
	number int // of the last line, from 1
}

// NewLines reads a body whose lines have at most limit bytes. The function read makes a message of a line.
func NewLines(body io.Reader, limit int, read func(line []byte) (Draft, error)) *Lines {
	return &Lines{reader: bufio.NewReaderSize(body, 16<<10), limit: limit, read: read}
}

// Next implements [Source].
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

// readLine returns the next line without its end. The last line needs no end if the body ends properly.
func (s *Lines) readLine() (line []byte, err error) {
	s.number++
	for {
		part, err := s.reader.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > s.limit+len("\r\n"):
			return nil, sizeError("the line has more than %d bytes", s.limit)
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

// Buffered implements [Source].
func (s *Lines) Buffered() bool {
	ahead, _ := s.reader.Peek(s.reader.Buffered())
	ahead = bytes.TrimLeft(ahead, "\r\n") // empty lines are no messages
	return bytes.IndexByte(ahead, '\n') >= 0
}

// Line implements [Source].
func (s *Lines) Line() int { return s.number }
