package hub

import (
	"cmp"
	"maps"
	"slices"
)

// This file is how a client begins with the newest message of each topic. What is newer meanwhile takes the place of an
// older one, since the client gets that as well.

// collectNewest appends to to, of the frames from a place up to another, those that are the newest of some address, or
// of some key there, after having looked at so many. It returns the place to go on at. A frame that was once found to
// be outdated stays so: what is looked at again and again are the others.
func (h *history) collectNewest(to []*Frame, from, until uint64, most int) ([]*Frame, uint64) {
	q := h.frames
	for i := max(0, q.find(from)); i < len(q.blocks) && q.blocks[i].first < until; i++ {
		b := q.blocks[i]
		if most--; most < 0 {
			return to, max(from, b.first)
		}
		if b.outdated {
			continue
		}
		all := i+1 < len(q.blocks) && from <= b.first // the block is closed, and looked at as a whole
		for _, f := range b.frames[b.index(from):] {
			switch {
			case f == nil:
				continue
			case f.seq >= until:
				return to, until
			case most <= 0:
				return to, f.seq
			}
			most--
			switch {
			case f.kept == 0: // it goes with the ring
			case f.outdated:
			case h.isNewest(f):
				to, all = append(to, f), false
				most -= len(f.others())
			default:
				f.outdated = true
				most -= len(f.others())
			}
		}
		b.outdated = all
	}
	return to, until
}

// isNewest reports whether a frame is the newest of one of its addresses, or of its key there.
func (h *history) isNewest(f *Frame) (is bool) {
	f.addresses(func(a *Address) { is = is || h.isNewestOf(f, a) })
	return is
}

// isNewestOf reports whether a frame is the newest of an address, or of its key there.
func (h *history) isNewestOf(f *Frame, a *Address) bool {
	l := h.log(*a)
	return l != nil && l.newestOf(f.key) == f
}

// newestOf returns the newest message of a key; nil if there is none.
func (l *addressLog) newestOf(key string) *Frame {
	if l.keys != nil {
		return l.keys[key]
	}
	return l.frames[len(l.frames)-1] // none has a key
}

// noteKey notes that a message is the newest of its key. It comes next in the log.
func (l *addressLog) noteKey(f *Frame) {
	if l.keys == nil {
		if f.key == "" {
			return
		}
		l.keys = make(map[string]*Frame)
		if n := len(l.frames); n > 0 {
			l.keys[""] = l.frames[n-1]
		}
	}
	l.keys[f.key] = f
}

// forgetKey notes that a message is no longer in the log.
func (l *addressLog) forgetKey(f *Frame) {
	if l.keys[f.key] == f {
		delete(l.keys, f.key)
	}
}

// newestOnly returns, of each log, the frames that are the newest of it, or of a key there, from a place on. few is
// false if they are too many to look for.
func newestOnly(logs []*addressLog, from uint64) (all merge, few bool) {
	left := maxSearch
	for _, l := range logs {
		if left -= len(l.keys); left < 0 {
			return nil, false
		}
		if l.frames[len(l.frames)-1].seq < from {
			continue
		}
		if l.keys == nil {
			all = append(all, []*Frame{l.frames[len(l.frames)-1]})
			continue
		}
		run := slices.SortedFunc(maps.Values(l.keys), func(a, b *Frame) int { return cmp.Compare(a.seq, b.seq) })
		i, _ := slices.BinarySearchFunc(run, from, func(f *Frame, seq uint64) int { return cmp.Compare(f.seq, seq) })
		all = append(all, run[i:])
	}
	return all, true
}

// isOutdatedFor reports whether a frame with several addresses is the newest of none that the client listens at.
func (h *Hub) isOutdatedFor(c *Client, f *Frame) bool {
	if len(f.others()) == 0 {
		return false
	}
	var newest []*Address
	h.mu.Lock()
	f.addresses(func(a *Address) {
		if h.history.isNewestOf(f, a) {
			newest = append(newest, a)
		}
	})
	h.mu.Unlock()
	return !slices.ContainsFunc(newest, c.listensAt)
}
