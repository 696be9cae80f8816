package hub

import (
	"cmp"
	"container/heap"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A policy may have at most one message of a topic and key leave the hub in an interval. The first leaves at
// once. The newest of those that follow is held until the interval ends, which begins the next one.
//
// What is held is nowhere in the log in memory: nobody gets it, late or live, by since or by a poll, so that
// all see the same value. When it leaves, it is appended like any message, under the position that the log
// has reached by then. From there on all that holds for messages holds for it: who is behind reads it,
// history keeps it, a newer one takes its place. Whoever comes back with the ID of that position may or may
// not have had it, so it comes once more.
//
// When a message leaves is a matter of the log's clock as well: at the end of an interval, or before the
// first message that the log took later. So instances of one log agree on the positions, and a hub that reads
// its log again finds one that is not too early: it holds each value as long as it could have been held.

// value is what a message is the value of. What is ephemeral does not replace what is kept.
type value struct {
	topic, key string
	ephemeral  bool
}

// holding is a value whose interval runs.
type holding struct {
	value
	every  time.Duration
	ends   int64  // the interval, by the log's clock, in nanoseconds since 1970
	due    moment // the same by this machine's
	slot   int    // in holdings.order
	waits  bool   // a message is held, which is what follows
	draft  draft
	at     Position
	time   int64
	traits traits
	reach  int // how many clients it was addressed to
}

// holdings are all values whose intervals run. They are guarded by Hub.mu.
type holdings struct {
	byValue map[value]*holding
	order   holdingOrder
	timer   *time.Timer
	timerAt moment
	clock   int64    // the newest end of an interval at which something has left
	nth     int      // how many have left at that position since the clock stood there
	shown   Position // where the last one left
	bytes   int64    // of what is held
}

const (
	// ticks is into how many parts an interval is cut: intervals end together, so that clients get what they end
	// with in one write.
	ticks = 4
	// maxHoldings is how many intervals run at most. Beyond that the one ends that is the first to end.
	maxHoldings = 1 << 17
	// lagGrace is how long a log that others follow may take to hand over what it took before an interval ended.
	lagGrace = 25 * time.Millisecond
	// restoredGrace is by how much later than at the end of its interval a message may have left in a life
	// before.
	restoredGrace = time.Second
)

// backdated is what a frame has that has left later than it was published.
type backdated struct {
	published Position // where it was published
	behind    Position // the first position at which who has it has had the frame
	reached   Position // the position of who has had the frame and nothing behind it
	left      leaving
}

// leaving tells apart what has left at one position.
type leaving struct {
	clock int64
	nth   int
}

func (l leaving) after(other leaving) bool {
	return cmp.Or(cmp.Compare(l.clock, other.clock), cmp.Compare(l.nth, other.nth)) > 0
}

// isBackdated reports whether a frame has left later than it was published.
func (f *Frame) isBackdated() bool { return f.more != nil && f.more.backdated != nil }

// publishedAt returns where the broker's log has the frame's message.
func (f *Frame) publishedAt() Position {
	if f.isBackdated() {
		return f.more.published
	}
	return f.position
}

// had returns the first position at which who has it has had the frame.
func (f *Frame) had() Position {
	if f.isBackdated() {
		return f.more.behind
	}
	return f.position
}

// reached returns the position of who has had the frame and nothing behind it.
func (f *Frame) reached() Position {
	if f.isBackdated() {
		return f.more.reached
	}
	return f.position
}

// holdLocked holds a message whose value's interval runs, or else begins the interval. It reports whether the
// message is held.
func (h *Hub) holdLocked(m *Message, traits traits, now time.Time) bool {
	if h.ended != nil {
		return false
	}
	every, at := m.draft.every, m.Time.UnixNano()
	v := value{m.To[0].Name, m.Key, m.Ephemeral}
	k := h.holdings.byValue[v]
	again := traits.is(restored)
	switch {
	case k == nil:
		v.topic, v.key = strings.Clone(v.topic), m.draft.frame.key
		k = &holding{value: v, every: every}
		h.beginLocked(k, at, again, now)
		if !again {
			return false
		}
	case again:
		h.endLocked(k)
		h.beginLocked(k, at, again, now)
	}
	h.replaceHeldLocked(m)
	k.waits, k.draft, k.at, k.time, k.traits = true, m.draft, m.Position, at, traits
	if k.reach = 0; !again {
		k.reach, _ = h.audience.reached(m.To)
	}
	h.keepHeldLocked(int64(len(k.draft.b)) + frameCost)
	m.draft = draft{}
	return true
}

// keepHeldLocked counts what is held, and ends intervals before their time if that is too much.
func (h *Hub) keepHeldLocked(bytes int64) {
	held := &h.holdings
	held.bytes += bytes
	h.history.bytes += bytes
	for most := h.limits.History.Bytes; most > 0 && held.bytes > most/2; {
		h.endFirstLocked(time.Now())
	}
}

// beginLocked begins an interval for a value with a message that the log took at a time. What was restored
// may have been held as long as anything could be.
func (h *Hub) beginLocked(k *holding, at int64, again bool, now time.Time) {
	tick := max(1, int64(k.every)/ticks)
	k.ends = at + int64(k.every)
	if rest := k.ends % tick; rest != 0 {
		k.ends += tick - rest
	}
	k.due = h.times.moment(now).after(time.Duration(k.ends - at))
	if h.shared {
		k.due = k.due.after(lagGrace)
	}
	if again {
		k.ends += tick + int64(restoredGrace)
		k.due = h.times.moment(time.Unix(0, k.ends))
	}
	held := &h.holdings
	for len(held.order) >= maxHoldings {
		h.endFirstLocked(now)
	}
	if held.byValue == nil {
		held.byValue = make(map[value]*holding)
	}
	held.byValue[k.value] = k
	heap.Push(&held.order, k)
	if !again {
		h.wakeForHeldLocked()
	}
}

// endLocked ends an interval. Nothing is held.
func (h *Hub) endLocked(k *holding) {
	heap.Remove(&h.holdings.order, k.slot)
	delete(h.holdings.byValue, k.value)
}

// endFirstLocked ends the interval that is the first to end, before its time.
func (h *Hub) endFirstLocked(now time.Time) {
	k := h.holdings.order[0]
	h.endLocked(k)
	if k.waits {
		h.leaveLocked(k, now)
	}
}

// dropHeldLocked drops what is held of a value, because a newer message has taken its place.
func (h *Hub) dropHeldLocked(k *holding) {
	if k == nil || !k.waits {
		return
	}
	h.stats.conflated.Add(uint64(k.reach))
	if !k.ephemeral && h.history.noteDropped {
		h.history.dropped.push(&Message{Position: k.at, Had: k.at})
	}
	h.takeHeldLocked(k)
}

// takeHeldLocked lets go of what is held of a value.
func (h *Hub) takeHeldLocked(k *holding) {
	bytes := int64(len(k.draft.b)) + frameCost
	h.holdings.bytes -= bytes
	h.history.bytes -= bytes
	k.waits, k.draft = false, draft{}
}

// replaceHeldLocked drops what is held of the values of a message that leaves now.
func (h *Hub) replaceHeldLocked(m *Message) {
	if len(h.holdings.byValue) == 0 {
		return
	}
	for _, to := range m.To {
		if to.Kind != ToTopic {
			continue
		}
		h.dropHeldLocked(h.holdings.byValue[value{to.Name, m.Key, true}])
		if !m.Ephemeral {
			h.dropHeldLocked(h.holdings.byValue[value{to.Name, m.Key, false}])
		}
	}
}

// leaveLocked has what is held of a value leave, at the log's present position.
func (h *Hub) leaveLocked(k *holding, now time.Time) {
	held := &h.holdings
	if k.ends > held.clock || h.last != held.shown {
		held.clock, held.shown, held.nth = max(k.ends, held.clock), h.last, 0
	}
	held.nth++
	behind := Position{h.last.Major, h.last.Minor + 1}
	reached := behind
	if h.given != nil { // there may be a message
		reached = h.last
	}
	f := k.draft.frame
	if f.more == nil {
		f.more = new(more)
	}
	f.more.backdated = &backdated{k.at, behind, reached, leaving{held.clock, held.nth}}
	f.time, f.traits = k.time, f.traits|k.traits
	f.position = h.last
	to, draft := []Address{{ToTopic, k.topic}}, k.draft
	h.takeHeldLocked(k)
	h.appendLocked(draft, to, h.last, now)
	if clients, counted := h.audience.reached(to); clients > 0 || !counted {
		h.heardLocked(f.seq)
	} else {
		f.traits |= unheard
	}
	h.wakeShards()
}

// leaveByLocked has what is held leave whose interval ends at or before a time of the log's clock: no more at
// once than makes a step. What is yet more is left to the timer.
func (h *Hub) leaveByLocked(t int64, now time.Time) {
	held := &h.holdings
	if len(held.order) == 0 {
		return
	}
	for _, k := range held.over(func(k *holding) bool { return k.ends <= t }) {
		h.nextLocked(k, t-k.ends, now)
	}
}

// over takes out the values whose intervals are over, in the order of what is held of them: no more than
// makes a step.
func (s *holdings) over(is func(*holding) bool) (all []*holding) {
	for len(all) < maxStep && len(s.order) > 0 && is(s.order[0]) {
		all = append(all, heap.Pop(&s.order).(*holding))
	}
	slices.SortFunc(all, func(a, b *holding) int { return a.at.Compare(b.at) })
	return all
}

// nextLocked ends an interval that was over some time ago. If something was held, it leaves, and another one
// begins.
func (h *Hub) nextLocked(k *holding, ago int64, now time.Time) {
	again := k.traits.is(restored)
	held := k.waits
	if held {
		h.leaveLocked(k, now)
	}
	if !held || again {
		delete(h.holdings.byValue, k.value)
		return
	}
	more := (ago/int64(k.every) + 1) * int64(k.every)
	k.ends += more
	k.due = k.due.after(time.Duration(more))
	heap.Push(&h.holdings.order, k)
}

// wakeForHeldLocked sets the timer to the end of the first interval.
func (h *Hub) wakeForHeldLocked() {
	held := &h.holdings
	if len(held.order) == 0 || h.ended != nil {
		return
	}
	switch due := held.order[0].due; {
	case due == held.timerAt:
	case held.timer == nil:
		held.timerAt = due
		held.timer = time.AfterFunc(due.since(h.times.now()), h.leaveDue)
	default:
		held.timerAt = due
		held.timer.Reset(due.since(h.times.now()))
	}
}

// leaveDue has all leave whose intervals are over.
func (h *Hub) leaveDue() {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := &h.holdings
	held.timerAt = 0
	for h.ended == nil {
		now := time.Now()
		at := h.times.moment(now)
		for _, k := range held.over(func(k *holding) bool { return k.due <= at }) {
			h.nextLocked(k, int64(at.since(k.due)), now)
		}
		if len(held.order) == 0 || held.order[0].due > at {
			break
		}
		h.pauseLocked()
	}
	h.wakeForHeldLocked()
}

// leaveAllLocked ends all intervals that run, in steps.
func (h *Hub) leaveAllLocked() {
	now, pauses := time.Now(), h.pausesLocked()
	for n := len(h.holdings.order); n > 0 && len(h.holdings.order) > 0; n-- {
		h.endFirstLocked(now)
		pauses.step()
	}
}

// leaveOfLocked has what is held of some topics and key leave, in steps. No key is all of them.
func (h *Hub) leaveOfLocked(to []Address, key string) {
	pauses := h.pausesLocked()
	all := make([]*holding, len(h.holdings.order))
	copy(all, h.holdings.order)
	for _, k := range all {
		for _, a := range to {
			if k.waits && a.Kind == ToTopic && a.Name == k.topic && (key == "" || k.key == key) {
				h.leaveLocked(k, time.Now())
			}
		}
		pauses.step()
	}
}

// isHeldLocked reports whether the message at a position is held.
func (h *Hub) isHeldLocked(v Value) bool {
	k := h.holdings.byValue[value{v.Topic, v.Key, false}]
	return k != nil && k.waits && k.at == v.Position
}

// holdingOrder is a heap of values: the one is first whose interval ends first.
type holdingOrder []*holding

func (o holdingOrder) Len() int { return len(o) }

func (o holdingOrder) Less(i, j int) bool { return o[i].due < o[j].due }

func (o holdingOrder) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].slot, o[j].slot = i, j
}

