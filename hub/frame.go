package hub

import (
	"strconv"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

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

// The frames that say something about the stream itself.
var heartbeat = control(eventstream.AppendComment(nil, "heartbeat"))

// gapFrame tells a client, with its position if there is one, that messages are missing.
func gapFrame(id, reason string) *Message {
	e := eventstream.Event{ID: id, Name: "gap", Data: []byte(`{"reason":"` + reason + `"}`), HasData: true}
	return control(e.Append(nil))
}

// farewell is the last event of a stream that ends for good until its page does something.
func farewell(name string) *Message {
	e := eventstream.Event{Name: name, Data: []byte(`{"status":"` + name + `"}`), HasData: true}
	return control(e.Append(nil))
}

// retryFrame tells a client when to come back.
func retryFrame(after time.Duration) *Message {
	e := eventstream.Event{Retry: after.Milliseconds(), HasRetry: true}
	return control(e.Append(nil))
}

// control returns a message that only carries a frame: a heartbeat, a gap, a farewell.
func control(frame []byte) *Message {
	m := &Message{Ephemeral: true}
	m.seal(append(make([]byte, chunkHead, chunkHead+len(frame)+len(chunkEnd)), frame...))
	return m
}
