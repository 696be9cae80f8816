package hub

import (
	"slices"
	"time"
)

// lineTime is how long a shard gives turns to late clients before it reads the log again.
const lineTime = 2 * time.Millisecond

// fallBehind counts what the log has for a client that does not take it now, and decides, here and nowhere else, what
// happens to a client that is too far behind.
func (s *shard) fallBehind(c *Client, frames []*Frame) {
	l := c.late
	if l == nil {
		first := frames[0]
		l = &late{seq: first.seq, position: first.position, trims: noTrims}
		if !first.is(ephemeral|announced) && !first.isBackdated() {
			l.position = first.position.before()
		}
		c.late = l
	}
	for _, f := range frames {
		if f.is(conflated) { // of these one a topic and key waits at most
			continue
		}
		l.messages++
		l.bytes += f.size()
		if f.is(ephemeral) {
			l.ephemeral++
		}
	}
	if c.SlowClient == Disconnect || c.SlowClient == DropOldest {
		s.judge(c)
	}
	if l.lossy {
		s.countDropped(c, l.messages-c.Queue)
	}
}

// countDropped counts messages that a client will not get because it is too far behind, those counted before
// among them.
func (s *shard) countDropped(c *Client, dropped int) {
	if n := dropped - c.late.dropped; n > 0 {
		s.hub.stats.droppedSlow.Add(uint64(n))
		c.late.dropped = dropped
	}
}

// noTrims is no number of trims that there is.
const noTrims = ^uint64(0)

// judge treats a client as slow that is more than its queue behind, if it is its socket that takes nothing. A single
// message passes, however large it is.
func (s *shard) judge(c *Client) {
	l := c.late
	if l.lossy || !c.tooFar() || c.ready || c.over || !s.blocked(c) {
		return
	}
	if c.SlowClient == DropOldest {
		l.lossy = true
		return
	}
	s.end(c, &ending{cause: ErrSlow})
	c.over = true
	s.cut(c)
}

// tooFar reports whether the client is more than its queue behind.
func (c *Client) tooFar() bool {
	return c.late.messages > c.Queue || c.late.messages > 1 && c.late.bytes > c.QueueBytes
}

// giveTurns gives late clients whose streams are ready a turn each, one behind the other, for a while.
func (s *shard) giveTurns() {
	began := s.now
	for n := len(s.line); n > 0; n-- {
		c := s.line[0]
		s.line[0] = nil
		s.line = s.line[1:]
		c.inLine = false
		if c.late != nil && c.ready && !c.over && s.turn(c) {
			s.enqueue(c)
		}
		if s.now.since(began) > lineTime {
			break
		}
	}
	if len(s.line) == 0 {
		s.line = nil
	}
}

// turn hands a late client what comes next for it. It reports whether the client is to have another turn.
func (s *shard) turn(c *Client) (again bool) {
	l := c.late
	frames, next := s.readLate(c)
	taken, ready := 0, true
	if len(frames) > 0 {
		s.counted.frames = nil // the same memory as of others
		taken, ready = s.send(c, frames, nil)
	}
	s.now = s.hub.times.now()
	if c.over {
		return false
	}
	c.ready = ready
	for _, f := range frames[:taken] {
		c.passed(f)
	}
	if taken == len(frames) {
		l.seq, l.position = max(l.seq, next), s.reached
	} else if f := frames[taken]; f.seq != 0 {
		l.seq = max(l.seq, f.seq)
	}
	clear(frames)
	if taken < len(frames) || l.seq < min(s.at, c.until()) && !c.restIsForLater() {
		return ready
	}
	c.from, c.late = l.seq, nil
	if ready && c.ending.Load() != nil {
		s.finish(c)
	}
	return false
}

// restIsForLater reports whether a client that is told farewell is still at what it missed before it came: it gets the
// rest when it comes back. Only on exit it is given all, and if it is what it asked for.
func (c *Client) restIsForLater() bool {
	e := c.ending.Load()
	return e != nil && e.cause != ErrDraining && e.cause != ErrAnswered && c.late.seq < c.late.entitled
}

