package eventstream

import (
	"bytes"
	"errors"
	"io"
	"math"
)

// ErrTooLarge is what [Decoder.Next] returns for a block above the limit.
var ErrTooLarge = errors.New("event larger than allowed")

const (
	bufferSize = 8 << 10

	// So many bytes of a line tell its kind, even if its end has not come: a
	// byte order mark, and the longest known name with its colon and space.
	tellingBytes = len(byteOrderMark) + len("event: ")

	byteOrderMark = "\xEF\xBB\xBF"

	// A buffer that a large event has grown beyond this is not kept for the
	// small events after it.
	maxIdleScratch = 64 << 10
)

// lineKind is what the line being read is, as far as it has been read.
type lineKind uint8

const (
	lineUntold lineKind = iota // too little of it has been read
	lineBlank
	lineIgnored // a comment, an unknown field, or a value without meaning
	lineData
	lineID
	lineEvent
	lineRetry
)

// Decoder reads the events of a stream. It never waits for more input than the
// next event needs: in particular a CR ends a line at once, and an LF after it
// is swallowed when it comes.
//
// Nothing is stored but the values of known fields. Comments and unknown
// fields may be of any length.
//
// A Decoder is not safe for concurrent use.
type Decoder struct {
	// KeepIncomplete keeps a last block without its blank line, and a last line
	// without its line end, if the input ends by io.EOF. If it is false they
	// are dropped, as browsers do. After any other error they are always
	// dropped: a broken connection may have cut them short. Set it before the
	// first use.
	KeepIncomplete bool

	r       io.Reader
	readErr error  // r's; it takes effect when all of buf is parsed
	buf     []byte // fixed size; buf[pos:end] is read but not parsed
	pos     int
	end     int

	kind    lineKind
	line    int    // the line being read, from 1
	afterCR bool   // an LF that comes next belongs to the CR before it
	value   []byte // of an id or event line, as far as it has been read
	retry   int64  // of a retry line; -1 before its first digit

	event    Event  // the block being read, but for its data
	data     []byte // lines joined by LF
	begin    int    // line on which that block began
	complete bool   // it waits for Next to take it

	maxBlock int
	last     int   // what Line returns
	err      error // final: nothing is parsed or read any more
}

// NewDecoder returns a decoder of r. The data, id and name of one block may
// have maxBlock bytes together.
func NewDecoder(r io.Reader, maxBlock int) *Decoder {
	return &Decoder{r: r, maxBlock: maxBlock, buf: make([]byte, bufferSize), line: 1, begin: 1, last: 1}
}

// Next returns the next block that says anything. A block of nothing but
// comments, unknown fields and values the standard ignores is skipped, and so
// is one of empty event lines, which an [Event] cannot tell from none.
// Event.Data belongs to the caller.
//
// The error is io.EOF at the proper end of the input, [ErrTooLarge], or the
// reader's. It is final.
func (d *Decoder) Next() (Event, error) {
	for !d.Buffered() {
		if d.err != nil {
			d.last = d.line
			return Event{}, d.err
		}
		d.fill()
	}
	event := d.event
	if event.HasData {
		event.Data = bytes.Clone(d.data)
	}
	d.last = d.begin
	d.reset()
	return event, nil
}

// Buffered reports whether Next will return an event without reading.
func (d *Decoder) Buffered() bool {
	if !d.complete && d.err == nil {
		d.parse(false)
	}
	return d.complete
}

// Line returns the number of the line on which the block returned last began,
// or after an error, of the line being read. Lines count from 1.
func (d *Decoder) Line() int {
	return d.last
}

// fill reads once. It is called when all that buf tells has been parsed, which
// leaves fewer than tellingBytes in it.
func (d *Decoder) fill() {
	if d.readErr != nil {
		d.finish()
		return
	}
	d.end = copy(d.buf, d.buf[d.pos:d.end])
	d.pos = 0
	for range 100 { // as many empty reads as bufio grants
		n, err := d.r.Read(d.buf[d.end:])
		d.end += n
		d.readErr = err
		if n > 0 || err != nil {
			return
		}
	}
	d.readErr = io.ErrNoProgress
}

