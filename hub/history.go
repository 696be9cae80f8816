package hub

import (
	"container/heap"
	"container/list"
	"hash/maphash"
	"sort"
	"time"

	"github.com/caddy-sse/caddy-sse/topic"
)

// HistoryLimits bounds what a hub keeps for clients that come back.
type HistoryLimits struct {
	// Count is how many messages are kept per address; 0 keeps nothing.
	Count int
	// Age is how long a message is kept; 0 means without limit.
	Age time.Duration
	// Bytes bounds the frames kept in all; the addresses published to longest ago give way first.
	// 0 means without limit.
	Bytes int64
}

// history keeps the end of the log, per address, and knows of everything it no longer has. It is
// guarded by Hub.mu and knows nothing of clients.
type history struct {
	limits HistoryLimits
	logs   map[Address]*addressLog
	recent *list.List // of *addressLog, the one published to last at the back
	bytes  int64      // of every message that some log holds, counted once

	// What was trimmed must be known for ever, or "complete" could not be proved. A log remembers
	// its own newest trimmed message; when the whole log goes, the mark goes into this table by hash
	// of the address. A collision can turn "complete" into "gap", never the other way round.
	forgotten [1 << 13]Position
	floor     Position // the newest mark of a topic in forgotten

	noteDropped bool       // somebody asks for dropped
	dropped     []*Message // what no log holds any more
}

// addressLog holds the kept messages of one address, oldest first.
type addressLog struct {
	address  Address
	messages []*Message
	trimmed  Position // the newest message this address no longer has
	element  *list.Element
}

var forgottenSeed = maphash.MakeSeed()

func newHistory(limits HistoryLimits) *history {
	return &history{limits: limits, logs: make(map[Address]*addressLog), recent: list.New()}
}

// append keeps m at each of its addresses and trims what is over the limits.
func (h *history) append(m *Message, now time.Time) {
	if h.limits.Count == 0 {
		for _, to := range m.To {
			h.forget(to, m.Position)
		}
		h.noteDrop(m)
		return
	}
	for _, to := range m.To {
		l := h.logs[to]
		if l == nil {
			l = &addressLog{address: to, trimmed: h.forgotten[slot(to)]}
			l.element = h.recent.PushBack(l)
			h.logs[to] = l
		} else {
			h.recent.MoveToBack(l.element)
		}
		if n := len(l.messages); n > 0 && l.messages[n-1] == m {
			continue // a topic named twice
		}
		l.messages = append(l.messages, m)
		if m.kept++; m.kept == 1 {
			h.bytes += int64(m.size())
		}
		h.trim(l, now)
	}
	for h.limits.Bytes > 0 && h.bytes > h.limits.Bytes {
		h.drop(h.recent.Front().Value.(*addressLog), 1)
	}
}

// setLimits applies other limits to what is kept already.
func (h *history) setLimits(limits HistoryLimits, now time.Time) {
	h.limits = limits
	h.sweep(now)
	for limits.Bytes > 0 && h.bytes > limits.Bytes {
		h.drop(h.recent.Front().Value.(*addressLog), 1)
	}
}

// sweep trims every log, so that silent addresses age too.
func (h *history) sweep(now time.Time) {
	for _, l := range h.logs {
		h.trim(l, now)
	}
}

// trim drops what one log has over the count and age limits.
func (h *history) trim(l *addressLog, now time.Time) {
	over := max(0, len(l.messages)-h.limits.Count)
	if h.limits.Age > 0 {
		oldest := now.Add(-h.limits.Age)
		for over < len(l.messages) && l.messages[over].Time.Before(oldest) {
			over++
		}
	}
	if over > 0 {
		h.drop(l, over)
	}
}

// drop removes the n oldest messages of a log, and the log with its last message.
func (h *history) drop(l *addressLog, n int) {
	for i, m := range l.messages[:n] {
		if m.kept--; m.kept == 0 {
			h.bytes -= int64(m.size())
			h.noteDrop(m)
		}
		if m.Position.After(l.trimmed) { // it is not where forgetAll came by
			l.trimmed = m.Position
		}
		l.messages[i] = nil
	}
	l.messages = l.messages[n:]
	if len(l.messages) == 0 {
		h.recent.Remove(l.element)
		delete(h.logs, l.address)
		h.forget(l.address, l.trimmed)
	}
}

func (h *history) noteDrop(m *Message) {
	if h.noteDropped {
		h.dropped = append(h.dropped, m)
	}
}

// forget notes that an address once had a message at p and has it no more. If it has newer ones, its log tells.
func (h *history) forget(a Address, p Position) {
	if l := h.logs[a]; l != nil {
		if p.After(l.trimmed) {
			l.trimmed = p
		}
		if !p.After(l.messages[len(l.messages)-1].Position) {
			return
		}
	}
	if mark := &h.forgotten[slot(a)]; p.After(*mark) {
		*mark = p
	}
	if a.Kind == ToTopic && p.After(h.floor) {
		h.floor = p
	}
}