// passed notes that a client is past a frame.
func (c *Client) passed(f *Frame) {
	l := c.late
	if f == l.tell {
		l.tell = nil
		return
	}
	l.seq = f.seq + 1
	l.position = f.reached()
	if f.is(announced) { // perhaps of another log, whose positions are others
		l.told, l.trims = Position{}, noTrims
	}
	if f.seq < l.entitled || l.messages == 0 || f.is(conflated) {
		return
	}
	l.messages--
	l.bytes -= f.size()
	if f.is(ephemeral) {
		l.ephemeral--
	}
}

// readLate returns what comes next for a late client, with what it is to be told first, and the place to go on at. It
// only copies under the hub's lock; what of that is the client's it finds out without.
func (s *shard) readLate(c *Client) (frames []*Frame, next uint64) {
	l := c.late
	frames = s.scratch[:0]
	s.reached = l.position
	if c.restIsForLater() {
		return frames, l.seq
	}
	if l.lossy {
		s.skipToNewest(c)
	}
	r := s.look(c, frames)
	told := 0
	if l.tell != nil {
		told = 1
	}
	switch {
	case r.lapse != nil:
		frames, next = append(frames, r.lapse), r.next
		s.reached = r.lapse.position
	case r.merge:
		frames, next = merged(r.frames, r.runs, r.until, s.hub.most.turnFrames, s.hub.most.turnBytes)
		if n := len(frames); n > told {
			s.reached = frames[n-1].reached()
		}
		frames = s.pass(c, frames, told)
		frames = c.onlyGranted(frames, told)
	default:
		looked := len(r.frames) - told
		frames, next = s.choose(c, r.frames, told, r.next)
		l.scan = len(frames)-told >= min(looked, s.hub.most.turnFrames)/4
	}
	if r.lapse == nil && next == r.until && r.known {
		s.reached = r.position
	}
	s.scratch = frames
	return frames, next
}

// reading is a part of the log that is being read for a late client.
type reading struct {
	lapse    *Frame   // all that it is told; nil if there is more
	frames   []*Frame // what it is told first, and then what may be its
	runs     merge    // if merge: what is its, by address
	merge    bool
	next     uint64 // where frames end
	until    uint64 // where the part ends
	position Position
	known    bool // position is that of until
}

// look copies what a late client may need of the log.
func (s *shard) look(c *Client, frames []*Frame) (r reading) {
	h, l := s.hub, c.late
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.lapse = h.passLapseLocked(l); r.lapse != nil {
		r.next = r.lapse.seq + 1
		return r
	}
	bound := max(h.frames.ring, l.entitled)
	if l.wantsLatest() {
		bound = l.entitled
	}
	var logs []*addressLog
	few := false
	if l.seq < bound {
		if !l.scan { // first, since it trims what is too old
			logs, few = h.history.find(c.wants(), l.seq, time.Now())
		}
		if l.trims != h.history.trims {
			l.trims = h.history.trims
			if lost := h.history.lost(c.wants(), l.position); lost.After(l.position) && lost.After(l.told) {
				l.told = lost
				h.tellGap(l, l.gapReason())
			}
		}
	}
	if l.tell != nil {
		frames = append(frames, l.tell)
	}
	if l.seq >= bound {
		r.until = min(s.at, c.until())
		r.frames, r.next = h.frames.collect(frames, l.seq, r.until, h.most.turnLooks)
		return r
	}
	r.until = min(bound, c.until())
	if r.known = r.until >= h.frames.ring; r.known {
		r.position = h.frames.positionAt(r.until)
	}
	if few && l.wantsLatest() {
		r.runs, few = newestOnly(logs, l.seq)
	}
	switch r.merge = few; {
	case few && l.wantsLatest():
		r.frames = frames
		return r
	case few:
		r.frames, r.runs = frames, runs(logs, l.seq, h.most.turnFrames+1)
		return r
	case l.wantsLatest():
		r.frames, r.next = h.history.collectNewest(frames, max(l.seq, h.begin), r.until, h.most.turnLooks)
		return r
	}
	// Before the ring there is nothing but what is kept.
	told, ring := len(frames), h.frames.ring
	r.frames, r.next = h.frames.collect(frames, max(l.seq, h.begin), min(r.until, max(ring, l.seq)), h.most.turnLooks)
	inRing := r.next >= ring && len(r.frames) == told
	if inRing {
		r.frames, r.next = h.frames.collect(frames, max(l.seq, ring), r.until, h.most.turnLooks)
	}
	if inRing || h.history.partly > 0 {
		r.frames, r.next = h.history.onlyKept(c, r.frames, told, r.next)
	}
	return r
}