func (o *holdingOrder) Push(k any) {
	k.(*holding).slot = len(*o)
	*o = append(*o, k.(*holding))
}

func (o *holdingOrder) Pop() any {
	last := len(*o) - 1
	k := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	return k
}

// A poll goes on exactly where it was, also among what has left at one position. So the ID that it is given
// to go on with says besides, behind a tilde, what had left there by then.

// String returns what stands behind the tilde.
func (l leaving) String() string {
	return strconv.FormatInt(l.clock, 36) + "." + strconv.Itoa(l.nth)
}

// lastID returns the ID that a poll goes on with which has had a frame; empty if the frame tells none.
func (f *Frame) lastID() string {
	id := f.id()
	if id != "" && f.isBackdated() {
		id += "~" + f.more.left.String()
	}
	return id
}

// lastIDLocked returns the ID that a poll goes on with which has had all there is by now.
func (h *Hub) lastIDLocked() string {
	id := h.idLocked(h.last)
	if held := &h.holdings; held.nth > 0 && held.shown == h.last {
		id += "~" + leaving{held.clock, held.nth}.String()
	}
	return id
}

// parseLast reads an ID as a client brings it back.
func parseLast(s string) (id ID, had leaving, ok bool) {
	s, rest, more := strings.Cut(s, "~")
	if id, ok = ParseID(s); !ok || !more {
		return id, had, ok
	}
	clock, nth, _ := strings.Cut(rest, ".")
	var errs [2]error
	had.clock, errs[0] = strconv.ParseInt(clock, 36, 64)
	had.nth, errs[1] = strconv.Atoi(nth)
	return id, had, errs == [2]error{} && had.String() == rest
}