// forgetAll notes that anything up to p may be missing, whatever its address.
func (h *history) forgetAll(p Position) {
	for i := range h.forgotten {
		h.forgotten[i] = p
	}
	h.floor = p
	for _, l := range h.logs {
		l.trimmed = p
	}
}

func slot(a Address) int {
	return int(maphash.Comparable(forgottenSeed, a) % uint64(len(history{}.forgotten)))
}

// lost returns the newest position at which a message for one of these addresses or patterns may
// have stood that is no longer kept, if it is after p. In doubt one did.
func (h *history) lost(addresses []Address, patterns []string, p Position) (lost Position) {
	latest := func(p Position) {
		if p.After(lost) {
			lost = p
		}
	}
	for _, a := range addresses {
		if l := h.logs[a]; l != nil {
			latest(l.trimmed)
		} else {
			latest(h.forgotten[slot(a)])
		}
	}
	if len(patterns) > 0 {
		latest(h.floor)
		for _, l := range h.matching(patterns, p) {
			latest(l.trimmed)
		}
	}
	return lost
}

// matching returns the logs of all topics within one of the patterns that were published to after p.
func (h *history) matching(patterns []string, p Position) (logs []*addressLog) {
	if len(patterns) == 0 {
		return nil
	}
	for e := h.recent.Back(); e != nil; e = e.Prev() {
		l := e.Value.(*addressLog)
		if !l.messages[len(l.messages)-1].Position.After(p) {
			break // and none before it is
		}
		if l.address.Kind == ToTopic && topic.Covered(patterns, l.address.Name) {
			logs = append(logs, l)
		}
	}
	return logs
}

// logsOf returns the logs of the addresses and patterns that may have something after p, trimmed as of
// now.
func (h *history) logsOf(addresses []Address, patterns []string, p Position, now time.Time) []*addressLog {
	logs := h.matching(patterns, p)
	for _, a := range addresses {
		if l := h.logs[a]; l != nil {
			logs = append(logs, l)
		}
	}
	for _, l := range logs {
		h.trim(l, now)
	}
	return logs
}

// after returns the kept messages of the logs that stand after p, each once and in the log's order:
// at most limit messages and, beyond the first, at most bytes. more tells that there are others.
func after(logs []*addressLog, p Position, limit, bytes int) (messages []*Message, more bool) {
	var rest mergeForward
	for _, l := range logs {
		if i := l.search(p); i < len(l.messages) {
			rest.merge = append(rest.merge, l.messages[i:])
		}
	}
	heap.Init(&rest)
	for len(rest.merge) > 0 {
		m := rest.merge[0][0]
		if n := len(messages); n > 0 && messages[n-1] == m {
			rest.advance()
			continue
		}
		if len(messages) > 0 && (len(messages) >= limit || m.size() > bytes) {
			return messages, true
		}
		bytes -= m.size()
		messages = append(messages, m)
		rest.advance()
	}
	return messages, false
}

// newest returns the position before the limit newest messages of the logs, or before the oldest
// kept one where there are fewer; ok is false where there is none.
func newest(logs []*addressLog, limit int) (before Position, ok bool) {
	var rest mergeBackward
	for _, l := range logs {
		if len(l.messages) > 0 {
			rest.merge = append(rest.merge, l.messages)
		}
	}
	heap.Init(&rest)
	var oldest *Message
	for distinct := 0; len(rest.merge) > 0; rest.advance() {
		m := rest.last(0)
		if m == oldest {
			continue
		}
		if distinct == limit {
			break
		}
		oldest = m
		distinct++
	}
	if oldest == nil {
		return Position{}, false
	}
	return oldest.previous, true
}

// search returns the index of the first message after p.
func (l *addressLog) search(p Position) int {
	return sort.Search(len(l.messages), func(i int) bool { return l.messages[i].Position.After(p) })
}

// merge is runs of messages, each in order, that a heap merges into one: on top is the run that goes next.
type merge [][]*Message

func (r merge) Len() int      { return len(r) }
func (r merge) Swap(i, j int) { r[i], r[j] = r[j], r[i] }
func (r *merge) Push(x any)   { *r = append(*r, x.([]*Message)) }
func (r *merge) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

// shorten puts what is left of the run on top in its place.
func (r *merge) shorten(order heap.Interface, rest []*Message) {
	if (*r)[0] = rest; len(rest) > 0 {
		heap.Fix(order, 0)
	} else {
		heap.Pop(order)
	}
}

// mergeForward merges runs from their beginnings.
type mergeForward struct{ merge }

func (f mergeForward) Less(i, j int) bool {
	return f.merge[j][0].Position.After(f.merge[i][0].Position)
}

// advance goes past the first message of the run on top.
func (f *mergeForward) advance() { f.shorten(f, f.merge[0][1:]) }

// mergeBackward merges runs from their ends.
type mergeBackward struct{ merge }

func (b mergeBackward) Less(i, j int) bool { return b.last(i).Position.After(b.last(j).Position) }

func (b mergeBackward) last(i int) *Message { return b.merge[i][len(b.merge[i])-1] }

// advance goes past the last message of the run on top.
func (b *mergeBackward) advance() { b.shorten(b, b.merge[0][:len(b.merge[0])-1]) }
