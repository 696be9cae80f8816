package hubtest

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"io"
	"strings"
	"testing"
)

// reader reads a stream of gzip as any program could. It knows nothing of how that was made: of each piece it has but the
// piece, and the text before. Nil passes on what is not compressed.
type reader struct {
	t        testing.TB
	inflater io.ReadCloser
	before   []byte // the last of the text
	crc      uint32 // of all of it
	size     uint32
	over     bool // the trailer was there
}

// maxDistance is how far back DEFLATE can refer.
const maxDistance = 32 << 10

// newReader begins to read a stream, with what it begins with.
func newReader(t testing.TB, opening []byte) *reader {
	const header = 10
	if !bytes.HasPrefix(opening, []byte{0x1f, 0x8b, 8, 0}) || len(opening) < header {
		t.Fatalf("a stream of gzip begins with %x", opening)
	}
	r := &reader{t: t, inflater: flate.NewReader(nil)}
	if text, _ := r.read(string(opening[header:])); text != "" {
		t.Errorf("a stream that is to begin with nothing begins with %q", text)
	}
	return r
}

// read returns the text of a piece. The last piece has none, but a trailer.
func (r *reader) read(piece string) (text string, more bool) {
	switch {
	case r == nil:
		return piece, true
	case r.over:
		r.t.Errorf("%d bytes come behind the trailer", len(piece))
		return "", false
	}
	rest := strings.NewReader(piece)
	_ = r.inflater.(flate.Resetter).Reset(rest, r.before)
	var b, room []byte
	room = make([]byte, 512)
	for ended := false; !ended; {
		n, err := r.inflater.Read(room)
		b = append(b, room[:n]...)
		ended = err != nil
		switch {
		case !ended:
		case err == io.EOF:
			r.readTrailer(rest)
		case err != io.ErrUnexpectedEOF || n > 0: // else all that there is was passed on before
			r.t.Errorf("a piece of %d bytes behind %d: %d bytes come with %v", len(piece), r.size, n, err)
		}
	}
	r.crc, r.size = crc32.Update(r.crc, crc32.IEEETable, b), r.size+uint32(len(b))
	r.before = append(r.before, b...)
	r.before = append([]byte(nil), r.before[max(0, len(r.before)-maxDistance):]...)
	return string(b), !r.over
}

func (r *reader) readTrailer(rest io.Reader) {
	trailer, _ := io.ReadAll(rest)
	if len(trailer) != 8 || binary.LittleEndian.Uint32(trailer) != r.crc || binary.LittleEndian.Uint32(trailer[4:]) != r.size {
		r.t.Errorf("a stream of %d bytes, whose sum is %08x, has the trailer %x", r.size, r.crc, trailer)
	}
	r.over = true
}

// finish tells the reader that the stream has ended.
func (r *reader) finish(clean bool) {
	if r != nil && r.over != clean {
		r.t.Errorf("a stream has a trailer: %v; it ended in good order: %v", r.over, clean)
	}
}
