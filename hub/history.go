package hub

import (
	"math"
	"sort"
	"strings"
	"time"
)

// HistoryLimits bounds what a hub keeps for clients that come back.
type HistoryLimits struct {
	// Count is how many messages are kept per address; 0 keeps nothing.
	Count int
	// Age is how long a message is kept; 0 means without limit.
	Age time.Duration
	// Bytes bounds the memory of what is kept in all; the addresses published to longest ago give way first.
	// 0 means without limit.
	Bytes int64
}

// history knows which frames of the sequence are kept, per address, and which it no longer has. It is guarded
// by Hub.mu and knows nothing of clients.
type history struct {
	limits HistoryLimits
	frames *sequence
	most   *measures
	logs   [kinds]map[string]*addressLog
	all    chunked[*addressLog] // in no order, for walks in pieces
	topics keptTree
	bytes  int64  // what all that is kept costs in memory
	front  uint64 // before this place nothing is kept

	// The logs by when they were published to last.
	oldest, latest *addressLog

	// What was trimmed must be known for ever, or "complete" could not be proved. A log remembers
	// its own newest trimmed message; when the whole log goes, the mark goes into this table.
	forgotten forgotten
	floor     Position // the newest mark of a topic in forgotten
	lostAll   Position // up to here anything may be missing
	trims     uint64   // grows with every mark

	// pin is the place from which on nothing is trimmed, because a client that is catching up, and could
	// be written to, has not read it. What is over the limits meanwhile is the excess.
	pin         uint64
	overdue     []*addressLog // that have excess
	excess      int           // messages
	excessBytes int64

	noteDropped bool       // somebody asks for dropped
	dropped     []*Message // what no log holds any more
	// came and gone are told when an address has its first kept message, and when it has lost its last.
	came, gone func(Address)
}

// addressLog holds the kept messages of one address, oldest first.
type addressLog struct {
	address   Address
	frames    []*Frame
	trimmed   Position // the newest message this address no longer has
	directory *directory
	excess    int // how many of the oldest are over the limits, and pinned
	slot      int // in history.all
	queued    bool

	older, newer *addressLog // neighbors by when they were published to last
}

// What a kept message and a log cost besides its bytes and its names: structs, references, and places in maps.
const (
	frameCost = 128
	logCost   = 208
)

const unpinned = math.MaxUint64

func newHistory(limits HistoryLimits, frames *sequence, most *measures) *history {
	h := &history{limits: limits, frames: frames, most: most, front: frames.next, pin: unpinned}
	h.came, h.gone = func(Address) {}, func(Address) {}
	for i := range h.logs {
		h.logs[i] = make(map[string]*addressLog)
	}
	return h
}

func costOf(f *Frame) int64 {
	return frameCost + int64(len(f.chunk)) + int64(len(f.chunk))/16 + int64(len(f.key))
}

func costOfLog(a Address) int64 { return logCost + int64(len(a.Name)) }

func (h *history) log(a Address) *addressLog { return h.logs[a.Kind][a.Name] }

func (l *addressLog) newest() uint64 {
	if n := len(l.frames); n > 0 {
		return l.frames[n-1].seq
	}
	return 0
}

// append keeps a frame, which stands in the sequence, at its addresses, and trims what is over the limits.
func (h *history) append(f *Frame, to []Address, now time.Time) {
	if h.limits.Count == 0 && h.pin == unpinned {
		f.to = ownAddress(to[0])
		f.also = ownAddresses(to[1:])
		f.addresses(func(a *Address) { h.forget(*a, f.position) })
		h.noteDrop(f)
		return
	}
	h.bytes += costOf(f)
	for i, a := range to {
		l := h.keep(f, a)
		if i == 0 {
			f.to = &l.address
			if len(to) > 1 {
				f.also = new([]*Address)
			}
		} else {
			*f.also = append(*f.also, &l.address)
		}
		h.trimUpTo(l, max(2, maxStep/len(to)), now) // more than comes in, so in the end all that is over
	}
	h.trimBytes()
}

// ownAddress copies an address: as it came it may be a part of a request, of which nothing is to be kept.
func ownAddress(a Address) *Address { return &Address{a.Kind, strings.Clone(a.Name)} }

func ownAddresses(all []Address) *[]*Address {
	if len(all) == 0 {
		return nil
	}
	own := make([]*Address, len(all))
	for i, a := range all {
		own[i] = ownAddress(a)
	}
	return &own
}

