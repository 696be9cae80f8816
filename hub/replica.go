package hub

import (
	"context"
	"math"
	"time"
)

// This file is what a log needs of a hub: brokers feed it through these methods, each in the order of
// its log.

// Origin says where a log begins that a hub is to follow.
type Origin struct {
	// Epoch names the log.
	Epoch string
	// Sparse logs do not give out every position: an ID is known by the messages seen.
	Sparse bool
	// Keeps is about how many messages a sparse log keeps.
	Keeps int
	// Shared logs are followed by other instances, some of which may be ahead of this one.
	Shared bool
	// Newest, if set, is asked of a shared log: it returns the newest position that the log has at the moment.
	Newest func(context.Context) (Position, error)
	// Lost is the newest position that the log no longer has, and the hub's first.
	Lost Position
	// Transient is set by a log that ends with the process: nobody can return to it.
	Transient bool
	// Holds is set by a log that holds the newest message of each topic and key beside its other messages, where a
	// policy keeps these: it calls Released for what to hold no longer.
	Holds bool
	// Trims is set by a log that stores only what the hub keeps: it calls Dropped for what to delete and Claimed
	// for new owners.
	Trims bool
}

// Lost returns the newest position at which a message for an address may have stood that the hub does not have; the zero
// Position if there was none.
func (h *Hub) Lost(a Address) Position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lostLocked(wants{addresses: []Address{a}}, Position{})
}

// Limits returns what the hub keeps, for logs that keep no more than that.
func (h *Hub) Limits() Limits {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.limits
}

// Position returns the log that the hub follows and how far it has come.
func (h *Hub) Position() ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return ID{h.epoch, h.last}
}

// Follow switches to a log, empty so far. Restore and Announce come next.
func (h *Hub) Follow(o Origin) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaveAllLocked() // the clients are entitled to it
	h.past.follow(o)
	h.epoch, h.last, h.shared, h.newest = o.Epoch, o.Lost, o.Shared, o.Newest
	h.frames.forget(h.frames.ring)
	h.frames.begin(o.Lost)
	h.begin, h.lapse, h.losses, h.restoring = h.frames.next, nil, nil, true
	clear(h.values)
	clear(h.chosen)
	h.holdings.clock, h.holdings.nth = 0, 0
	pin := h.history.pin
	h.newHistoryLocked()
	h.history.pin = pin
	h.history.forgetAll(o.Lost)
	h.history.noteDropped, h.history.noteReleased = o.Trims, o.Holds
	h.noteClaimsLocked(o.Trims)
	h.given = nil
	if o.Sparse {
		h.given = newPositions(o.Keeps)
	}
	h.given.add(h.last) // clients are told it
	h.noteIDsLocked()
	h.decideAllLocked()
}

// noteIDsLocked tells encoders what the next IDs look like.
func (h *Hub) noteIDsLocked() {
	next := h.last.Major + 1
	if form := h.encoder.Load(); form.epoch == h.epoch && next <= form.most && next > form.most/10 {
		return
	}
	form := &idForm{epoch: h.epoch, digits: digitsOf(next), most: math.MaxUint64}
	if form.digits < 20 { // as many as the last position has
		form.most = 9
		for range form.digits - 1 {
			form.most = 10*form.most + 9
		}
	}
	h.encoder.Store(form)
}

// Restore hands over a message that the log kept from before, in its order.
func (h *Hub) Restore(m *Message) {
	h.Encode(m)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keepLocked(m, restored, time.Now())
}

// Encode does what can be done for a message before its place in the log is known, outside any lock of the log's or
// the hub's. Deliver does it if nobody has.
func (h *Hub) Encode(m *Message) {
	if m.draft.b != nil {
		return
	}
	form := h.encoder.Load()
	digits := form.digits
	if p := m.Position; p != (Position{}) {
		digits = digitsOf(p.Major)
		if p.Minor > 0 {
			digits += len("-") + digitsOf(p.Minor)
		}
	}
	m.draft = m.encode(len(form.epoch) + len("-") + digits)
	m.draft.conflates, m.draft.every = h.conflation(m)
}

// keepLocked makes m the log's last message, to the hub's knowledge. It returns nil if the message is held.
func (h *Hub) keepLocked(m *Message, traits traits, now time.Time) *Frame {
	if m.Time.IsZero() {
		m.Time = now
	}
	if m.Ephemeral {
		m.Position = h.last
	} else {
		h.leaveByLocked(m.Time.UnixNano(), now)
	}
	before := h.last
	h.last = m.Position
	d := m.draft
	if d.every == 0 || !h.holdLocked(m, traits, now) {
		h.replaceHeldLocked(m)
		d.frame.time, d.frame.traits, d.frame.position = m.Time.UnixNano(), d.frame.traits|traits, m.Position
		h.appendLocked(d, m.To, before, now)
		m.draft = draft{}
	} else {
		d.frame = nil
	}
	if !m.Ephemeral {
		h.given.add(m.Position)
		h.arrivals.decide(m.Position)
		h.noteIDsLocked()
	}
	return d.frame
}

