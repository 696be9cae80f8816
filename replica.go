package sse

import (
	"context"
	"time"
)

// Replica follows a log's end. Hub is the one there is; brokers feed it.
type Replica interface {
	// Position returns the log that the replica follows and how far it has come.
	Position() ID
	// Limits returns what the replica keeps, for logs that keep no more than that.
	Limits() Limits
	// Follow switches to a log, empty so far. Restore and Announce come next.
	Follow(o Origin)
	// Restore hands over a message that the log kept from before, in its order.
	Restore(m *Message)
	// Announce tells the clients that were here before that there is a gap, and why.
	Announce(reason string)
	// Lose says that the log has lost what stood between the replica's position and p.
	Lose(p Position, reason string)
	// Deliver hands over the log's next message, with Position set; an ephemeral message needs
	// none. It returns how many clients the message was addressed to.
	Deliver(m *Message) (receivers int)
	// Wait returns when whoever has delivered to so many clients may go on: at once, unless the
	// machine is behind its clients.
	Wait(ctx context.Context, receivers int)
	// Count returns how many clients listen at these addresses; one that several of them reach
	// counts for each.
	Count(to []Address) (clients int)
	// Listening returns the addresses and patterns whose numbers of clients have changed since it
	// was called last, with those numbers; or all of them. From then on changes are noted, until
	// StopListening.
	Listening(all bool) map[Address]int
	StopListening()
}

// Origin says where a log begins that a replica is to follow.
type Origin struct {
	// Epoch names the log.
	Epoch string
	// Sparse logs do not give out every position: an ID is known by the messages seen.
	Sparse bool
	// Lost is the newest position that the log no longer has, and the replica's first.
	Lost Position
}

// Limits implements Replica.
func (h *Hub) Limits() Limits {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.limits
}

// Position implements Replica.
func (h *Hub) Position() ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return ID{h.epoch, h.last}
}

// Follow implements Replica.
func (h *Hub) Follow(o Origin) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epoch, h.last = o.Epoch, o.Lost
	h.history = newHistory(h.limits.History)
	h.history.forgetAll(o.Lost)
	h.given = nil
	if o.Sparse {
		h.given = &positions{}
	}
	h.eachLocked((*Client).stopCatchingUp)
}

// Restore implements Replica.
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
	m.previous = h.last
	if m.Ephemeral {
		m.Position = h.last
	}
	m.encode(h.epoch)
	if !m.Ephemeral {
		h.last = m.Position
		h.given.add(m.Position)
		h.history.append(m, now)
	}
}

// Announce implements Replica.
func (h *Hub) Announce(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tellLocked(reason)
}

// Lose implements Replica.
func (h *Hub) Lose(p Position, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = p
	h.history.forgetAll(p)
	h.tellLocked(reason)
}

// tellLocked tells every client of a gap that ends at the present position.
func (h *Hub) tellLocked(reason string) {
	gap := gapFrame(h.idLocked(h.last), reason)
	h.eachLocked(func(c *Client) { c.tell(gap) })
}

// Deliver implements Replica.
func (h *Hub) Deliver(m *Message) (receivers int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keepLocked(m, time.Now())
	h.deliveries++
	h.index.reached(m.To, func(set *clientSet) {
		for _, member := range set.members {
			c := member.client
			if c.seen == h.deliveries {
				continue
			}
			c.seen = h.deliveries
			if c.enqueue(m) {
				receivers++
			}
		}
	})
	return receivers
}

// Wait implements Replica. See DESIGN 2.2.
func (h *Hub) Wait(ctx context.Context, receivers int) { h.pace.wait(ctx, receivers) }

// Count implements Replica.
func (h *Hub) Count(to []Address) (clients int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index.reached(to, func(set *clientSet) { clients += len(set.members) })
	return clients
}

// Listening implements Replica.
func (h *Hub) Listening(all bool) map[Address]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.index.takeChanges(all)
}

// StopListening implements Replica.
func (h *Hub) StopListening() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index.changed = nil
}