// keep enters a frame in the log of an address, which is made unless it is there.
func (h *history) keep(f *Frame, a Address) *addressLog {
	l := h.log(a)
	if l == nil {
		l = &addressLog{address: *ownAddress(a), trimmed: h.forgotten.of(a), slot: h.all.n}
		h.logs[a.Kind][l.address.Name] = l
		h.all.push(l)
		h.bytes += costOfLog(a)
		if a.Kind == ToTopic {
			h.topics.add(l)
			l.directory.lost(l.trimmed)
		}
		h.came(l.address)
	} else {
		h.unlink(l)
		if n := len(l.frames); n > 0 && l.frames[n-1] == f { // a topic named twice
			h.link(l)
			return l
		}
	}
	h.link(l)
	l.frames = append(l.frames, f)
	f.kept++
	l.directory.published(f.seq)
	return l
}

// link makes a log the one that was published to last.
func (h *history) link(l *addressLog) {
	l.older, l.newer = h.latest, nil
	if h.latest != nil {
		h.latest.newer = l
	} else {
		h.oldest = l
	}
	h.latest = l
}

func (h *history) unlink(l *addressLog) {
	if l.older != nil {
		l.older.newer = l.newer
	} else {
		h.oldest = l.newer
	}
	if l.newer != nil {
		l.newer.older = l.older
	} else {
		h.latest = l.older
	}
}

// trim drops what one log has over the count and age limits: at most maxStep messages at a time. It returns how many
// it has dropped.
func (h *history) trim(l *addressLog, now time.Time) (dropped int) {
	return h.trimUpTo(l, maxStep, now)
}

// trimUpTo is trim that drops at most so many.
func (h *history) trimUpTo(l *addressLog, atMost int, now time.Time) (dropped int) {
	over := max(0, len(l.frames)-h.limits.Count)
	if h.limits.Age > 0 {
		oldest := now.Add(-h.limits.Age).UnixNano()
		for most := min(len(l.frames), over+atMost); over < most && l.frames[over].time < oldest; {
			over++
		}
	}
	if over == 0 {
		return 0
	}
	return h.dropUnpinned(l, over, atMost)
}

// trimBytes drops what is over the limit of bytes, but for at most so many messages that it is a step of its own.
func (h *history) trimBytes() (done bool) {
	for range maxStep {
		if h.limits.Bytes == 0 || h.bytes <= h.limits.Bytes || h.oldest == nil {
			return true
		}
		if h.oldest.frames[0].seq >= h.pin {
			return true // until the pin is gone
		}
		h.drop(h.oldest, 1)
	}
	return false
}

// maxStep is how many messages, or logs, one step under the hub's lock goes through.
const maxStep = 256

// trimOld drops what is too old, of all logs. It reports whether that is done.
func (h *history) trimOld(now time.Time) (done bool) {
	if h.limits.Age == 0 {
		return true
	}
	oldest := now.Add(-h.limits.Age).UnixNano()
	for dropped := 0; dropped < maxStep; {
		f := h.firstKept()
		if f == nil || f.time >= oldest || f.seq >= h.pin {
			return true
		}
		f.addresses(func(a *Address) {
			if l := h.log(*a); l != nil && len(l.frames) > 0 && l.frames[0] == f {
				h.drop(l, 1)
				dropped++
			}
		})
	}
	return false
}

// firstKept returns the oldest message that some log holds; nil if there is none. It is the first of each of them.
func (h *history) firstKept() *Frame {
	q := h.frames
	for i := max(0, q.find(h.front)); i < len(q.blocks); i++ {
		b := q.blocks[i]
		for n := b.index(h.front); n < len(b.frames); n++ {
			if f := b.frames[n]; f != nil && f.kept > 0 {
				h.front = f.seq
				return f
			}
		}
	}
	h.front = q.next
	return nil
}

// dropUnpinned drops the oldest messages of a log, at most so many, unless they are pinned. It returns how many.
func (h *history) dropUnpinned(l *addressLog, over, atMost int) (dropped int) {
	free := over
	if h.pin != unpinned {
		free = min(over, l.search(h.pin))
	}
	if dropped = min(free, atMost); dropped > 0 {
		h.drop(l, dropped)
	}
	if free > dropped {
		return dropped
	}
	for most := min(over-free, l.excess+atMost); l.excess < most; l.excess++ {
		h.excess++
		h.excessBytes += int64(l.frames[l.excess].size())
	}
	if l.excess > 0 && !l.queued {
		l.queued = true
		h.overdue = append(h.overdue, l)
	}
	return dropped
}

