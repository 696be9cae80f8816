package hub

import "time"

// A policy may let a message that waits for a client give way to a newer one of the same topic and key. Each message
// knows the place of the one that it has given way to. A client that is behind passes it by if it will come to the
// newer one: so it gets the newest value where that was published, and none before it. What gave way is no loss when
// history no longer keeps it.
//
// Ephemeral messages neither give way nor replace others: who comes back would get an older value after them. A message
// to several topics replaces others and does not give way: not all who get it get the newer one.

// conflation returns whether a message is for a topic whose messages may give way to newer ones, and in which interval
// one of them at most is to leave.
func (h *Hub) conflation(m *Message) (conflates bool, every time.Duration) {
	if len(h.policies.Load().list) == 0 {
		return false, 0
	}
	for _, to := range m.To {
		if p := h.Policy(to.Name); to.Kind == ToTopic && p != nil && p.Conflate {
			if len(m.To) == 1 {
				every = p.Interval
			}
			return !m.Ephemeral, every
		}
	}
	return false, 0
}

// replaceValuesLocked has the messages before it give way to a frame, which is about to be kept at some addresses: what
// that pushes out of history has given way by then.
func (h *Hub) replaceValuesLocked(f *Frame, to []Address) {
	for _, a := range to {
		v := value{topic: a.Name, key: f.key}
		if older := h.values[v]; older != nil && a.Kind == ToTopic {
			older.newer.Store(f.seq)
			delete(h.values, v)
		}
	}
}

// noteValueLocked has a frame give way to a newer one some day.
func (h *Hub) noteValueLocked(f *Frame) {
	if len(f.others()) == 0 {
		f.traits |= conflated
		h.values[value{topic: f.to.Name, key: f.key}] = f
	}
}

// releasedLocked notes that a frame is gone from the log in memory.
func (h *Hub) releasedLocked(f *Frame) {
	h.forgetValueLocked(f)
	h.forgetChosenLocked(f)
}

// forgetValueLocked forgets a frame that is gone: nobody waits for it.
func (h *Hub) forgetValueLocked(f *Frame) {
	if f.is(conflated) {
		if v := (value{topic: f.to.Name, key: f.key}); h.values[v] == f {
			delete(h.values, v)
		}
	}
}

// gaveWay reports whether a frame has given way to a newer one.
func (f *Frame) gaveWay() bool { return f.is(conflated) && f.newer.Load() != 0 }
