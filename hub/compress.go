package hub

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/caddy-sse/caddy-sse/internal/gzipstream"
)

// This file is what clients get that read gzip. A compressed frame is a frame: streams know nothing of it.
//
// A message is compressed once for all clients whose streams end alike, and how they end is its context. Lengths
// tell secrets where strangers can publish beside them. So context is only earlier messages to the same topics,
// with nothing in between. What goes to one client or user, or is said by the hub, is left as it is: its length
// tells nothing else.

const (
	// suffixBytes is how much of what was sent the next message may refer to. More would give little, and clients
	// that came at different times would share later.
	suffixBytes = 1 << 10
	// maxContextual is the longest message that has or is context. Longer ones are compressed once, not for
	// each suffix.
	maxContextual = 4 << 10
	// maxCompressed is up to how many bytes of suffixes and frames are kept, twice: in use, and from before.
	maxCompressed = 1 << 20
)

// compressor is what a hub's clients share that read gzip.
type compressor struct {
	clients atomic.Int64 // that read gzip

	mu          sync.Mutex // guards all below
	used, older compressed // older is what was used before, and is forgotten next
}

type compressed struct {
	suffixes map[suffixKey]*suffix
	pieces   map[pieceKey]*piece
	bytes    int
}

// suffix is how the streams of some clients end.
type suffix struct {
	suffixKey
	weak weak.Pointer[suffix]
}

type suffixKey struct {
	topics string // see Frame.topics
	text   string // the last messages to these, at most suffixBytes
}

// piece is a message compressed.
type piece struct {
	once  sync.Once // makes all below
	frame *Frame
	sum   gzipstream.Sum // of what it is uncompressed
	next  *suffix        // how the streams end that have it; nil if what comes next has no context
}

type pieceKey struct {
	behind       *suffix // nil for no context
	topics, text string
}

// What a suffix and a piece cost besides their text, about.
const (
	suffixCost = 256
	pieceCost  = 512
)

// joined counts a client.
func (z *compressor) joined(c *Client) {
	if c.coding != nil {
		z.clients.Add(1)
	}
}

