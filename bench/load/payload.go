package load

import (
	"bytes"
	"time"
)

// A payload is "~PPSSSSSSSSTTTTTTTTTTTTTTTT~" and padding: the publisher, the number of the message among those
// that this publisher sent to this target, and when it was due, all in hex. It is plain text, so that every server
// takes it as it is, in a body, a form or a JSON string.
const (
	mark       = '~'
	headerSize = 1 + 2 + 8 + 16 + 1

	// MaxPublishers is how many publishers a payload can tell apart.
	MaxPublishers = 256
)

// The clock that send times are taken from. It is the load client's own: senders and receivers are one process.
var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

type header struct {
	publisher int
	number    uint32
	due       int64
}

// appendPayload appends a payload of so many bytes, or of headerSize if that is more.
func appendPayload(b []byte, h header, size int) []byte {
	b = append(b, mark)
	b = appendHex(b, uint64(h.publisher), 2)
	b = appendHex(b, uint64(h.number), 8)
	b = appendHex(b, uint64(h.due), 16)
	b = append(b, mark)
	for range size - headerSize {
		b = append(b, 'x')
	}
	return b
}

// findHeader finds a payload's header wherever in a data line it stands.
func findHeader(line []byte) (h header, found bool) {
	i := bytes.IndexByte(line, mark)
	if i < 0 || len(line)-i < headerSize || line[i+headerSize-1] != mark {
		return h, false
	}
	line = line[i+1 : i+headerSize-1]
	h.publisher = int(parseHex(line[:2]))
	h.number = uint32(parseHex(line[2:10]))
	h.due = int64(parseHex(line[10:]))
	return h, true
}

func appendHex(b []byte, n uint64, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[n>>shift&15])
	}
	return b
}

// parseHex is where most of the time of parsing goes, hence the table.
func parseHex(digits []byte) (n uint64) {
	for _, c := range digits {
		n = n<<4 | uint64(hexValues[c])
	}
	return n
}

var hexValues = func() (values [256]uint8) {
	for i, c := range "0123456789abcdef" {
		values[c] = uint8(i)
	}
	for i, c := range "ABCDEF" {
		values[c] = uint8(10 + i)
	}
	return values
}()
