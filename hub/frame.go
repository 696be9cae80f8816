package hub

import (
	"bytes"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// Frame is one entry of the log as every client gets it: a message, or something that the hub itself says.
// All clients share it, and it never changes once it stands in the log, but for what Hub.mu guards.
type Frame struct {
	chunk    string        // the encoded block, as a chunk of HTTP/1.1
	key      string        // what the message is the value of within its topic; empty for the topic itself
	position Position      // in the broker's log; of an ephemeral frame, that of the message before it
	seq      uint64        // its place in this hub's log; 0 for what is told to one client alone
	time     int64         // when the broker's log took it, in nanoseconds since 1970
	arrived  moment        // when the hub got it
	to       *Address      // whom it is for; nil if it is told to one client alone
	more     *more         // what few frames have; nil for the others
	newer    atomic.Uint64 // the place of the frame that it gave way to; 0 for none
	kept     int32         // how many address logs hold it; guarded by Hub.mu
	partly   bool          // some that held it do no more; guarded by Hub.mu
	head     uint8         // where the block begins in chunk
	outdated bool          // it is known to be the newest of no address log, nor of a key there; guarded by Hub.mu
	traits
}

// more is what only some frames have.
type more struct {
	also       []*Address // the other addresses of a message with several
	data       string     // as it was published, if the block has it with other line ends
	source     *Frame     // what the frame is in another form, or compressed; nil if it is as in the log
	form       Form       // that other form
	by         *Address   // by which a client gets it in that form
	gzip       bool       // it is compressed besides
	chosen     string     // the ID that the publisher chose
	*backdated            // what is known of a frame that has left later than it was published; nil for others
}

// others returns the addresses of a message with several but for the first.
func (f *Frame) others() []*Address {
	if f.more == nil {
		return nil
	}
	return f.more.also
}

// origin returns the frame as the log has it, or as the hub says it.
func (f *Frame) origin() *Frame {
	if f.more == nil || f.more.source == nil {
		return f
	}
	return f.more.source
}

// traits tell one kind of frame from another.
type traits uint8

const (
	ephemeral traits = 1 << iota // it is not kept
	restored                     // the broker's log had it from before: only who resumes gets it
	announced                    // the hub says it, to everybody
	hasRetry                     // it tells a reconnect delay
	unheard                      // nobody who was there is to get it
	conflated                    // it may give way to a newer one
	tellsGap                     // the hub says that messages are missing
)

func (t traits) is(other traits) bool { return t&other != 0 }

// The chunked transfer coding of HTTP/1.1 (RFC 9112, section 7.1).
const chunkEnd = "\r\n"

// Block returns the frame as it stands in an event stream.
func (f *Frame) Block() string { return f.chunk[f.head : len(f.chunk)-len(chunkEnd)] }

// Chunk returns the frame as a chunk of HTTP/1.1, around the same bytes as Block.
func (f *Frame) Chunk() string { return f.chunk }

// size is what the frame costs a client that waits for it, in bytes.
func (f *Frame) size() int { return len(f.chunk) - int(f.head) - len(chunkEnd) }

// published reports whether somebody published the frame, rather than the hub saying something.
func (f *Frame) published() bool { return f.to != nil && !f.is(announced) }

// addresses calls visit with each address of the frame.
func (f *Frame) addresses(visit func(*Address)) {
	if f.to == nil {
		return
	}
	visit(f.to)
	for _, a := range f.others() {
		visit(a)
	}
}

// addressToo adds addresses to a frame that has one.
func (f *Frame) addressToo(all ...*Address) {
	if len(all) == 0 {
		return
	}
	if f.more == nil {
		f.more = new(more)
	}
	f.more.also = append(f.more.also, all...)
}

// draft is a block that still lacks its ID line and what stands before it.
type draft struct {
	b    []byte // room, then the block without its ID line, then chunkEnd
	room int
	// frame is what it becomes, made early so that it need not be made under a lock.
	frame *Frame
	// conflates says that it is for a topic whose messages may give way to newer ones.
	conflates bool
	// every is in what time one message of its topic and key may leave; 0 without limit.
	every time.Duration
}

// encode makes the block of a message, with room for an ID of so many bytes.
func (m *Message) encode(idBytes int) draft {
	size := len("event: \nretry: \ndata: \n\n") + 20 + len(m.Event) + len(m.Data)
	if more := bytes.Count(m.Data, []byte("\n")) + bytes.Count(m.Data, []byte("\r")); more > 0 {
		size += more * len("data: ")
	}
	if !m.HasRetry {
		size -= len("retry: \n") + 20
	}
	if m.Event == "" {
		size -= len("event: \n")
	}
	room := len(chunkEnd) + hexDigits(size)
	if !m.Ephemeral {
		room += len("id: \n") + idBytes
	}
	e := eventstream.Event{Name: m.Event, Data: m.Data, HasData: true, Retry: m.Retry, HasRetry: m.HasRetry}
	b := e.Append(make([]byte, room, room+size+len(chunkEnd)))
	f := &Frame{key: strings.Clone(m.Key)} // it may be a part of a request, of which nothing is to be kept
	if m.HasRetry {
		f.traits |= hasRetry
	}
	if m.Ephemeral {
		f.traits |= ephemeral
	}
	if bytes.IndexByte(m.Data, '\r') >= 0 {
		f.more = &more{data: string(m.Data)}
	}
	if m.ChosenID != "" {
		if f.more == nil {
			f.more = new(more)
		}
		f.more.chosen = strings.Clone(m.ChosenID)
	}
	return draft{b: append(b, chunkEnd...), room: room, frame: f}
}

// seal puts the chunk's head and the ID, if there is one, before the block.
func (d draft) seal(epoch string, position Position) (chunk string, head uint8) {
	var before [128]byte
	line := before[:0]
	if epoch != "" {
		line = append(append(append(line, "id: "...), epoch...), '-')
		line = append(position.append(line), '\n')
	}
	content := len(line) + len(d.b) - d.room - len(chunkEnd)
	var first [20]byte
	start := append(strconv.AppendInt(first[:0], int64(content), 16), chunkEnd...)
	if need := len(start) + len(line); need > d.room { // the ID is longer than was expected
		b := make([]byte, need, need+len(d.b)-d.room)
		d.b, d.room = append(b, d.b[d.room:]...), need
	}
	copy(d.b[d.room-len(line):], line)
	from := d.room - len(line) - len(start)
	copy(d.b[from:], start)
	return unsafe.String(&d.b[from], len(d.b)-from), uint8(len(start))
}

func hexDigits(n int) (digits int) {
	for ; n > 0; n >>= 4 {
		digits++
	}
	return max(1, digits)
}

// control returns a frame that only carries a block, for one client alone.
func control(block []byte) *Frame {
	f := &Frame{traits: ephemeral}
	room := len(chunkEnd) + hexDigits(len(block))
	b := append(make([]byte, room, room+len(block)+len(chunkEnd)), block...)
	f.chunk, f.head = draft{b: append(b, chunkEnd...), room: room, frame: f}.seal("", Position{})
	return f
}

// heartbeat is a comment with one line end: an empty line that ends no data makes widely used clients
// dispatch an event without data.
var heartbeat = control([]byte(": heartbeat\n"))

// gapFrame tells a client, with its position if there is one, that messages are missing.
func gapFrame(id, reason string) *Frame {
	e := eventstream.Event{ID: id, Name: "gap", Data: []byte(`{"reason":"` + reason + `"}`), HasData: true}
	f := control(e.Append(nil))
	f.traits |= tellsGap
	return f
}

// farewell is the last event of a stream that ends for good until its page does something.
func farewell(name string) *Frame {
	e := eventstream.Event{Name: name, Data: []byte(`{"status":"` + name + `"}`), HasData: true}
	return control(e.Append(nil))
}

// retryFrame tells a client when to come back. No empty line follows it: see heartbeat.
func retryFrame(after time.Duration) *Frame {
	return control(append(strconv.AppendInt([]byte("retry: "), after.Milliseconds(), 10), '\n'))
}
