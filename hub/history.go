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
	usual  Retention // of limits: for addresses without a policy of their own
	rules  *policies // of topics
	frames *sequence
	most   *measures
	logs   [kinds]map[string]*addressLog
	all    chunked[*addressLog] // in no order, for walks in pieces
	trees  [kinds]keptTree      // of topics, by the kind of their addresses
	bytes  int64                // what all that is kept costs in memory
	aging  aging                // the logs whose messages have a maximum age

	// The logs by when they were published to last. Those that keep the newest message of each key stay out of the
	// way of the others, however much the others keep.
	order, latestOrder logOrder

	// What was trimmed must be known for ever, or "complete" could not be proved. A log remembers
	// its own newest trimmed message; when the whole log goes, the mark goes into this table.
	forgotten forgotten
	floors    [kinds]Position // the newest mark in forgotten, by kind; of topics only
	lostAll   Position        // up to here anything may be missing
	trims     uint64          // grows with every mark

	// pin is the place from which on nothing is trimmed, because a client that is catching up, and could
	// be written to, has not read it. What is over the limits meanwhile is the excess.
	pin         uint64
	overdue     []*addressLog // that have excess
	excess      int           // messages
	excessBytes int64

	partly      int               // how many frames some of their logs hold no more, and others do
	noteDropped bool              // somebody asks for dropped
	dropped     chunked[*Message] // what no log holds any more

	noteReleased bool           // somebody asks for released
	released     chunked[Value] // that are not kept any more, though nothing has replaced them
	// came and gone are told when an address has its first kept message, and when it has lost its last.
	came, gone func(Address)
}

// addressLog holds the kept messages of one address, oldest first.
type addressLog struct {
	address   Address
	policy    *Policy // nil if there is none for the topic
	frames    []*Frame
	values    *values           // set if only the newest message of each key is kept
	keys      map[string]*Frame // the newest message of each key; nil while none has had a key
	last      uint64            // the place of the newest message it has had
	trimmed   Position          // the newest message this address no longer has
	directory *directory
	excess    int // how many of the oldest are over the limits, and pinned
	slot      int // in history.all
	queued    bool

	due       int64 // when to look for messages that are too old, in nanoseconds since 1970; 0 for never
	agingSlot int

	older, newer *addressLog // neighbors by when they were published to last
}

// What a kept message and a log cost besides its bytes and its names: structs, references, and places in maps.
const (
	frameCost  = 128
	keyCost    = 48
	chosenCost = 128
	logCost    = 256
)

const unpinned = math.MaxUint64

func newHistory(limits HistoryLimits, frames *sequence, most *measures) *history {
	h := &history{frames: frames, most: most, pin: unpinned}
	h.setLimits(limits, newPolicies(nil))
	h.came, h.gone = func(Address) {}, func(Address) {}
	for i := range h.logs {
		h.logs[i] = make(map[string]*addressLog)
	}
	return h
}

func costOf(f *Frame) int64 {
	cost := frameCost + int64(len(f.chunk)) + int64(len(f.chunk))/16
	if f.key != "" {
		cost += keyCost + int64(len(f.key))
	}
	if f.more != nil {
		cost += int64(len(f.more.data))
		if f.more.chosen != "" {
			cost += chosenCost + int64(len(f.more.chosen))
		}
	}
	return cost
}

func costOfLog(a Address) int64 { return logCost + int64(len(a.Name)) }

// setLimits makes other limits hold for logs to come, and for all others once they are visited.
func (h *history) setLimits(limits HistoryLimits, rules *policies) {
	h.limits, h.rules = limits, rules
	h.usual = Retention{Count: limits.Count, Age: limits.Age}
}

// policy returns the policy of an address; nil if there is none.
func (h *history) policy(a Address) *Policy {
	if a.Kind != ToTopic {
		return nil
	}
	return h.rules.of(a.Name)
}

// retention returns what a log keeps.
func (h *history) retention(l *addressLog) *Retention { return h.retentionBy(l.policy) }

func (h *history) retentionBy(p *Policy) *Retention {
	if p != nil && p.History != nil {
		return p.History
	}
	return &h.usual
}

// keepsNothing reports whether nothing is kept at any of the addresses.
func (h *history) keepsNothing(to []Address) bool {
	if h.usual.Count > 0 && len(h.rules.list) == 0 {
		return false
	}
	for _, a := range to {
		l := h.log(a)
		if l != nil && h.retention(l).some() || l == nil && h.retentionBy(h.policy(a)).some() {
			return false
		}
	}
	return true
}

func (h *history) log(a Address) *addressLog { return h.logs[a.Kind][a.Name] }

// append keeps a frame, which stands in the sequence, at its addresses, and trims what is over the limits.
func (h *history) append(f *Frame, to []Address, now time.Time) {
	if h.pin == unpinned && h.keepsNothing(to) {
		f.to = ownAddress(to[0])
		f.addressToo(ownAddresses(to[1:])...)
		f.addresses(func(a *Address) { h.forget(*a, f.had()) })
		h.noteDrop(f)
		return
	}
	h.bytes += costOf(f)
	for i, a := range to {
		l := h.keep(f, a)
		if i == 0 {
			f.to = &l.address
		} else {
			f.addressToo(&l.address)
		}
		h.trimUpTo(l, max(2, maxStep/len(to)), now) // more than comes in, so in the end all that is over
	}
	h.trimBytes()
}

// ownAddress copies an address: as it came it may be a part of a request, of which nothing is to be kept.
func ownAddress(a Address) *Address { return &Address{a.Kind, strings.Clone(a.Name)} }

func ownAddresses(all []Address) (own []*Address) {
	for _, a := range all {
		own = append(own, ownAddress(a))
	}
	return own
}