// trimOverdue drops what was pinned. It reports whether that is done.
func (h *history) trimOverdue(now time.Time) (done bool) {
	for steps := maxStep; steps > 0 && len(h.overdue) > 0; steps-- {
		l := h.overdue[0]
		h.overdue = h.overdue[1:]
		l.queued = false
		if len(l.frames) == 0 {
			continue
		}
		dropped := h.trim(l, now)
		if steps -= dropped; dropped == maxStep && len(l.frames) > 0 && !l.queued { // there may be more
			l.queued = true
			h.overdue = append(h.overdue, l)
		}
	}
	return len(h.overdue) == 0 || h.pin != unpinned
}

// drop removes the n oldest messages of a log, and the log with its last message.
func (h *history) drop(l *addressLog, n int) {
	for i, f := range l.frames[:n] {
		if l.excess > 0 {
			l.excess--
			h.excess--
			h.excessBytes -= int64(f.size())
		}
		if f.kept--; f.kept == 0 {
			h.bytes -= costOf(f)
			h.noteDrop(f)
			if f.seq < h.frames.ring {
				h.frames.release(f)
			}
		}
		if f.position.After(l.trimmed) {
			l.trimmed = f.position
		}
		l.frames[i] = nil
	}
	h.trims++
	l.directory.lost(l.trimmed)
	if l.frames = l.frames[n:]; len(l.frames) > 0 {
		return
	}
	h.unlink(l)
	delete(h.logs[l.address.Kind], l.address.Name)
	moved := *h.all.at(h.all.n - 1)
	*h.all.at(l.slot), moved.slot = moved, l.slot
	h.all.popLast()
	h.bytes -= costOfLog(l.address)
	if l.directory != nil {
		h.topics.remove(l)
	}
	h.forget(l.address, l.trimmed)
	h.gone(l.address)
}

func (h *history) noteDrop(f *Frame) {
	if !h.noteDropped {
		return
	}
	m := &Message{Position: f.position}
	f.addresses(func(a *Address) { m.To = append(m.To, *a) })
	h.dropped = append(h.dropped, m)
}

// forget notes that an address once had a message at p and has it no more. If it has newer ones, its log tells.
func (h *history) forget(a Address, p Position) {
	h.trims++
	if l := h.log(a); l != nil {
		if p.After(l.trimmed) {
			l.trimmed = p
			l.directory.lost(p)
		}
	}
	if !h.onlyMarked(a, p) {
		return
	}
	h.forgotten.mark(a, p)
	if a.Kind == ToTopic && p.After(h.floor) {
		h.floor = p
	}
}

// onlyMarked reports whether an address has nothing newer than p that is kept, whose log would tell of p.
func (h *history) onlyMarked(a Address, p Position) bool {
	l := h.log(a)
	return l == nil || p.After(l.frames[len(l.frames)-1].position)
}

// forgetAll notes that anything up to p may be missing, whatever its address.
func (h *history) forgetAll(p Position) {
	h.trims++
	if p.After(h.lostAll) {
		h.lostAll = p
	}
	if p.After(h.floor) {
		h.floor = p
	}
}

// maxSearch is how many steps a search by patterns takes under the hub's lock.
const maxSearch = 1000

// lost returns the newest position at which a message for one of these addresses or patterns may
// have stood that is no longer kept, if it is after p; else p. In doubt one did.
func (h *history) lost(addresses []Address, patterns []string, p Position) Position {
	latest := func(q Position) {
		if q.After(p) {
			p = q
		}
	}
	latest(h.lostAll)
	for _, a := range addresses {
		if l := h.log(a); l != nil {
			latest(l.trimmed)
		} else {
			latest(h.forgotten.of(a))
		}
	}
	if len(patterns) > 0 {
		latest(h.floor)
		steps := 2 * maxSearch // which are short
		for _, pattern := range patterns {
			p = h.topics.root.lostTo(pattern, p, &steps)
		}
	}
	return p
}

// search returns the index of the first frame at or after a place.
func (l *addressLog) search(seq uint64) int {
	return sort.Search(len(l.frames), func(i int) bool { return l.frames[i].seq >= seq })
}
