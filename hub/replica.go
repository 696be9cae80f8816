package hub

import (
	"context"
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
	// Lost is the newest position that the log no longer has, and the hub's first.
	Lost Position
	// Trims: the log keeps what the hub keeps, and asks for what that no longer is by Dropped, and whose
	// it has become by Claimed.
	Trims bool
}

// Lost returns the newest position at which a message for an address may have stood that the hub does not have; the zero
// Position if there was none.
func (h *Hub) Lost(a Address) Position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.history.lost([]Address{a}, nil, Position{})
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
	h.epoch, h.last, h.shared = o.Epoch, o.Lost, o.Shared
	h.history = newHistory(h.limits.History)
	h.history.forgetAll(o.Lost)
	h.history.noteDropped = o.Trims
	h.noteClaimsLocked(o.Trims)
	h.given = nil
	if o.Sparse {
		h.given = newPositions(o.Keeps)
	}
	h.given.add(h.last) // clients are told it
	h.eachLocked((*Client).stopCatchingUp)
	h.arrivals.decideAll()
}

// Restore hands over a message that the log kept from before, in its order.
func (h *Hub) Restore(m *Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keepLocked(m, time.Now())
}

// keepLocked makes m the log's last message, to the hub's knowledge.
func (h *Hub) keepLocked(m *Message, now time.Time) {
	if m.Time.IsZero() {
		m.Time = now
	}
	m.arrived, m.previous = h.clock.moment(now), h.last
	if m.Ephemeral {
		m.Position = h.last
	}
	m.encode(h.epoch)
	if !m.Ephemeral {
		h.last = m.Position
		h.given.add(m.Position)
		h.history.append(m, now)
		h.arrivals.decide(m.Position)
	}
}

// Forget says that a message for an address stood at p that the log no longer has.
func (h *Hub) Forget(a Address, p Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history.forget(a, p)
}

// ForgetOnly says again, once all that the log has is restored, what Forget and ForgetAll have said before: now it shows
// which of the addresses still have newer messages. Should the hub have dropped some that the log does not know of,
// what was said before stands.
func (h *Hub) ForgetOnly(gone map[Address]Position, floor Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.history.dropped) > 0 {
		return
	}
	h.history.floor = floor
	for a, p := range gone {
		h.history.forget(a, p)
	}
}

// ForgetAll says that messages up to p may be missing, whatever their addresses.
func (h *Hub) ForgetAll(p Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history.forgetAll(p)
}

// Advance says that the log has come as far as p, whose messages it no longer has.
func (h *Hub) Advance(p Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.After(h.last) {
		h.last = p
	}
}

// Announce tells the clients that were here before that there is a gap, and why.
func (h *Hub) Announce(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tellLocked(reason)
}

// Lose says that the log has lost what stood between the hub's position and p.
func (h *Hub) Lose(p Position, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = p
	h.given.add(p)
	h.history.forgetAll(p)
	h.arrivals.decideAll()
	h.tellLocked(reason)
}

// tellLocked tells every client of a gap that ends at the present position.
func (h *Hub) tellLocked(reason string) {
	gap := gapFrame(h.idLocked(h.last), reason)
	gap.Position = h.last // its place in a replay
	h.eachLocked(func(c *Client) { c.tell(gap) })
}

// Deliver hands over the log's next message, with Position set; an ephemeral message needs
// none. It returns how many clients the message was addressed to.
func (h *Hub) Deliver(m *Message) (receivers int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.deliverLocked(m)
}

// DeliverUnlessEnded is Deliver for a log that ends with the hub. Once the hub has ended nobody would
// ever get the message; the error is why it has.
func (h *Hub) DeliverUnlessEnded(m *Message) (receivers int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended != nil {
		return 0, h.ended
	}
	return h.deliverLocked(m), nil
}

func (h *Hub) deliverLocked(m *Message) (receivers int) {
	h.keepLocked(m, time.Now())
	h.reachLocked(m.To, func(c *Client) {
		if c.enqueue(m) {
			receivers++
		}
	})
	return receivers
}

// reachLocked visits every client at these addresses, once.
func (h *Hub) reachLocked(to []Address, visit func(*Client)) {
	h.deliveries++
	h.index.reached(to, func(set *clientSet) {
		for _, member := range set.members {
			if c := member.client; c.seen != h.deliveries {
				c.seen = h.deliveries
				visit(c)
			}
		}
	})
}

// Reach returns how many clients a message to these addresses would reach, each counted once.
func (h *Hub) Reach(to []Address) (clients int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reachLocked(to, func(*Client) { clients++ })
	return clients
}

// Dropped returns the messages that the hub has stopped keeping since it was called last, or
// since Follow.
func (h *Hub) Dropped() []*Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	dropped := h.history.dropped
	h.history.dropped = nil
	return dropped
}

// Wait returns when whoever has delivered to so many clients may go on: at once, unless the
// machine is behind its clients.
func (h *Hub) Wait(ctx context.Context, receivers int) { h.pace.wait(ctx, receivers) }

// Count returns how many clients listen at these addresses; one that several of them reach
// counts for each.
func (h *Hub) Count(to []Address) (clients int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index.reached(to, func(set *clientSet) { clients += len(set.members) })
	return clients
}

// Listening returns the addresses and patterns whose numbers of clients have changed since it
// was called last, with those numbers; or all of them. From then on changes are noted, until
// StopListening.
func (h *Hub) Listening(all bool) map[Address]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.index.takeChanges(all)
}

// StopListening ends what Listening began.
func (h *Hub) StopListening() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index.changed = nil
}
