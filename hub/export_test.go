package hub

// Shrink makes a hub do, and hold, little at once, so that a test comes to what else only long logs come to.
func Shrink(h *Hub, ring uint64, logs, turn int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.most = measures{
		ringFrames: ring, ringBytes: int(ring) * 200, logs: logs,
		turnFrames: turn, turnBytes: turn * 200, turnLooks: turn, batch: turn,
	}
}
