package hub

import (
	"testing"
)

// WantSettled checks that nothing is left of the clients that a hub had.
func WantSettled(t testing.TB, h *Hub) {
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

// What follows lets tests outside of the package see what no other code is to see.

const (
	Window        = window
	SweepInterval = sweepInterval
	BarTime       = barTime
	MaxShown      = maxShown
	MaxPatience   = maxPatience
	LookAgain     = lookAgain
	OtherCause    = otherCause
)

// HasTimer reports whether a timer of the hub's clock was ever needed.
func (h *Hub) HasTimer() bool {
	h.clock.mu.Lock()
	defer h.clock.mu.Unlock()
	return h.clock.timer != nil
}

// Appointments returns how many clients the hub's clock watches.
func (h *Hub) Appointments() int {
	h.clock.mu.Lock()
	defer h.clock.mu.Unlock()
	return len(h.clock.waiting)
}

// Sweep is what runs every SweepInterval.
func (h *Hub) Sweep() { h.sweep() }

// Leftovers returns how many owners, addresses with messages and barred client_ids the hub knows.
func (h *Hub) Leftovers() (owners, logs, barred int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.owners), len(h.history.logs), len(h.barred)
}

// NobodyIsBehind reports whether neither clients that were woken nor full queues hold publishers up.
func (h *Hub) NobodyIsBehind() bool { return h.pace.woken.Load() == 0 && h.pace.full.Load() == 0 }

// Queued returns how many messages wait for the client, and for how many there is room without another allocation.
func (c *Client) Queued() (messages, room int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue), cap(c.queue)
}

// Causes returns the causes that have names of their own.
func Causes() (all []error) {
	for _, cause := range causes {
		all = append(all, cause.err)
	}
	return all
}
