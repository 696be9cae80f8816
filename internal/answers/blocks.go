package answers

import "bytes"

// Kind is the form of an answer.
type Kind uint8

// The forms that are kept.
const (
	Events Kind = iota // text/event-stream: blocks, each with an id line before it
	Lines              // application/x-ndjson: lines, which their reader counts
)

// splitter cuts an upstream's bytes into pieces: blocks or lines. It holds at most the piece that is not
// complete.
type splitter interface {
	// feed takes bytes, and calls add for each piece that they complete. Pieces without number say nothing
	// to a program. It returns what to pass on as it is, from the first byte not added, once the upstream
	// has sent an ID of its own; feed is not called again then.
	feed(b []byte, add func(piece []byte, numbered bool)) (own []byte)
	// finish adds what is left when the upstream has ended in good order.
	finish(add func(piece []byte, numbered bool))
	// held returns how many bytes wait for the end of their piece.
	held() int
}

func newSplitter(kind Kind, replaceIDs bool) splitter {
	if kind == Lines {
		return new(lines)
	}
	return &blocks{replace: replaceIDs}
}

// lines cuts at line feeds. All lines count, also empty ones: a client counts them.
type lines struct{ line []byte }

func (l *lines) feed(b []byte, add func([]byte, bool)) []byte {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			l.line = append(l.line, b...)
			return nil
		}
		if len(l.line) == 0 {
			add(b[:i+1], true)
		} else {
			l.line = append(l.line, b[:i+1]...)
			add(l.line, true)
			l.line = l.line[:0]
		}
		b = b[i+1:]
	}
}

func (l *lines) finish(add func([]byte, bool)) {
	if len(l.line) > 0 {
		add(l.line, true)
	}
	l.line = nil
}

func (l *lines) held() int { return len(l.line) }

// blocks cuts an event stream after its empty lines. Lines end with LF, CR or CRLF, as the upstream likes.
// A block is numbered if it has a field; one with nothing but comments is not, since some clients take any
// block with an id line for an event.
type blocks struct {
	replace bool // id lines of the upstream are left out; otherwise the first one ends the splitting

	bom   int    // bytes of a byte order mark that have come; -1 once the stream has begun
	mark  bool   // a whole one was left out, and nothing was added since
	block []byte // the block so far
	line  int    // where in it the current line begins
	field bool   // it has a field
	cr    byte   // what became of the line that ended with the last byte, a CR; 0 if that was none
}

// What became of a line whose CR may be followed by an LF in the next bytes.
const (
	lineKept    = 'k' // it stands in block
	lineDropped = 'd' // it was an id line
	blockEnded  = 'e' // it was the empty line that ended the block, which was added
)

const byteOrderMark = "\xef\xbb\xbf"

func (s *blocks) held() int { return len(s.block) }

func (s *blocks) feed(b []byte, add func([]byte, bool)) (own []byte) {
	b = s.skipMark(b)
	if s.cr != 0 && len(b) > 0 {
		if b[0] == '\n' {
			switch s.cr {
			case lineKept:
				s.block = append(s.block, '\n')
				s.line = len(s.block)
			case blockEnded:
				add(b[:1], false)
			}
			b = b[1:]
		}
		s.cr = 0
	}
	for len(b) > 0 {
		end := bytes.IndexAny(b, "\r\n")
		if end < 0 {
			s.block = append(s.block, b...)
			return nil
		}
		after := end + 1
		lastCR := b[end] == '\r' && after == len(b)
		if b[end] == '\r' && after < len(b) && b[after] == '\n' {
			after++
		}
		s.block = append(s.block, b[:after]...)
		line := s.block[s.line : len(s.block)-(after-end)]
		b = b[after:]
		what := byte(lineKept)
		switch {
		case len(line) == 0:
			add(s.block, s.field)
			s.block, s.field, s.mark = s.block[:0], false, false
			what = blockEnded
		case isID(line):
			if !s.replace {
				return s.rest(b)
			}
			s.block = s.block[:s.line]
			what = lineDropped
		case line[0] != ':':
			s.field = true
		}
		s.line = len(s.block)
		if lastCR {
			s.cr = what
		}
	}
	return nil
}

// rest returns what came and was not added.
func (s *blocks) rest(b []byte) []byte {
	rest := append(s.block, b...)
	if s.mark {
		rest = append([]byte(byteOrderMark), rest...)
	}
	return rest
}

// finish completes a block that lacks its empty line. An event that nobody dispatches would be asked for
// again and again.
func (s *blocks) finish(add func([]byte, bool)) {
	if s.bom > 0 { // less than a mark
		s.block = append(s.block, byteOrderMark[:s.bom]...)
		s.bom = -1
	}
	line := s.block[s.line:]
	if isID(line) {
		s.block, line = s.block[:s.line], nil
	}
	s.field = s.field || len(line) > 0 && line[0] != ':'
	switch {
	case !s.field && len(s.block) > 0: // a comment
		add(s.block, false)
	case s.field:
		if len(line) > 0 || s.cr == lineKept { // or the LF would only complete its line end
			s.block = append(s.block, '\n')
		}
		add(append(s.block, '\n'), true)
	}
	s.block, s.line, s.field = nil, 0, false
}

// skipMark leaves out a byte order mark before the first block: an id line comes first there.
func (s *blocks) skipMark(b []byte) []byte {
	for s.bom >= 0 && len(b) > 0 {
		if b[0] != byteOrderMark[s.bom] {
			s.block = append(s.block, byteOrderMark[:s.bom]...)
			s.bom = -1
			break
		}
		b = b[1:]
		if s.bom++; s.bom == len(byteOrderMark) {
			s.bom, s.mark = -1, true
		}
	}
	return b
}

// isID reports whether a line is an id field.
func isID(line []byte) bool {
	name, _, _ := bytes.Cut(line, []byte(":"))
	return string(name) == "id"
}
