package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Lines is a [Source] for NDJSON: each line is a message.
type Lines struct {
	reader *bufio.Reader
	limit  int // bytes of a line
	read   func(line []byte) (Draft, error)
	blanks string // a line of nothing but these is skipped
	number int    // of the last line, from 1
}

// NewDataLines reads a body whose lines are data (form A), of at most limit bytes each. The function message
// makes a message of a line. Empty lines are skipped, but blanks are data: a token may be a space.
func NewDataLines(body io.Reader, limit int, message func(data []byte) *hub.Message) *Lines {
	read := func(line []byte) (Draft, error) { return Draft{Message: message(line)}, nil }
	return &Lines{reader: newLineReader(body), limit: limit, read: read, blanks: "\r\n"}
}

// NewObjectLines reads a body whose lines are objects (form B), of at most limit bytes each. Lines of blanks
// are skipped.
func NewObjectLines(body io.Reader, limit int) *Lines {
	return &Lines{reader: newLineReader(body), limit: limit, read: Object, blanks: " \t\r\n"}
}

func newLineReader(body io.Reader) *bufio.Reader { return bufio.NewReaderSize(body, 16<<10) }

// Next implements [Source].
func (s *Lines) Next() (Draft, error) {
	for {
		line, err := s.readLine()
		if err != nil {
			return Draft{}, err
		}
		if len(bytes.Trim(line, s.blanks)) == 0 {
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
	ahead = bytes.TrimLeft(ahead, s.blanks) // what Next skips is no message
	return bytes.IndexByte(ahead, '\n') >= 0
}

// Line implements [Source].
func (s *Lines) Line() int { return s.number }
