// Package gzipstream writes gzip streams in pieces that many streams share.
//
// A gzip stream is a header, DEFLATE blocks, and a trailer with a checksum of all the text. A block may refer to
// the text before it, up to 32 KiB back, and DEFLATE does not care who made which block. So a piece of text is
// compressed once for all streams whose last bytes are the same, however they got there:
//
//	Header  Stored(hello)  Compressed(m1, "")  Compressed(m2, m1)  Stored(private)  Compressed(m3, "")  Sum.End
//
// Each piece ends at a byte, with an empty block: so a reader passes all of its text on once it has the piece. No
// stream has a compressor. It keeps the Sum of its text, and adds those of the pieces.
//
// The package knows nothing of hubs, messages and HTTP.
package gzipstream

import (
	"encoding/binary"

	"github.com/klauspost/compress/flate"
)

// Header is what a stream begins with: no name, no time, an unknown system. (RFC 1952)
const Header = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

// AppendCompressed appends a piece that has a text. before is text that stands right before it on each stream that
// gets the piece, at most 8 KiB; the piece may refer to it. The same text behind the same gives the same piece.
func AppendCompressed(b, text, before []byte) []byte {
	out := appender(b)
	_ = flate.StatelessDeflate(&out, text, false, before) // an appender takes everything
	return out
}

// maxStored is how much one stored block holds.
const maxStored = 1<<16 - 1

// AppendStored appends a piece that has a text as it is: its length tells nothing but the text's.
func AppendStored(b, text []byte) []byte {
	for {
		n := min(len(text), maxStored)
		b = append(b, 0) // a stored block that is not the last
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
		b = binary.LittleEndian.AppendUint16(b, ^uint16(n))
		b = append(b, text[:n]...)
		if text = text[n:]; n == 0 { // by which readers know that they are to pass on what they have
			return b
		}
	}
}

// End returns what ends a stream with that text: an empty last block, and the trailer.
func (s Sum) End() []byte {
	b := []byte{0x03, 0x00}
	b = binary.LittleEndian.AppendUint32(b, s.crc)
	return binary.LittleEndian.AppendUint32(b, s.size)
}

// appender is a slice that is written to.
type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}
