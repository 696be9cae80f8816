package hub

import (
	"slices"
	"time"
)

// resumeLocked finds where a client goes on, and whether that is exact.
func (h *Hub) resumeLocked(c *Client, lastEventID string, since Since, hint place, now time.Time) Welcome {
	if lastEventID == "" {
		return h.sinceLocked(c, since, hint, now)
	}
	w := c.wants()
	late := &late{entitled: c.from, trims: h.history.trims}
	if at, had, known := h.positionOfLocked(c, lastEventID); known {
		late.seq, late.position = h.frames.after(at, had, h.begin), at
		logs, few := h.history.find(w, late.seq, now)
		late.told = h.lostLocked(w, at)
		late.trims = h.history.trims
		if len(logs) > 0 || !few {
			h.catchUpLocked(c, late)
		}
		switch {
		case late.told.After(at):
			return Welcome{lastEventID, ResumeGap, reasonTrimmed, late.told}
		case !h.past.proves(at):
			return Welcome{lastEventID, ResumeGap, reasonUnknownID, *h.past.Since}
		}
		return Welcome{ID: lastEventID, Resume: ResumeComplete}
	}
	if c.Selectors != nil { // it is told so, and gets all there is
		welcome := h.sinceLocked(c, Since{All: true}, place{}, now)
		welcome.Resume, welcome.Reason = ResumeGap, reasonUnknownID
		return welcome
	}
	logs, few := h.history.find(w, h.begin, now)
	if few {
		if oldest := h.history.oldestFor(logs); oldest != nil {
			hint = place{oldest.seq, oldest.position, h.epoch}
		} else {
			hint = place{}
		}
	}
	if hint.seq == 0 || hint.epoch != h.epoch {
		return Welcome{h.idLocked(h.last), ResumeGap, reasonUnknownID, Position{}}
	}
	late.seq, late.position = hint.seq, h.previousLocked(hint.position)
	late.told = h.lostLocked(w, late.position)
	late.trims = h.history.trims
	h.catchUpLocked(c, late)
	return Welcome{h.idLocked(late.position), ResumeGap, reasonUnknownID, late.told}
}

// catchUpLocked lets a client begin with what it has missed, which is not trimmed until it has read it.
func (h *Hub) catchUpLocked(c *Client, l *late) {
	c.late = l
	c.shard.joinPin = min(c.shard.joinPin, l.seq)
	h.history.pin = min(h.history.pin, l.seq)
}

// previousLocked returns the position that stands before one at which there is a message.
func (h *Hub) previousLocked(p Position) Position {
	if h.given == nil {
		return Position{Major: p.Major - 1}
	}
	if previous, ok := h.given.before(p); ok {
		return previous
	}
	return p.before()
}

// positionOfLocked returns the position of what a client brings, and what it has had that left there; ok is false if
// the hub does not know it.
func (h *Hub) positionOfLocked(c *Client, lastEventID string) (p Position, had leaving, ok bool) {
	if c.Selectors != nil {
		p, ok = h.cursorLocked(lastEventID)
		return p, leaving{}, ok
	}
	id, had, ok := parseLast(lastEventID)
	return id.Position, had, ok && h.gaveLocked(id)
}

// gaveLocked reports whether this log gave out an ID.
func (h *Hub) gaveLocked(id ID) bool {
	switch {
	case id.Epoch != h.epoch || id.Position.After(h.last):
		return false
	case h.given == nil:
		return id.Position.Minor == 0
	default:
		return id.Position == Position{} || h.given.has(id.Position)
	}
}

func (h *Hub) idLocked(p Position) string { return ID{h.epoch, p}.String() }

// place is where in the log something stands.
type place struct {
	seq      uint64
	position Position
	epoch    string
}

// lookBack finds the oldest of the newest messages for a client that begins with so many, if they are many, and for one
// with an ID that the hub does not know, if its patterns match very many topics. It takes its time, but the hub's lock
// only now and then.
func (h *Hub) lookBack(c *Client, s *Subscription) (found place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	wanted, latest := h.wantedLocked(c, s)
	rules, at := h.history.rules, h.frames.next
	kept := make([]*Frame, 0, blockSize)
	for epoch := h.epoch; h.epoch == epoch && at > h.begin && (wanted > 0 || latest); {
		i := h.frames.find(at - 1)
		if i < 0 {
			break
		}
		b, kept, steps := h.frames.blocks[i], kept[:0], maxSearch
		for _, f := range slices.Backward(b.frames) {
			if f != nil && f.seq < at && f.seq >= h.begin && f.kept > 0 &&
				(steps <= 0 || h.history.keepsFor(c, f, &steps)) {
				kept = append(kept, f)
			}
		}
		at = b.first
		h.mu.Unlock() // to match so many patterns takes a while
		for _, f := range kept {
			if c.gets(f) && (wanted > 0 || latest && rules.keepLatestOf(f)) {
				found = place{f.seq, f.position, epoch}
				wanted--
			}
		}
		h.mu.Lock()
	}
	return found
}

// mostKept is how many messages who brings an unknown ID is given at most, besides the newest of topics that keep these.
func (h *history) mostKept() int { return max(h.usual.Count, h.rules.count) }

// oldestFor returns the message with which a client begins that brings an unknown ID; nil if there is none in the logs.
func (h *history) oldestFor(logs []*addressLog) *Frame {
	oldest, _ := newest(logs, h.mostKept())
	for _, l := range logs {
		if f := l.frames[0]; l.values != nil && (oldest == nil || f.seq < oldest.seq) {
			oldest = f
		}
	}
	return oldest
}

// wantedLocked returns how many messages lookBack is to look for, and whether besides for the newest of all topics that
// keep these.
func (h *Hub) wantedLocked(c *Client, s *Subscription) (wanted int, latest bool) {
	if c.Selectors != nil { // it begins with all there is, or where it was
		return 0, false
	}
	switch id, _, ok := parseLast(s.LastEventID); {
	case s.LastEventID == "" && s.Since.Newest > maxSearch:
		return s.Since.Newest, false
	case s.LastEventID == "":
		wanted = s.Since.Newest
	case ok && h.gaveLocked(id):
		return 0, false
	default:
		wanted, latest = h.history.mostKept(), h.history.rules.latest
	}
	if len(c.wants().patterns) == 0 || wanted == 0 && !latest {
		return 0, false
	}
	if _, few := h.history.find(c.wants(), h.begin, time.Now()); few {
		return 0, false
	}
	return wanted, latest
}