// finish ends the input.
func (d *Decoder) finish() {
	if d.readErr == io.EOF && d.KeepIncomplete { //nolint:errorlint // a wrapped EOF is no proper end
		d.parse(true)
		d.complete = d.err == nil && !d.event.empty()
	}
	if d.err == nil {
		d.err = d.readErr
	}
}

// parse takes what has been read, up to the end of a block or the beginning of
// a line that cannot be told yet. If final, the end of the input ends the line.
func (d *Decoder) parse(final bool) {
	for d.pos < d.end && d.err == nil && !d.complete {
		if d.afterCR {
			d.afterCR = false
			if d.buf[d.pos] == '\n' {
				d.pos++
				continue
			}
		}
		text := d.buf[d.pos:d.end]
		end := lineEnd(text)
		if end >= 0 {
			text = text[:end]
		} else if d.kind == lineUntold && len(text) < tellingBytes && !final {
			return
		}
		d.pos += len(text)
		if d.kind == lineUntold {
			text = d.beginLine(text)
		}
		d.addValue(text)
		if end >= 0 && d.err == nil {
			d.afterCR = d.buf[d.pos] == '\r'
			d.pos++
			d.endLine()
		}
	}
	if final && d.kind != lineUntold && d.err == nil {
		d.endLine()
	}
}

// beginLine tells the kind of a line by its beginning and returns what of the
// value is in it.
func (d *Decoder) beginLine(text []byte) []byte {
	if d.line == 1 {
		text = bytes.TrimPrefix(text, []byte(byteOrderMark))
	}
	name, value, _ := bytes.Cut(text, []byte(":"))
	switch string(name) {
	case "data":
		d.kind = lineData
		if d.event.HasData {
			d.data = append(d.data, '\n')
		}
		d.event.HasData = true
	case "id":
		d.kind = lineID
	case "event":
		d.kind = lineEvent
	case "retry":
		d.kind, d.retry = lineRetry, -1
	default:
		d.kind = lineIgnored
		if len(text) == 0 {
			d.kind = lineBlank
		}
	}
	return bytes.TrimPrefix(value, []byte(" "))
}

// addValue takes a part of the line's value.
func (d *Decoder) addValue(text []byte) {
	switch d.kind {
	case lineData:
		d.data = append(d.data, text...)
	case lineID, lineEvent:
		d.value = append(d.value, text...)
	case lineRetry:
		d.addDigits(text)
		return
	default:
		return
	}
	if len(d.data)+len(d.value)+len(d.event.ID)+len(d.event.Name) > d.maxBlock {
		d.err = ErrTooLarge
	}
}

// addDigits takes a part of a retry value, which counts only if it is nothing
// but digits and fits.
func (d *Decoder) addDigits(text []byte) {
	for _, c := range text {
		digit, n := int64(c)-'0', max(d.retry, 0)
		if digit < 0 || digit > 9 || n > (math.MaxInt64-digit)/10 {
			d.kind = lineIgnored
			return
		}
		d.retry = n*10 + digit
	}
}

// endLine gives the line its effect.
func (d *Decoder) endLine() {
	switch d.kind {
	case lineBlank:
		if d.complete = !d.event.empty(); !d.complete {
			d.begin = d.line + 1
		}
	case lineID:
		if bytes.IndexByte(d.value, 0) < 0 {
			d.event.ID, d.event.ClearsID = string(d.value), len(d.value) == 0
		}
	case lineEvent:
		d.event.Name = string(d.value)
	case lineRetry:
		if d.retry >= 0 {
			d.event.Retry, d.event.HasRetry = d.retry, true
		}
	}
	d.kind = lineUntold
	d.value = emptied(d.value)
	d.line++
}

// reset makes room for the next block, which begins on the line being read.
func (d *Decoder) reset() {
	d.event = Event{}
	d.data = emptied(d.data)
	d.begin = d.line
	d.complete = false
}

func emptied(scratch []byte) []byte {
	if cap(scratch) > maxIdleScratch {
		return nil
	}
	return scratch[:0]
}

// Parse returns the first block of a stream in memory. If there is none it returns the zero Event.
func Parse(stream []byte) Event {
	e, _ := NewDecoder(bytes.NewReader(stream), len(stream)).Next()
	return e
}
