package hub

import (
	"errors"
	"slices"
)

// Purge says which messages are removed before their time.
type Purge struct {
	// To are the addresses that lose their messages. A message that has others as well stays with those.
	To []Address
	// Key has only the messages with that key go. Empty means all, with a key or without.
	Key string
	// Until is the position of the newest message that goes. The zero Position means the log's present end.
	Until Position
}

// Check says what is wrong with what is to be purged.
func (p *Purge) Check() error {
	if slices.Contains(p.To, everybody) {
		return errors.New("what was published to everybody can't be purged; name a topic, client_id or user")
	}
	return (&Message{To: p.To, Key: p.Key}).Check()
}

// Purge removes messages before their time. Who may have missed some of them is told a gap when it comes back. A client
// that is here, and has yet to take such a message, still gets it, unless it is so far behind that it reads history.
func (h *Hub) Purge(p Purge) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaveOfLocked(p.To, p.Key) // who is here gets what was said before it is purged
	if p.Until == (Position{}) {
		p.Until = h.last
	}
	history := h.history
	for _, a := range p.To {
		next, more := uint64(0), true
		for more && h.history == history {
			if next, more = history.purge(a, next, &p); more {
				h.pauseLocked()
			}
		}
	}
}

// purge removes what an address keeps at or after a place, as far as p says. It goes through maxStep messages at most.
// If there may be more, it returns the place to go on at.
func (h *history) purge(a Address, from uint64, p *Purge) (next uint64, more bool) {
	l := h.log(a)
	if l == nil {
		return 0, false
	}
	first := l.search(from)
	left, i := first, first
	for ; i < len(l.frames) && !l.frames[i].position.After(p.Until); i++ {
		f := l.frames[i]
		if i == first+maxStep {
			next, more = f.seq, true
			break
		}
		if p.Key != "" && f.key != p.Key {
			l.frames[left] = f
			left++
			continue
		}
		h.lose(l, f, left)
	}
	if i > left {
		l.frames = slices.Delete(l.frames, left, i)
		if l.values != nil && len(l.frames) == 1 {
			l.values.byKey = nil
		}
		h.haveLost(l)
	}
	return next, more
}

// lose notes that a log loses, before its time, the frame that stands at an index.
func (h *history) lose(l *addressLog, f *Frame, at int) {
	l.forgetKey(f)
	v := l.values
	switch {
	case v == nil && at < l.excess:
		l.excess--
		h.unexcess(f)
	case v == nil:
	case v.of(l, f.key) == f:
		delete(v.byKey, f.key)
		if h.noteReleased {
			h.released.push(Value{l.address.Name, f.key, f.publishedAt()})
		}
	default:
		if i := slices.Index(v.replaced, f); i >= 0 {
			v.replaced = slices.Delete(v.replaced, i, i+1)
			h.unexcess(f)
		}
	}
	if v != nil && at < v.unsorted {
		v.unsorted--
	}
	l.lost(f)
	h.letGo(f)
}

// Miss tells the clients of some addresses that messages for them, from before the present position, were removed from
// the log before this hub had them.
func (h *Hub) Miss(to []Address) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gap := gapFrame(h.idLocked(h.last), reasonTrimmed)
	gap.traits = announced | tellsGap
	gap.position = h.last
	gap.to = ownAddress(to[0])
	gap.addressToo(ownAddresses(to[1:])...)
	clients, _ := h.audience.reached(to)
	h.stats.gap(reasonTrimmed, uint64(clients))
	h.frames.append(gap, h.last)
	h.movedLocked()
	h.heardLocked(gap.seq)
	h.wakeShards()
}
