package hub

import (
	"container/heap"
	"time"
)

// find returns the logs of what somebody wants that have something at or after a place, trimmed as of now. few is false
// if they are too many to look for.
func (h *history) find(w wants, from uint64, now time.Time) (logs []*addressLog, few bool) {
	for _, a := range w.addresses {
		if l := h.log(a); l != nil && l.last >= from {
			logs = append(logs, l)
		}
	}
	if few = h.recent(&w, from, &logs) || h.search(&w, from, &logs); few {
		kept, left := logs[:0], maxStep
		for _, l := range logs {
			if left > 0 {
				left -= h.trim(l, now)
			}
			if len(l.frames) > 0 {
				kept = append(kept, l)
			}
		}
		logs = kept
	}
	return logs, few
}

// recent finds logs by patterns among those that were published to last.
func (h *history) recent(w *wants, from uint64, logs *[]*addressLog) (done bool) {
	if len(w.patterns) == 0 {
		return true
	}
	found := *logs
	a, b := h.order.latest, h.latestOrder.latest
	for range h.most.logs {
		l := &a
		if a == nil || b != nil && b.last > a.last {
			l = &b
		}
		if *l == nil || (*l).last < from {
			*logs = found
			return true
		}
		if (*l).directory != nil && w.covers(&(*l).address) {
			found = append(found, *l)
		}
		*l = (*l).older
	}
	return false
}

// search finds logs by patterns in the tree of topics.
func (h *history) search(w *wants, from uint64, logs *[]*addressLog) (done bool) {
	s := search{steps: maxSearch, from: from}
	s.found = func(l *addressLog) bool {
		switch {
		case w.selectors != nil && !w.selectors.Match(l.address.Name):
			return true
		case len(*logs) < h.most.logs:
			*logs = append(*logs, l)
			return true
		}
		return false
	}
	for _, kind := range w.kinds() {
		for _, pattern := range w.patterns {
			if !s.logs(&h.trees[kind].root, pattern) {
				return false
			}
		}
	}
	return true
}

// runs returns, of each log, the frames at or after a place, no more than so many: what a merge may need. They are
// copied, so that they can be merged without the hub's lock.
func runs(logs []*addressLog, from uint64, most int) (all merge) {
	for _, l := range logs {
		if i := l.search(from); i < len(l.frames) {
			all = append(all, append([]*Frame(nil), l.frames[i:min(len(l.frames), i+most)]...))
		}
	}
	return all
}

// merged appends the frames of runs at places before another, each once and in the log's order: at most limit frames
// and, beyond the first, at most bytes. It returns the place to go on at.
func merged(to []*Frame, all merge, until uint64, limit, bytes int) ([]*Frame, uint64) {
	rest := mergeForward{all}
	heap.Init(&rest)
	taken := 0
	for last := (*Frame)(nil); len(rest.merge) > 0; rest.advance() {
		f := rest.merge[0][0]
		switch {
		case f == last:
			continue
		case f.seq >= until:
			return to, until
		case taken > 0 && (taken >= limit || f.size() > bytes):
			return to, f.seq
		}
		bytes -= f.size()
		taken++
		to = append(to, f)
		last = f
	}
	return to, until
}

// newest returns the place of the oldest of the limit newest frames of the logs, or of the oldest kept one where there
// are fewer; ok is false where there is none.
func newest(logs []*addressLog, limit int) (oldest *Frame, ok bool) {
	var rest mergeBackward
	for _, l := range logs {
		if len(l.frames) > 0 {
			rest.merge = append(rest.merge, l.frames)
		}
	}
	heap.Init(&rest)
	for distinct := 0; len(rest.merge) > 0; rest.advance() {
		f := rest.last(0)
		if f == oldest {
			continue
		}
		if distinct == limit {
			break
		}
		oldest = f
		distinct++
	}
	return oldest, oldest != nil
}

// onlyKept leaves, of what was collected behind the first few frames, what is kept for a client. That it stops after
// some steps matters only for messages with very many topics. It returns the place to go on at.
func (h *history) onlyKept(c *Client, frames []*Frame, told int, next uint64) ([]*Frame, uint64) {
	kept, steps := frames[:told], maxSearch
	for _, f := range frames[told:] {
		if steps <= 0 {
			return kept, f.seq
		}
		if h.keepsFor(c, f, &steps) {
			kept = append(kept, f)
		}
	}
	return kept, next
}

// keepsFor reports whether a frame that is for a client is kept, and not only at addresses where the client does not
// listen.
func (h *history) keepsFor(c *Client, f *Frame, steps *int) (keeps bool) {
	if !f.partly {
		return f.kept > 0
	}
	f.addresses(func(a *Address) {
		*steps -= 1 + len(c.patterns)
		if l := h.log(*a); !keeps && l != nil && c.listensAt(a) {
			i := l.search(f.seq)
			keeps = i < len(l.frames) && l.frames[i] == f
		}
	})
	return keeps
}

// merge is runs of frames, each in order, that a heap merges into one: on top is the run that goes next.
type merge [][]*Frame

func (r merge) Len() int      { return len(r) }
func (r merge) Swap(i, j int) { r[i], r[j] = r[j], r[i] }
func (r *merge) Push(x any)   { *r = append(*r, x.([]*Frame)) }
func (r *merge) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

// shorten puts what is left of the run on top in its place.
func (r *merge) shorten(order heap.Interface, rest []*Frame) {
	if (*r)[0] = rest; len(rest) > 0 {
		heap.Fix(order, 0)
	} else {
		heap.Pop(order)
	}
}

// mergeForward merges runs from their beginnings.
type mergeForward struct{ merge }

func (f mergeForward) Less(i, j int) bool { return f.merge[i][0].seq < f.merge[j][0].seq }

// advance goes past the first frame of the run on top.
func (f *mergeForward) advance() { f.shorten(f, f.merge[0][1:]) }

// mergeBackward merges runs from their ends.
type mergeBackward struct{ merge }

func (b mergeBackward) Less(i, j int) bool { return b.last(i).seq > b.last(j).seq }

func (b mergeBackward) last(i int) *Frame { return b.merge[i][len(b.merge[i])-1] }

// advance goes past the last frame of the run on top.
func (b *mergeBackward) advance() { b.shorten(b, b.merge[0][:len(b.merge[0])-1]) }
