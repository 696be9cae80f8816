package hub

// This file is what history knows to be lost: marks, by which "complete" is proved.

// lost notes that the log has a frame no longer that somebody may have missed.
func (l *addressLog) lost(f *Frame) {
	if p := f.had(); p.After(l.trimmed) {
		l.trimmed = p
	}
}

// forget notes that an address once had a message at p and has it no more. If it has newer ones, its log tells.
func (h *history) forget(a Address, p Position) {
	h.trims++
	if l := h.log(a); l != nil {
		if p.After(l.trimmed) {
			l.trimmed = p
			l.directory.lost(p)
		}
	}
	if !h.onlyMarked(a, p) {
		return
	}
	h.forgotten.mark(a, p)
	if a.isTopic() && p.After(h.floors[a.Kind]) {
		h.floors[a.Kind] = p
	}
}

// onlyMarked reports whether an address has nothing newer than p that is kept, whose log would tell of p.
func (h *history) onlyMarked(a Address, p Position) bool {
	l := h.log(a)
	return l == nil || p.After(l.frames[len(l.frames)-1].position)
}

// forgetAll notes that anything up to p may be missing, whatever its address.
func (h *history) forgetAll(p Position) {
	h.trims++
	if p.After(h.lostAll) {
		h.lostAll = p
	}
	for kind := range h.floors {
		if p.After(h.floors[kind]) {
			h.floors[kind] = p
		}
	}
}

// maxSearch is how many steps a search by patterns takes under the hub's lock.
const maxSearch = 1000

// lost returns the newest position at which a message that somebody wants may have stood that is no longer kept, if it
// is after p; else p. In doubt one did: of templates, what is lost around them counts, and of private messages those
// that it is not granted.
func (h *history) lost(w wants, p Position) Position {
	latest := func(q Position) {
		if q.After(p) {
			p = q
		}
	}
	latest(h.lostAll)
	for _, a := range w.addresses {
		if l := h.log(a); l != nil {
			latest(l.trimmed)
		} else {
			latest(h.forgotten.of(a))
		}
	}
	if len(w.patterns) == 0 {
		return p
	}
	steps := 2 * maxSearch // which are short
	for _, kind := range w.kinds() {
		latest(h.floors[kind])
		for _, pattern := range w.patterns {
			p = h.trees[kind].root.lostTo(pattern, p, &steps)
		}
	}
	return p
}