// passLapseLocked moves a client that has not read all of the log before this one, of which some is gone, to where
// the clients are told of this one. It returns what they are told, if that is gone from the ring. What it was to be
// given of history went with that log, whether its place is in the ring or not. Called with Hub.mu held.
func (h *Hub) passLapseLocked(l *late) *Frame {
	if l.seq >= max(h.frames.ring, l.entitled) {
		return nil
	}
	switch {
	case h.lapse != nil && max(l.seq, l.entitled) <= h.lapse.seq && h.lapse.seq < h.frames.ring: // it was here before
		return h.lapse
	case l.seq < h.begin, h.lapse != nil && l.seq <= h.lapse.seq && l.entitled == 0:
		l.seq = max(h.frames.ring, h.begin)
		l.entitled = 0
	}
	return nil
}

// wantsLatest reports whether it gets only the newest messages of what comes next.
func (l *late) wantsLatest() bool { return l.latest && l.seq < l.entitled }

func (l *late) gapReason() string {
	if l.seq < l.entitled {
		return reasonTrimmed
	}
	return reasonSlow
}

// tellGap has a client told of a gap before anything else.
func (h *Hub) tellGap(l *late, reason string) {
	if l.tell == nil {
		h.stats.gap(reason, 1)
		l.tell = gapFrame("", reason)
	}
}

// choose keeps what of the frames behind the first few is for a client: they are all that the log had from there to
// next. Of what is ephemeral, no more waits than fits a queue.
func (s *shard) choose(c *Client, frames []*Frame, told int, next uint64) ([]*Frame, uint64) {
	l, most := c.late, &s.hub.most
	chosen, bytes := frames[:told], 0
	for _, f := range frames[told:] {
		switch {
		case !c.gets(f) || s.passesBy(c, f):
		case l.latest && f.seq < l.entitled && s.hub.isOutdatedFor(c, f):
		case f.is(ephemeral) && l.ephemeral > c.Queue:
			l.ephemeral--
			l.messages--
			l.bytes -= f.size()
		case len(chosen)-told == most.turnFrames || len(chosen) > told && bytes+f.size() > most.turnBytes:
			return chosen, f.seq
		default:
			chosen = append(chosen, f)
			bytes += f.size()
		}
		s.reached = f.reached()
	}
	return chosen, next
}

// passesBy reports whether a late client need not have a frame: the log restored it, and the client was here, or it gave
// way to one that the client will come to.
func (s *shard) passesBy(c *Client, f *Frame) bool {
	if f.is(restored) && f.seq >= c.late.entitled {
		return true
	}
	if !f.gaveWay() || f.newer.Load() >= min(s.at, c.until()) {
		return false
	}
	s.hub.stats.conflated.Add(1)
	return true
}

// pass leaves out the frames behind the first few that a late client need not have.
func (s *shard) pass(c *Client, frames []*Frame, told int) []*Frame {
	left := frames[:told]
	for _, f := range frames[told:] {
		if !s.passesBy(c, f) {
			left = append(left, f)
		}
	}
	return left
}

