package hub

// This file is where clients listen, for logs that tell other instances. The numbers are read in steps: what changes
// meanwhile is among the changes of the next call.

// Listening returns the addresses and patterns whose numbers of clients have changed since it was called last, with
// those numbers; or all of them. From then on changes are noted, until StopListening. One caller at a time.
func (h *Hub) Listening(all bool) map[Address]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed := h.audience.changed
	h.audience.changed = make(map[Address]struct{})
	if all || changed == nil {
		return h.allListeningLocked()
	}
	h.mu.Unlock() // so much room takes a while to make
	counts := make(map[Address]int, len(changed))
	h.mu.Lock()
	pauses := h.pausesLocked()
	for to := range changed {
		counts[to] = h.audience.count(to)
		pauses.step()
	}
	return counts
}

func (h *Hub) allListeningLocked() map[Address]int {
	a := h.audience
	room := a.all.n + len(a.names[ToClient]) + len(a.names[ToUser])
	h.mu.Unlock() // so much room takes a while to make
	counts := make(map[Address]int, room+room/8)
	h.mu.Lock()
	pauses := h.pausesLocked()
	if a.everybody > 0 {
		counts[everybody] = a.everybody
	}
	for kind, names := range a.names {
		for name, n := range names {
			counts[Address{Kind(kind), name}] = int(n.clients)
			pauses.step()
		}
	}
	// From the end: what moves meanwhile into the place of another was looked at.
	for at := a.all.n - 1; at >= 0; at = min(at, a.all.n) - 1 {
		counts[Address{ToTopic, (*a.all.at(at)).name}] = (*a.all.at(at)).clients
		pauses.step()
	}
	return counts
}

// StopListening ends what Listening and Members began.
func (h *Hub) StopListening() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.audience.changed = nil
	if h.presence != nil {
		h.presence.news = nil
	}
}
