package hub

import "slices"

// values are what the log of an address has besides, if it keeps only the newest message of each key.
type values struct {
	// byKey has the newest message of each key. It is nil while the log has at most one message.
	byKey map[string]*Frame
	// unsorted is how many of the log's oldest messages are not looked at yet. They are from before the policy.
	unsorted int
	// replaced are messages that have given way to newer ones, but are pinned. Each is counted as excess.
	replaced []*Frame
}

// of returns the newest message of a key, as far as the log's messages are sorted.
func (v *values) of(l *addressLog, key string) *Frame {
	switch {
	case v.byKey != nil:
		return v.byKey[key]
	case len(l.frames) == 1 && v.unsorted == 0 && l.frames[0].key == key:
		return l.frames[0]
	}
	return nil
}

// put makes a message the newest of its key. It stands in the log.
func (v *values) put(l *addressLog, f *Frame) {
	if v.byKey == nil && len(l.frames) > 1 {
		v.byKey = make(map[string]*Frame)
		for _, older := range l.frames[v.unsorted:] { // one, but for the new one
			v.byKey[older.key] = older
		}
	}
	if v.byKey != nil {
		v.byKey[f.key] = f
	}
}

// appendLatest appends a message to a log that keeps the newest of each key. The one that it replaces goes.
func (h *history) appendLatest(l *addressLog, f *Frame) {
	v := l.values
	replaced := v.of(l, f.key)
	l.frames = append(l.frames, f)
	if replaced != nil && replaced.seq < h.pin {
		if v.byKey != nil {
			v.byKey[f.key] = f
		}
		h.dropAt(l, []int{l.search(replaced.seq)})
		return
	}
	v.put(l, f)
	if replaced != nil {
		h.replace(l, replaced)
	}
}

// replace notes that a message has given way to a newer one, and can't go while it is pinned.
func (h *history) replace(l *addressLog, f *Frame) {
	l.values.replaced = append(l.values.replaced, f)
	h.excess++
	h.excessBytes += int64(f.size())
	h.queue(l)
}

// trimLatest looks at what is not sorted yet, and drops what has given way to newer messages and was pinned: no more
// than so many messages. It returns how many it has looked at.
func (h *history) trimLatest(l *addressLog, atMost int) (looked int) {
	v := l.values
	var gone []int
	if v.unsorted > 0 && v.byKey == nil {
		v.byKey = make(map[string]*Frame)
	}
	for ; v.unsorted > 0 && looked < atMost; looked++ {
		v.unsorted--
		f := l.frames[v.unsorted]
		switch {
		case v.byKey[f.key] == nil:
			v.byKey[f.key] = f
		case f.seq < h.pin:
			gone = append(gone, v.unsorted)
		default:
			h.replace(l, f)
		}
	}
	if v.unsorted == 0 {
		for range min(len(v.replaced), atMost-looked) {
			f := v.replaced[0]
			v.replaced = v.replaced[1:]
			looked++
			if f.seq < h.pin {
				h.unexcess(f)
				gone = append(gone, l.search(f.seq))
			} else {
				v.replaced = append(v.replaced, f)
			}
		}
	}
	if slices.Sort(gone); len(gone) > 0 {
		h.dropAt(l, gone)
	}
	if v.unsorted > 0 || len(v.replaced) > 0 {
		h.queue(l)
	}
	return looked
}

// dropAt removes messages within a log that newer ones have replaced, by their indexes in order. Who missed them has
// missed something, unless a newer message may take their place.
func (h *history) dropAt(l *addressLog, gone []int) {
	for _, i := range gone {
		f := l.frames[i]
		if !l.policy.Conflate {
			l.lost(f)
		}
		h.letGo(f)
	}
	at := gone[0]
	for n, i := range gone {
		next := len(l.frames)
		if n+1 < len(gone) {
			next = gone[n+1]
		}
		at += copy(l.frames[at:], l.frames[i+1:next])
	}
	clear(l.frames[at:])
	l.frames = l.frames[:at]
	if len(l.frames) == 1 {
		l.values.byKey = nil
	}
	h.trims++
	l.directory.lost(l.trimmed)
}

// forgetKeys notes that the n oldest messages of a log go that keeps the newest of each key.
func (h *history) forgetKeys(l *addressLog, n int) {
	v := l.values
	for _, f := range l.frames[min(n, v.unsorted):n] {
		if v.of(l, f.key) == f {
			delete(v.byKey, f.key)
			if h.noteReleased {
				h.released.push(Value{l.address.Name, f.key, f.publishedAt()})
			}
		} else if i := slices.Index(v.replaced, f); i >= 0 {
			v.replaced = slices.Delete(v.replaced, i, i+1)
			h.unexcess(f)
		}
	}
	v.unsorted = max(0, v.unsorted-n)
}

// setPolicy has a log follow the policy that is now its topic's, or the limits of the hub. What is beyond is dropped
// by trim, which also sorts what is kept, if only the newest of each key is to stay.
func (h *history) setPolicy(l *addressLog) {
	l.policy = h.policy(l.address)
	if latest := h.retention(l).Latest; latest != (l.values != nil) {
		h.unlink(l)
		if latest {
			for ; l.excess > 0; l.excess-- {
				h.unexcess(l.frames[l.excess-1])
			}
			l.values = &values{unsorted: len(l.frames)}
		} else {
			for _, f := range l.values.replaced {
				h.unexcess(f)
			}
			l.values = nil
		}
		h.link(l)
	}
	h.age(l)
}

// Value is the newest message of a topic and key.
type Value struct {
	Topic, Key string
	Position   Position
}

// Released returns the values that the hub has stopped keeping since it was called last, or since Follow, because they
// are too old or too many. It is for logs that have set Origin.Holds.
func (h *Hub) Released() []Value {
	h.mu.Lock()
	released := h.history.released.take()
	h.mu.Unlock()
	return released.items()
}

// KeepsLatest reports whether the newest message of each key of a topic is kept, whatever else is published.
func (h *Hub) KeepsLatest(topic string) bool { return h.policies.Load().keepsLatest(topic) }

// IsLatest reports whether the message at a position is the newest of its topic and key, and is kept as such. In doubt it
// is: until a new policy has reached what is kept.
func (h *Hub) IsLatest(v Value) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.history.log(Address{ToTopic, v.Topic})
	switch {
	case h.isHeldLocked(v):
		return true
	case l == nil:
		return false
	case l.values == nil || l.values.unsorted > 0:
		return true
	}
	f := l.values.of(l, v.Key)
	return f != nil && f.publishedAt() == v.Position
}
