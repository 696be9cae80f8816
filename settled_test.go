package sse

import "testing"

// wantSettled checks that nothing is left of the clients that a hub had.
func wantSettled(t testing.TB, h *Hub) {
	t.Helper()
	p := &h.pace
	if w, k, f := p.waiting.Load(), p.woken.Load(), p.full.Load(); w != 0 || k != 0 || f != 0 {
		t.Errorf("with all clients gone %d messages wait for %d woken clients, %d queues are full", w, k, f)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released != nil {
		t.Error("with all clients gone a publisher still waits for them")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.clients != 0 || len(h.sources) != 0 || len(h.index.exact) != 0 || len(h.index.patterns) != 0 {
		t.Errorf("with all clients gone the hub counts %d, from %v, at %v and %v",
			h.clients, h.sources, h.index.exact, h.index.patterns)
	}
	if len(h.arrivals) != 0 {
		t.Errorf("with all clients gone %d positions are still waited for", len(h.arrivals))
	}
}