// appendLocked appends a frame to the log in memory, and keeps it, behind a position of the broker's log.
func (h *Hub) appendLocked(d draft, to []Address, before Position, now time.Time) {
	f, epoch := d.frame, h.epoch
	if f.is(ephemeral) {
		epoch = ""
	}
	f.arrived = h.times.moment(now)
	f.chunk, f.head = d.seal(epoch, f.position)
	h.frames.append(f, before)
	if f.is(ephemeral) {
		f.to = ownAddress(to[0])
		f.addressToo(ownAddresses(to[1:])...)
	} else {
		if d.conflates {
			h.replaceValuesLocked(f, to)
		}
		h.history.append(f, to, now)
		h.rememberLocked(f)
		if d.conflates {
			h.noteValueLocked(f)
		}
	}
	h.movedLocked()
}

// movedLocked tells everybody that the log goes on.
func (h *Hub) movedLocked() {
	h.head.Store(h.frames.next)
	if h.frames.ringIsFull(&h.most) {
		h.frames.moveRing(&h.most, h.floor(), h.begin)
	}
	for len(h.losses) > 0 && h.losses[0].seq < h.frames.ring { // who has not come to it is told by its marks
		h.history.forgetAll(h.losses[0].position)
		h.losses = h.losses[1:]
	}
	if excessive := h.history.excessive(); excessive != h.pace.excessive.Load() {
		h.pace.excessive.Store(excessive)
	}
}

// excessive reports whether history holds too much for those who are catching up.
func (h *history) excessive() bool {
	return h.pin != unpinned && (h.excess > mostExcess || h.excessBytes > mostExcessBytes ||
		h.limits.Bytes > 0 && h.bytes > h.limits.Bytes+mostExcessBytes)
}

// Forget says that a message for an address stood at p that the log no longer has.
func (h *Hub) Forget(a Address, p Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history.forget(a, p)
}

// ForgetOnly replaces the marks of Forget and ForgetAll once Restore is done; only then is it known which addresses
// have newer messages. It does nothing while the hub has drops that the log has not stored.
func (h *Hub) ForgetOnly(gone map[Address]Position, floor Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	pauses := h.pausesLocked()
	for a, p := range gone {
		h.history.forget(a, p)
		pauses.step()
	}
	var floors [kinds]Position
	for kind := range floors {
		floors[kind] = floor
	}
	for a, p := range gone { // until they are all there, the floor that there was stands for them
		if a.isTopic() && p.After(floors[a.Kind]) && h.history.onlyMarked(a, p) {
			floors[a.Kind] = p
		}
		pauses.step()
	}
	if h.history.dropped.n == 0 {
		h.history.floors = floors
	}
}

// ForgetAll says that messages up to p may be missing, whatever their addresses.
func (h *Hub) ForgetAll(p Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history.forgetAll(p)
}

// Advance says that the log has come as far as p, where it has no message, or no longer has it.
func (h *Hub) Advance(p Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.After(h.last) {
		h.last = p
		h.given.add(p) // clients are told it
		h.arrivals.decide(p)
		h.noteIDsLocked()
	}
}

// Announce tells the clients that were here before that there is a gap, and why.
func (h *Hub) Announce(reason string) {
	h.mu.Lock()
	h.leaveAllLocked() // what was restored
	h.past.restored(h.last)
	note := h.past.noteLocked()
	h.lapse, h.restoring = h.tellLocked(reason), false
	clients := h.audience.everybody
	h.mu.Unlock()
	note()
	h.noteLoss(reason, clients)
}

// Lose says that the log has lost what stood between the hub's position and p. Clients are told so where it stood: those
// who have not come to it yet have not lost anything so far.
func (h *Hub) Lose(p Position, reason string) {
	h.mu.Lock()
	h.last = p
	h.given.add(p)
	h.noteIDsLocked()
	h.decideAllLocked()
	gap := h.tellLocked(reason)
	h.losses = append(h.losses, place{gap.seq, p, h.epoch})
	clients := h.audience.everybody
	h.mu.Unlock()
	h.noteLoss(reason, clients)
}

// noteLoss tells HistoryLost of a gap that was told to all clients. Another broker is no loss: that was the
// operator.
func (h *Hub) noteLoss(reason string, clients int) {
	if h.HistoryLost != nil && reason != reasonBrokerChanged {
		h.HistoryLost(reason, clients)
	}
}

