package sse

import "strconv"

// The chunked transfer coding of HTTP/1.1 (RFC 9112, section 7.1), for streams that write to a socket
// themselves. A message's chunk is made once, as its frame is.
const (
	chunkHead = 8 + len(chunkEnd) // room for a chunk's size in hexadecimal, up to 4 GiB
	chunkEnd  = "\r\n"
	lastChunk = "0\r\n\r\n"
)

// EndOfStream is written last on a stream of chunks that ends in good order.
var EndOfStream = &Message{Ephemeral: true, chunk: []byte(lastChunk)}

// chunked makes a chunk of what stands in b behind chunkHead bytes, which are overwritten. It returns the
// chunk and, within it, what it holds.
func chunked(b []byte) (chunk, content []byte) {
	var digits [chunkHead]byte
	head := append(strconv.AppendInt(digits[:0], int64(len(b)-chunkHead), 16), chunkEnd...)
	start := chunkHead - len(head)
	copy(b[start:], head)
	end := len(b)
	b = append(b, chunkEnd...)
	return b[start:], b[chunkHead:end:end]
}