// left forgets a client, and with the last one all that they shared.
func (z *compressor) left(c *Client) {
	if c.coding == nil || z.clients.Add(-1) > 0 {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.used, z.older = compressed{}, compressed{}
}

// piece returns a frame compressed, for streams that end with a suffix.
func (z *compressor) piece(behind *suffix, f *Frame) *piece {
	source := f.origin()
	if source.isPrivate() {
		return &piece{frame: f.compressed(""), sum: gzipstream.SumOf([]byte(f.Block()))}
	}
	text, topics := f.Block(), source.topics()
	if behind != nil && (behind.topics != topics || len(text) > maxContextual) {
		behind = nil
	}
	p := z.find(pieceKey{behind, topics, text})
	p.once.Do(func() {
		before := ""
		if behind != nil {
			before = behind.text
		}
		p.frame, p.sum = f.compressed(before), gzipstream.SumOf([]byte(text))
		if len(text) <= maxContextual {
			before += text
			p.next = z.suffix(suffixKey{topics, before[max(0, len(before)-suffixBytes):]})
		}
	})
	return p
}

// find returns the one piece that a key has, which may have to be made.
func (z *compressor) find(key pieceKey) *piece {
	z.mu.Lock()
	defer z.mu.Unlock()
	if p := z.used.pieces[key]; p != nil {
		return p
	}
	p := z.older.pieces[key]
	if p == nil {
		p = new(piece)
	}
	z.makeRoomLocked(2*len(key.text) + pieceCost)
	z.used.pieces[key] = p
	return p
}

// suffix returns the one suffix that has a key.
func (z *compressor) suffix(key suffixKey) *suffix {
	z.mu.Lock()
	defer z.mu.Unlock()
	if w := z.used.suffixes[key]; w != nil {
		return w
	}
	w := z.older.suffixes[key]
	if w == nil {
		w = &suffix{suffixKey: key}
		w.weak = weak.Make(w)
	}
	z.makeRoomLocked(len(key.text) + suffixCost)
	z.used.suffixes[key] = w
	return w
}

// makeRoomLocked makes room for so many bytes. Called with compressor.mu held.
func (z *compressor) makeRoomLocked(bytes int) {
	if z.used.pieces == nil || z.used.bytes+bytes > maxCompressed {
		z.older = z.used
		z.used = compressed{suffixes: make(map[suffixKey]*suffix), pieces: make(map[pieceKey]*piece)}
	}
	z.used.bytes += bytes
}

// isPrivate reports whether a frame is for one client or user alone, for those who are granted it, or said by the hub.
func (f *Frame) isPrivate() bool {
	return !f.published() || f.to.Kind == ToClient || f.to.Kind == ToUser || f.to.Kind == ToPrivate
}

// topics tells to which topics a frame was published; empty is everybody.
func (f *Frame) topics() string {
	if f.others() == nil {
		return f.to.Name
	}
	all := []string{f.to.Name}
	for _, a := range f.others() {
		all = append(all, a.Name)
	}
	return strings.Join(all, "\n") // no topic has one
}

// compressed returns a frame as a client gets it that reads gzip, behind a text. What is private is stored.
func (f *Frame) compressed(before string) *Frame {
	var b []byte
	source := f.origin()
	if text := []byte(f.Block()); source.isPrivate() {
		b = gzipstream.AppendStored(nil, text)
	} else {
		b = gzipstream.AppendCompressed(nil, text, []byte(before))
	}
	as := control(b)
	as.more = &more{source: source, gzip: true}
	if source != f {
		as.more.form, as.more.by = f.more.form, f.more.by
	}
	return as
}

// coding is what a client has of its own that reads gzip. It belongs to the client's shard.
type coding struct {
	suffix weak.Pointer[suffix] // how its stream ends; if it is forgotten, the next message has no context
	sum    gzipstream.Sum       // of all that was sent
	over   bool                 // the trailer was sent
}

// Opening returns what a client's stream begins with, given what the client is told first. It is called before
// the stream is ready.
func (c *Client) Opening(hello []byte) []byte {
	if c.coding == nil {
		return hello
	}
	c.coding.sum = gzipstream.SumOf(hello)
	return gzipstream.AppendStored([]byte(gzipstream.Header), hello)
}

// lacksTrailer reports whether a stream that ends for a cause is yet to get its trailer.
func (z *coding) lacksTrailer(cause error) bool { return z != nil && !z.over && EndsCleanly(cause) }

// sendCompressed gives a stream frames, and the trailer if it ends in good order.
func (s *shard) sendCompressed(c *Client, frames []*Frame, end error) (taken int, ready bool) {
	z, run := c.coding, &s.pieces
	run.compress(&s.hub.gzip, z.suffix, frames)
	all, out := run.tail.After(z.sum), run.out
	closes := end != nil && z.lacksTrailer(end)
	if closes {
		out = append(out, control(all.End()))
		run.out = out[:len(frames)]
	}
	switch taken, ready = c.stream.Send(out, end); {
	case taken >= len(frames):
		z.sum, z.suffix = all, run.next
		z.over = z.over || closes && taken == len(out)
	case taken > 0:
		for _, p := range run.made[:taken] {
			z.sum = z.sum.Then(p.sum)
		}
		z.suffix = run.made[taken-1].next.pointer()
	}
	return min(taken, len(frames)), ready
}

// pieces is what a shard has compressed last, for the next client that is to get the same behind the same.
type pieces struct {
	behind weak.Pointer[suffix]
	frames []*Frame
	made   []*piece
	out    []*Frame // of what was made
	tail   gzipstream.Tail
	next   weak.Pointer[suffix]
}

// compress makes it the run of frames behind a suffix.
func (r *pieces) compress(z *compressor, behind weak.Pointer[suffix], frames []*Frame) {
	if len(frames) > 0 && r.behind == behind && slices.Equal(r.frames, frames) {
		return
	}
	r.forget()
	r.behind, r.frames = behind, append(r.frames, frames...)
	w, sum := behind.Value(), gzipstream.Sum{}
	for _, f := range frames {
		p := z.piece(w, f)
		r.made, r.out = append(r.made, p), append(r.out, p.frame)
		w, sum = p.next, sum.Then(p.sum)
	}
	r.tail.Set(sum)
	r.next = behind
	if len(frames) > 0 {
		r.next = w.pointer()
	}
}

// forget lets go of what nobody may ask for again.
func (r *pieces) forget() {
	clear(r.frames)
	clear(r.made)
	clear(r.out)
	r.frames, r.made, r.out = r.frames[:0], r.made[:0], r.out[:0]
}

// pointer returns what a client has of a suffix: one that nobody needs any more is not kept for it.
func (w *suffix) pointer() (p weak.Pointer[suffix]) {
	if w != nil {
		p = w.weak
	}
	return p
}
