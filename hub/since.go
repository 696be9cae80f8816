package hub

import (
	"sort"
	"time"
)

// Since is where a client begins that brings no ID. The zero value is now: nothing of the past. At most one of the
// fields is set.
type Since struct {
	// All is with all that is kept for the client.
	All bool
	// Latest is with the newest kept message of each topic that it listens to, also by a pattern, of each key in it,
	// and of its other addresses.
	Latest bool
	// Newest is with so many of the newest messages kept for it; 0 is none.
	Newest int
	// Time is with what the log took since then; the zero Time is never.
	Time time.Time
}

// sinceLocked has a client begin without an ID. That is no gap: it has missed nothing. hint is from lookBack.
func (h *Hub) sinceLocked(c *Client, since Since, hint place, now time.Time) Welcome {
	from, ok := h.placeLocked(c, since, hint, now)
	if !ok {
		return Welcome{ID: h.idLocked(h.last), Resume: ResumeNone}
	}
	l := &late{seq: from, entitled: c.from, latest: since.Latest, position: h.positionBeforeLocked(from)}
	l.told = h.lostLocked(c.wants(), l.position)
	l.trims = h.history.trims
	h.catchUpLocked(c, l)
	return Welcome{ID: h.idLocked(l.position), Resume: ResumeNone}
}

// placeLocked returns the place of the log where a client begins; ok is false if there is nothing of the past for it.
func (h *Hub) placeLocked(c *Client, since Since, hint place, now time.Time) (from uint64, ok bool) {
	if since == (Since{}) {
		return 0, false
	}
	begin := h.begin
	if !since.Time.IsZero() {
		begin = h.frames.since(since.Time, h.begin)
	}
	logs, few := h.history.find(c.wants(), begin, now)
	switch {
	case since.Newest > 0 && few && since.Newest <= maxSearch:
		oldest, ok := newest(logs, since.Newest)
		if !ok {
			return 0, false
		}
		return oldest.seq, true
	case since.Newest > 0:
		return hint.seq, hint.seq >= h.begin && hint.epoch == h.epoch
	case !few:
		return begin, true
	}
	all := runs(logs, begin, 1)
	if since.Latest {
		if newest, few := newestOnly(logs, begin); few {
			all = newest
		}
	}
	for _, run := range all {
		if first := run[0].seq; !ok || first < from {
			from, ok = first, true
		}
	}
	return from, ok
}

// positionBeforeLocked returns the broker's log's position before a place.
func (h *Hub) positionBeforeLocked(seq uint64) Position {
	if seq >= h.frames.ring {
		return h.frames.positionAt(seq)
	}
	if next, _ := h.frames.collect(nil, seq, h.frames.next, 1); len(next) > 0 {
		if f := next[0]; !f.is(ephemeral|announced) && !f.isBackdated() {
			return h.previousLocked(f.position)
		}
		return next[0].position
	}
	return h.last
}

// since returns the place of the first message that the broker's log took at or after a time, of the log that begins at
// a place. If that log's clock was set back meanwhile, it is a place where that time was reached.
func (q *sequence) since(t time.Time, begin uint64) uint64 {
	least, first := t.UnixNano(), max(0, q.find(begin))
	i := first + sort.Search(len(q.blocks)-first, func(i int) bool { return q.blocks[first+i].opened >= least }) - 1
	for i = max(first, i); i < len(q.blocks); i++ {
		for _, f := range q.blocks[i].frames {
			if f != nil && f.seq >= begin && f.time >= least && !f.is(ephemeral|announced) {
				return f.seq
			}
		}
	}
	return q.next
}
