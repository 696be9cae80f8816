package hub

import (
	"context"
	"time"
)

// maxLag is how long a client that comes back waits for a hub that is behind its ID.
const maxLag = 2 * time.Second

// Of a log that several instances follow, a client may bring an ID that it got from one and that is
// still on its way to another. Judged at once, it would be told a gap that there is not.

// arrivals are the positions that somebody waits for the hub to come to; closed when that is decided.
// It is guarded by Hub.mu.
type arrivals map[Position]*arrival

type arrival struct {
	waiting int
	decided chan struct{}
}

// maxArrivals bounds how many positions are waited for: anybody can invent some.
const maxArrivals = 10_000

// decide lets go on who waits for p.
func (a arrivals) decide(p Position) {
	if len(a) == 0 {
		return
	}
	if waited, ok := a[p]; ok {
		close(waited.decided)
		delete(a, p)
	}
}

// decideAllLocked lets everybody go on: the log does not go on as it did. There may be many, so it does not wait for
// that. Once the hub has ended nobody waits.
func (h *Hub) decideAllLocked() {
	if all := h.arrivals; len(all) > 0 && h.ended == nil {
		h.arrivals = make(arrivals)
		h.running.Go(func() {
			for _, waited := range all {
				close(waited.decided)
			}
		})
	}
}

// stopAwaiting lets everybody go on: what they wait for is not coming soon.
func (h *Hub) stopAwaiting() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.decideAllLocked()
}

// AwaitID returns when the hub has come as far as an ID, or is not going to soon: at once if that is
// not an ID that the hub's log is yet to come to.
func (h *Hub) AwaitID(ctx context.Context, id string) {
	p, _, ok := parseLast(id)
	if !ok {
		return
	}
	h.mu.Lock()
	if !h.shared || h.LogAway() || p.Epoch != h.epoch || !p.Position.After(h.last) || h.ended != nil {
		h.mu.Unlock()
		return
	}
	waited := h.arrivals[p.Position]
	if waited == nil && len(h.arrivals) == maxArrivals {
		h.mu.Unlock()
		return
	}
	if waited == nil {
		waited = &arrival{decided: make(chan struct{})}
		h.arrivals[p.Position] = waited
	}
	waited.waiting++
	h.mu.Unlock()

	timeout := time.NewTimer(maxLag)
	defer timeout.Stop()
	select {
	case <-waited.decided:
		return
	case <-timeout.C:
	case <-ctx.Done():
	case <-h.context.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if waited.waiting--; waited.waiting == 0 && h.arrivals[p.Position] == waited {
		delete(h.arrivals, p.Position)
	}
}