// lostLocked returns the newest position at which a message that somebody wants may have stood that who resumes will
// not get, if it is after p; else p.
func (h *Hub) lostLocked(w wants, p Position) Position {
	p = h.history.lost(w, p)
	if n := len(h.losses); n > 0 && h.losses[n-1].position.After(p) {
		return h.losses[n-1].position
	}
	return p
}

// tellLocked tells every client of a gap that ends at the present position.
func (h *Hub) tellLocked(reason string) *Frame {
	gap := gapFrame(h.idLocked(h.last), reason)
	gap.traits = announced | tellsGap
	gap.to, gap.position = &everybody, h.last
	h.stats.gap(reason, uint64(h.audience.everybody))
	h.frames.append(gap, h.last)
	h.movedLocked()
	h.heardLocked(gap.seq)
	h.wakeShards()
	return gap
}

// Deliver hands over the log's next message, with Position set; an ephemeral message needs
// none. It returns how many clients the message was addressed to.
func (h *Hub) Deliver(m *Message) (receivers int) {
	h.Encode(m)
	now := time.Now()
	h.mu.Lock()
	receivers, counted := h.deliverLocked(m, now)
	h.mu.Unlock()
	return h.delivered(m, receivers, counted)
}

// DeliverUnlessEnded is Deliver for a log that ends with the hub. Once the hub has ended nobody would
// ever get the message; the error is why it has.
func (h *Hub) DeliverUnlessEnded(m *Message) (receivers int, err error) {
	h.Encode(m)
	now := time.Now()
	h.mu.Lock()
	if err := h.ended; err != nil {
		h.mu.Unlock()
		return 0, err
	}
	receivers, counted := h.deliverLocked(m, now)
	h.mu.Unlock()
	return h.delivered(m, receivers, counted), nil
}

// Append is DeliverUnlessEnded for a log that is nowhere but here: the message gets the position that comes next. It
// is what lets several publishers work at once, since nobody has to hold a lock of the log's meanwhile. epoch is the
// log's; once the hub follows another one, or has ended, the message is refused with ErrHubClosed or why it has ended.
func (h *Hub) Append(m *Message, epoch string) (receivers int, err error) {
	h.Encode(m)
	now := time.Now()
	h.mu.Lock()
	switch {
	case h.ended != nil:
		err = h.ended
	case epoch != h.epoch:
		err = ErrHubClosed
	}
	if err != nil {
		h.mu.Unlock()
		return 0, err
	}
	if !m.Ephemeral {
		m.Position = Position{Major: h.last.Major + 1}
	}
	receivers, counted := h.deliverLocked(m, now)
	h.mu.Unlock()
	return h.delivered(m, receivers, counted), nil
}

// deliverLocked appends a message to the log. It reports whether all its receivers are counted.
func (h *Hub) deliverLocked(m *Message, now time.Time) (receivers int, counted bool) {
	f := h.keepLocked(m, 0, now)
	if f == nil {
		return h.audience.reached(m.To)
	}
	if receivers, counted = h.audience.reached(m.To); receivers > 0 || !counted {
		h.heardLocked(f.seq)
	} else {
		f.traits |= unheard
	}
	return receivers, counted
}

// delivered has the shards read a message that stands in the log, and counts the rest of its receivers.
func (h *Hub) delivered(m *Message, receivers int, counted bool) int {
	if counted {
		h.wake(receivers)
		return receivers
	}
	h.wake(1)
	return h.Count(m.To)
}

// wake has the shards read the log, if somebody waits for it or very much has gathered.
func (h *Hub) wake(receivers int) {
	for _, s := range h.shards {
		floor := s.floor.Load()
		if floor != math.MaxUint64 && (receivers > 0 || h.head.Load() >= floor+wakeAfter) {
			s.poke()
		}
	}
}

// Reach returns how many clients a message to these addresses would reach. One that several of them reach may count
// for each.
func (h *Hub) Reach(to []Address) (clients int) { return h.Count(to) }

// Dropped returns the messages that the hub has stopped keeping since it was called last, or
// since Follow: their positions and addresses.
func (h *Hub) Dropped() []*Message {
	h.mu.Lock()
	dropped := h.history.dropped.take()
	h.mu.Unlock()
	return dropped.items()
}

// Count returns how many clients listen at these addresses; one that several of them reach
// counts for each.
func (h *Hub) Count(to []Address) (clients int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	clients, all := h.audience.reached(to)
	if !all {
		clients = h.reachedInStepsLocked(to)
	}
	return clients
}