// keep enters a frame in the log of an address, which is made unless it is there.
func (h *history) keep(f *Frame, a Address) *addressLog {
	l := h.log(a)
	if l == nil {
		l = &addressLog{address: *ownAddress(a), policy: h.policy(a), trimmed: h.forgotten.of(a), slot: h.all.n}
		if h.retention(l).Latest {
			l.values = new(values)
		}
		h.logs[a.Kind][l.address.Name] = l
		h.all.push(l)
		h.bytes += costOfLog(a)
		if a.isTopic() {
			h.trees[a.Kind].add(l)
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
	l.noteKey(f)
	l.last = f.seq
	f.kept++
	if l.values == nil {
		l.frames = append(l.frames, f)
	} else {
		h.appendLatest(l, f)
	}
	if len(l.frames) == 1 {
		h.age(l)
	}
	l.directory.published(f.seq)
	return l
}

// logOrder is logs by when they were published to last.
type logOrder struct{ oldest, latest *addressLog }

func (h *history) orderOf(l *addressLog) *logOrder {
	if l.values != nil {
		return &h.latestOrder
	}
	return &h.order
}

// link makes a log the one that was published to last.
func (h *history) link(l *addressLog) {
	o := h.orderOf(l)
	l.older, l.newer = o.latest, nil
	if o.latest != nil {
		o.latest.newer = l
	} else {
		o.oldest = l
	}
	o.latest = l
}

func (h *history) unlink(l *addressLog) {
	o := h.orderOf(l)
	if l.older != nil {
		l.older.newer = l.newer
	} else {
		o.oldest = l.newer
	}
	if l.newer != nil {
		l.newer.older = l.older
	} else {
		o.latest = l.older
	}
}

// trim drops what one log has over its limits of count and age: at most maxStep messages at a time. It returns how
// many it has dropped, or looked at.
func (h *history) trim(l *addressLog, now time.Time) (dropped int) {
	if l.values != nil {
		dropped = h.trimLatest(l, maxStep)
	}
	return dropped + h.trimUpTo(l, maxStep-dropped, now)
}

// trimUpTo is trim that drops at most so many.
func (h *history) trimUpTo(l *addressLog, atMost int, now time.Time) (dropped int) {
	keep, over := h.retention(l), 0
	if l.values == nil {
		over = max(0, len(l.frames)-keep.Count)
	}
	if keep.Age > 0 {
		oldest := now.Add(-keep.Age).UnixNano()
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
		if h.limits.Bytes == 0 || h.bytes <= h.limits.Bytes {
			return true
		}
		l := h.order.oldest
		if l == nil || l.frames[0].seq >= h.pin {
			l = h.latestOrder.oldest
		}
		if l == nil || l.frames[0].seq >= h.pin {
			return true // until the pin is gone
		}
		h.drop(l, 1)
	}
	return false
}

// maxStep is how many messages, or logs, one step under the hub's lock goes through.
const maxStep = 256

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
	if l.values == nil { // else excess is what newer messages have replaced
		for most := min(over-free, l.excess+atMost); l.excess < most; l.excess++ {
			h.excess++
			h.excessBytes += int64(l.frames[l.excess].size())
		}
	}
	h.queue(l)
	return dropped
}

// queue has a log trimmed once nothing is pinned.
func (h *history) queue(l *addressLog) {
	if !l.queued {
		l.queued = true
		h.overdue = append(h.overdue, l)
	}
}

// unexcess no longer counts a message as excess.
func (h *history) unexcess(f *Frame) {
	h.excess--
	h.excessBytes -= int64(f.size())
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
	if l.values != nil {
		h.forgetKeys(l, n)
	}
	for i, f := range l.frames[:n] {
		if l.excess > 0 {
			l.excess--
			h.unexcess(f)
		}
		l.forgetKey(f)
		if !f.gaveWay() {
			l.lost(f)
		}
		h.letGo(f)
		l.frames[i] = nil
	}
	l.frames = l.frames[n:]
	h.haveLost(l)
}

// haveLost notes what a log has lost, and removes it if nothing is left of it.
func (h *history) haveLost(l *addressLog) {
	h.trims++
	l.directory.lost(l.trimmed)
	if len(l.frames) > 0 {
		return
	}
	h.unlink(l)
	h.ageNot(l)
	delete(h.logs[l.address.Kind], l.address.Name)
	moved := *h.all.at(h.all.n - 1)
	*h.all.at(l.slot), moved.slot = moved, l.slot
	h.all.popLast()
	h.bytes -= costOfLog(l.address)
	if l.directory != nil {
		h.trees[l.address.Kind].remove(l)
	}
	h.forget(l.address, l.trimmed)
	h.gone(l.address)
}

// letGo notes that a log holds a frame no longer.
func (h *history) letGo(f *Frame) {
	if f.kept--; f.kept > 0 != f.partly {
		if f.partly = !f.partly; f.partly {
			h.partly++
		} else {
			h.partly--
		}
	}
	if f.kept == 0 {
		h.bytes -= costOf(f)
		h.noteDrop(f)
		if f.seq < h.frames.ring {
			h.frames.release(f)
		}
	}
}

// noteDrop notes that no log holds a frame any more, with the addresses at which that is a loss.
func (h *history) noteDrop(f *Frame) {
	if !h.noteDropped {
		return
	}
	m := &Message{Position: f.publishedAt(), Had: f.had()}
	f.addresses(func(a *Address) {
		if l := h.log(*a); l == nil || !m.Had.After(l.trimmed) { // else a newer message has taken its place
			m.To = append(m.To, *a)
		}
	})
	h.dropped.push(m)
}

// search returns the index of the first frame at or after a place.
func (l *addressLog) search(seq uint64) int {
	return sort.Search(len(l.frames), func(i int) bool { return l.frames[i].seq >= seq })
}
