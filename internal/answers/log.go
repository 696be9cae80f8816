package answers

import (
	"cmp"
	"slices"
	"strconv"
)

// log is an answer's bytes, and where in them its numbered pieces are. Between them, before the first and behind
// the last may be bytes that belong to none, as comments. It only grows; what has been read is never changed.
type log struct {
	segments []segment
	size     int64   // bytes, with those that are dropped
	begins   int64   // where what is there begins
	dropped  uint64  // pieces before the first that is there
	places   []Place // of piece number dropped+i+1
}

// Place is where a piece is.
type Place struct{ Begin, End int64 }

// segment is a part of a log's bytes.
type segment struct {
	begins int64
	bytes  []byte
}

// Segments grow with their log, so that a short answer takes little room and a long one has few.
const (
	minSegment = 512
	maxSegment = 64 << 10
)

func (l *log) append(piece []byte, numbered bool) {
	if numbered {
		l.places = append(l.places, Place{l.size, l.size + int64(len(piece))})
	}
	for len(piece) > 0 {
		n := len(l.segments)
		if n == 0 || len(l.segments[n-1].bytes) == cap(l.segments[n-1].bytes) {
			room := min(max(minSegment, l.size/2), maxSegment)
			l.segments = append(l.segments, segment{l.size, make([]byte, 0, room)})
			n++
		}
		last := &l.segments[n-1]
		taken := min(len(piece), cap(last.bytes)-len(last.bytes))
		last.bytes = append(last.bytes, piece[:taken]...)
		piece = piece[taken:]
		l.size += int64(taken)
	}
}

// room returns the bytes that the log takes in memory.
func (l *log) room() int64 {
	n := int64(cap(l.places)*16 + cap(l.segments)*32)
	for _, s := range l.segments {
		n += int64(cap(s.bytes))
	}
	return n
}

// last returns the number of the last piece.
func (l *log) last() uint64 { return l.dropped + uint64(len(l.places)) }

// start returns where the piece behind that number begins, which must be there.
func (l *log) start(number uint64) int64 { return l.places[number-l.dropped].Begin }

// drop forgets all pieces, but not how many there were.
func (l *log) drop() { l.begins, l.dropped, l.segments, l.places = l.size, l.last(), nil, nil }

// lacks reports whether what follows the cursor is not there.
func (l *log) lacks(c cursor) bool { return c.number < l.dropped || c.offset < l.begins }

// cursor is a reader's place in a log.
type cursor struct {
	offset int64
	number uint64 // pieces that have begun before offset
	ahead  uint64 // how many more the reader has had than there are before offset
}

// after returns the cursor right behind the piece of that number, or of a reader that has had nothing. It is the
// same whenever that is asked: what belongs to no piece and has come since follows.
func (l *log) after(number uint64) cursor {
	if number == l.dropped {
		return cursor{offset: l.begins, number: number}
	}
	return cursor{offset: l.places[number-l.dropped-1].End, number: number}
}

// read appends what follows the cursor to buf, as far as buf has room, and moves the cursor. With an id,
// each piece has an id line before it.
func (l *log) read(c *cursor, buf []byte, id string) []byte {
	for c.offset < l.size {
		until := l.size
		if c.number < l.last() && l.start(c.number) == c.offset {
			c.number++
			if id != "" {
				if cap(buf)-len(buf) < len(id)+32 {
					c.number--
					return buf
				}
				buf = appendID(buf, id, c.number+c.ahead)
			}
		}
		if c.number < l.last() {
			until = l.start(c.number)
		}
		before := len(buf)
		buf = l.copy(buf, c.offset, until)
		if c.offset += int64(len(buf) - before); c.offset < until {
			return buf
		}
	}
	return buf
}

// copy appends the bytes of a range to buf, as far as buf has room.
func (l *log) copy(buf []byte, from, until int64) []byte {
	for from < until {
		i, exact := slices.BinarySearchFunc(l.segments, from, func(s segment, at int64) int {
			return cmp.Compare(s.begins, at)
		})
		if !exact {
			i--
		}
		s := l.segments[i]
		begin := int(from - s.begins)
		n := min(len(s.bytes)-begin, int(until-from), cap(buf)-len(buf))
		if n == 0 {
			break
		}
		buf = append(buf, s.bytes[begin:begin+n]...)
		from += int64(n)
	}
	return buf
}

// appendID appends an id line.
func appendID(buf []byte, id string, number uint64) []byte {
	buf = append(append(buf, "id: "...), id...)
	return append(strconv.AppendUint(append(buf, '.'), number, 10), '\n')
}

// batch returns the pieces behind a cursor, whole and of about most bytes, with what is between them, and the
// cursor behind them; nil if there are none. Once all is there, what is left behind the last piece comes in a batch
// without pieces.
func (l *log) batch(c cursor, most int64, all bool) (*Batch, cursor) {
	if l.lacks(c) {
		return nil, cursor{offset: l.size, number: l.last()}
	}
	b, end := &Batch{Last: c.number}, c.offset
	for b.Last < l.last() {
		place := l.places[b.Last-l.dropped]
		if len(b.Places) > 0 && place.End-c.offset > most {
			break
		}
		b.Places = append(b.Places, Place{place.Begin - c.offset, place.End - c.offset})
		b.Last, end = b.Last+1, place.End
	}
	if b.Last == l.last() && (all || len(b.Places) > 0) {
		end = l.size
	}
	if end == c.offset {
		return nil, c
	}
	b.Bytes = l.copy(make([]byte, 0, end-c.offset), c.offset, end)
	return b, cursor{offset: end, number: b.Last}
}

// takeIn appends a batch. If what comes before it is missing, all before it is.
func (l *log) takeIn(b Batch) {
	if b.first() != l.last()+1 {
		l.drop()
		l.dropped = b.first() - 1
	}
	begin := l.size
	l.append(b.Bytes, false)
	for _, place := range b.Places {
		l.places = append(l.places, Place{begin + place.Begin, begin + place.End})
	}
}
