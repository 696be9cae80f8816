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

// Await returns when the hub has come as far as what a client brings, or is not going to soon.
func (h *Hub) Await(ctx context.Context, s *Subscription) {
	if s.Selectors != nil {
		h.awaitCursor(ctx, s.LastEventID)
	} else {
		h.AwaitID(ctx, s.LastEventID)
	}
}

// awaitCursor is Await for a client with Selectors. An ID that a publisher chose does not tell how far the log has come
// that has it: if the hub does not know it, it comes as far as the log is now.
func (h *Hub) awaitCursor(ctx context.Context, cursor string) {
	h.mu.Lock()
	epoch, newest := h.epoch, h.newest
	_, known := h.cursorLocked(cursor)
	hash, p, isURN := parseURN(cursor)
	isURN = isURN && hash == hashOfEpoch(epoch)
	look := cursor != "" && !known && !isURN && newest != nil && !h.LogAway() && h.looks.allow(time.Now())
	h.mu.Unlock()
	switch {
	case isURN && !known:
		h.awaitPosition(ctx, ID{epoch, p})
	case look:
		ctx, cancel := context.WithTimeout(ctx, maxLag)
		defer cancel()
		if p, err := newest(ctx); err == nil { // else it is unknown
			h.awaitPosition(ctx, ID{epoch, p})
		}
	}
}

// looks bounds how often a log is asked for its end: anybody can bring a cursor that nobody knows.
type looks struct {
	second time.Time // that is counted
	n      int
}

// maxLooks is how many looks there may be in a second.
const maxLooks = 50

func (l *looks) allow(now time.Time) bool {
	if now.Sub(l.second) >= time.Second {
		*l = looks{second: now}
	}
	l.n++
	return l.n <= maxLooks
}

// AwaitID returns when the hub has come as far as an ID, or is not going to soon: at once if that is
// not an ID that the hub's log is yet to come to.
func (h *Hub) AwaitID(ctx context.Context, id string) {
	if p, _, ok := parseLast(id); ok {
		h.awaitPosition(ctx, p)
	}
}

func (h *Hub) awaitPosition(ctx context.Context, p ID) {
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
