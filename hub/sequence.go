package hub

import (
	"slices"
	"sort"
)

// sequence is the log in memory, in its order: everything of the newest part, and of what is older only what
// history keeps. It is guarded by Hub.mu.
type sequence struct {
	blocks []*block // in order; the last is open
	next   uint64   // the place of the frame that comes next; places count from 1

	// ring is the place from which on everything is there, kept or not: who is a little behind reads it there.
	ring   uint64
	bytes  int      // from ring on
	before Position // the broker's log's position before ring
	time   int64    // when the broker's log took its last message; 0 if it has none

	released func(*Frame) // told of each frame that is let go of
}

// block holds the frames of blockSize places, or what is left of them.
type block struct {
	first  uint64   // the place of its first frame
	before Position // the broker's log's position before that
	opened int64    // when the broker's log took its last message before that; 0 if it had none
	frames []*Frame // by place, with holes; once packed, what is left, in order
	live   int      // how many frames there are
	packed bool
	// outdated tells that all of its frames are known to be: the block is closed.
	outdated bool
}

const blockSize = 256

func newSequence() *sequence { return &sequence{next: 1, ring: 1, released: func(*Frame) {}} }

// append gives a frame the next place. before is the position of the broker's log until now.
func (q *sequence) append(f *Frame, before Position) {
	f.seq = q.next
	last := len(q.blocks) - 1
	if last < 0 || q.next-q.blocks[last].first >= blockSize {
		q.open(before)
		last = len(q.blocks) - 1
	}
	b := q.blocks[last]
	b.frames = append(b.frames, f)
	b.live++
	if !f.is(ephemeral|announced) && !f.isBackdated() {
		q.time = f.time
	}
	q.next++
	q.bytes += f.size()
}

// ringIsFull reports whether the ring holds so much more than it should that it is worth to move its beginning:
// several steps at once wait for less memory than one after each frame.
func (q *sequence) ringIsFull(most *measures) bool {
	return q.next-q.ring > most.ringFrames+most.ringFrames/128 || q.bytes > most.ringBytes
}

// moveRing lets the ring begin later, up to floor at most. What history does not keep of the log that begins at
// begin, and all of those before, is let go of.
func (q *sequence) moveRing(most *measures, floor, begin uint64) {
	for steps := 64; steps > 0 && q.ring < floor && q.next-q.ring > 1; steps-- {
		if q.next-q.ring <= most.ringFrames && q.bytes <= most.ringBytes {
			return
		}
		f := q.at(q.ring)
		q.ring++
		q.bytes -= f.size()
		q.before = f.position
		if f.kept == 0 || f.seq < begin {
			q.release(f)
		}
	}
}

// positionAt returns the broker's log's position before a place of the ring.
func (q *sequence) positionAt(seq uint64) Position {
	if seq > q.ring {
		return q.at(seq - 1).position
	}
	return q.before
}

// open begins a new block.
func (q *sequence) open(before Position) {
	if last := len(q.blocks) - 1; last >= 0 && q.blocks[last].live == 0 {
		q.blocks = q.blocks[:last]
	}
	q.blocks = append(q.blocks, &block{first: q.next, before: before, opened: q.time})
}

// begin lets another log begin here: its positions have nothing to do with those before.
func (q *sequence) begin(before Position) {
	q.time = 0
	q.open(before)
}

// find returns the index of the last block that begins at or before a place; -1 if there is none.
func (q *sequence) find(seq uint64) int {
	if len(q.blocks) == 0 || seq < q.blocks[0].first {
		return -1
	}
	guess := int((seq - q.blocks[0].first) / blockSize) // right while there are no gaps
	if guess < len(q.blocks) && seq >= q.blocks[guess].first && (guess+1 == len(q.blocks) || seq < q.blocks[guess+1].first) {
		return guess
	}
	return sort.Search(len(q.blocks), func(i int) bool { return q.blocks[i].first > seq }) - 1
}

// index returns where in frames a place is, or the next that is left.
func (b *block) index(seq uint64) int {
	switch {
	case seq < b.first:
		return 0
	case !b.packed:
		return int(min(seq-b.first, uint64(len(b.frames))))
	}
	return sort.Search(len(b.frames), func(i int) bool { return b.frames[i] == nil || b.frames[i].seq >= seq })
}

// at returns the frame at a place; nil if it is gone.
func (q *sequence) at(seq uint64) *Frame {
	i := q.find(seq)
	if i < 0 {
		return nil
	}
	b := q.blocks[i]
	if n := b.index(seq); n < len(b.frames) && b.frames[n] != nil && b.frames[n].seq == seq {
		return b.frames[n]
	}
	return nil
}

// release lets go of a frame.
func (q *sequence) release(f *Frame) {
	i := q.find(f.seq)
	if i < 0 {
		return
	}
	b := q.blocks[i]
	n := b.index(f.seq)
	if n >= len(b.frames) || b.frames[n] != f {
		return
	}
	q.released(f)
	if b.packed {
		b.frames = slices.Delete(b.frames, n, n+1)
	} else {
		b.frames[n] = nil
	}
	b.live--
	switch open := i == len(q.blocks)-1; {
	case open:
	case b.live == 0 && i == 0:
		q.blocks[0] = nil
		q.blocks = q.blocks[1:]
	case b.live == 0:
		q.blocks = slices.Delete(q.blocks, i, i+1)
	case b.live <= cap(b.frames)/4:
		b.pack()
	}
}

// pack keeps no more room than what is left needs.
func (b *block) pack() {
	left := make([]*Frame, 0, b.live)
	for _, f := range b.frames {
		if f != nil {
			left = append(left, f)
		}
	}
	b.frames, b.packed = left, true
}

// forget drops all blocks that end before a place, kept or not.
func (q *sequence) forget(seq uint64) {
	n := 0
	for n < len(q.blocks)-1 && q.blocks[n+1].first <= seq {
		n++
	}
	q.blocks = slices.Delete(q.blocks, 0, n)
}

// collect appends the frames from a place up to another to those in to, after having looked at so many. It
// returns the place to go on at.
func (q *sequence) collect(to []*Frame, from, until uint64, most int) ([]*Frame, uint64) {
	i := max(0, q.find(from))
	for ; i < len(q.blocks) && from < until; i++ {
		b := q.blocks[i]
		if b.first >= until {
			break
		}
		for n := b.index(from); n < len(b.frames); n++ {
			f := b.frames[n]
			if f == nil {
				continue
			}
			seq := b.first + uint64(n) // without a look at the frame, which may be far away
			if b.packed {
				seq = f.seq
			}
			if seq >= until {
				return to, until
			}
			if most--; most < 0 {
				return to, seq
			}
			to = append(to, f)
		}
		if i+1 < len(q.blocks) {
			from = max(from, q.blocks[i+1].first)
		}
	}
	return to, until
}

// after returns the place of the first frame behind a position, of the log that begins at a place: that is also what
// has left at the position, behind what had left by then.
func (q *sequence) after(p Position, had leaving, begin uint64) uint64 {
	first := max(0, q.find(begin))
	i := first + sort.Search(len(q.blocks)-first, func(i int) bool { return !p.After(q.blocks[first+i].before) }) - 1
	for i = max(first, i); i < len(q.blocks); i++ {
		for _, f := range q.blocks[i].frames {
			if f != nil && f.seq >= begin && (f.position.After(p) ||
				f.position == p && f.isBackdated() && f.more.left.after(had)) {
				return f.seq
			}
		}
	}
	return q.next
}