// skipToNewest moves a client on to the newest messages for it, as many as its queue holds.
func (s *shard) skipToNewest(c *Client) {
	h, l := s.hub, c.late
	l.lossy = false
	until := min(s.at, c.until())
	messages, bytes, seq := 0, 0, until
	full := func(f *Frame) bool {
		if messages == c.Queue || messages > 0 && bytes+f.size() > c.QueueBytes {
			return true
		}
		messages, bytes, seq = messages+1, bytes+f.size(), f.seq
		return false
	}
	for at := until; ; {
		h.mu.Lock()
		ring := h.frames.ring
		from := max(ring, l.seq, at-min(at, uint64(h.most.turnLooks)))
		frames, _ := h.frames.collect(s.scratch[:0], from, at, h.most.turnLooks)
		h.mu.Unlock()
		for _, f := range slices.Backward(frames) {
			if !f.is(restored|conflated) && c.gets(f) && full(f) {
				s.skipTo(c, seq, messages, bytes)
				return
			}
		}
		if at = from; at <= max(ring, l.seq) {
			break
		}
	}
	h.mu.Lock()
	if ring := h.frames.ring; l.seq < ring { // what history keeps is the newest of what is before
		logs, few := h.history.find(c.wants(), l.seq, time.Now())
		if oldest, ok := newest(logs, c.Queue); few && ok {
			seq = min(seq, max(l.seq, oldest.seq))
		}
	} else {
		seq = l.seq
	}
	h.mu.Unlock()
	s.skipTo(c, seq, messages, bytes)
}

// skipTo moves a client on to a place behind which so much waits for it.
func (s *shard) skipTo(c *Client, seq uint64, messages, bytes int) {
	l, h := c.late, s.hub
	s.countDropped(c, l.messages-messages)
	l.dropped = 0
	l.messages, l.bytes = messages, bytes
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tellGap(l, reasonSlow)
	if l.seq < h.begin && seq >= h.begin { // of another log, whose positions are others
		l.position = Position{}
	}
	if l.seq = max(l.seq, seq); l.seq >= h.frames.ring {
		l.position = h.frames.positionAt(l.seq)
	}
	l.told = h.history.lost(c.wants(), l.position)
	s.reached = l.position
}

// settle tells the log what the shard, and those of its late clients that could be written to, still need.
func (s *shard) settle() {
	h := s.hub
	if len(s.line) == 0 && s.pinned == unpinned && s.newPin == unpinned && len(s.greeted) == 0 {
		s.floor.Store(s.at)
		h.pace.release()
		return
	}
	h.mu.Lock()
	floor, pin, newPin := s.at, uint64(unpinned), uint64(unpinned)
	for _, c := range s.newcomers() {
		newPin = min(newPin, c.late.seq)
	}
	for _, c := range s.line {
		switch l := c.late; {
		case l == nil || c.over:
		case l.seq < max(h.frames.ring, l.entitled):
			pin = min(pin, l.seq)
		default:
			floor = min(floor, l.seq)
		}
	}
	s.floor.Store(floor)
	s.pin, s.pinned, s.newPin = pin, pin, newPin
	h.unpinLocked()
	h.mu.Unlock()
	h.pace.release()
}

// newcomers returns the clients that have come to catch up and whose streams have not been ready yet, for as long as
// that may be our doing.
func (s *shard) newcomers() []*Client {
	left := s.greeted[:0]
	for _, c := range s.greeted {
		if c.late != nil && !c.ready && !c.over && s.now.since(c.joined) < greetTime {
			left = append(left, c)
		}
	}
	clear(s.greeted[len(left):])
	s.greeted = left
	return left
}

// greetTime is how long what a client has missed is not trimmed while its stream begins.
const greetTime = 250 * time.Millisecond

// unpinLocked lets history be trimmed as far as no client needs it. A client whose stream has not begun yet may be one
// that never reads: once very much is kept, and for nobody else, publishers do not wait for it.
func (h *Hub) unpinLocked() {
	pin, newPin := uint64(unpinned), uint64(unpinned)
	for _, s := range h.shards {
		pin, newPin = min(pin, s.pin), min(newPin, s.newPin, s.joinPin)
	}
	if pin != unpinned || !h.history.excessive() {
		pin = min(pin, newPin)
	}
	h.history.pin = pin
	if len(h.history.overdue) > 0 {
		done := h.history.trimOverdue(time.Now())
		if done = h.history.trimBytes() && done; !done && h.ended == nil {
			h.sweepAt.Reset(0)
		}
	}
	h.pace.excessive.Store(h.history.excessive())
}
