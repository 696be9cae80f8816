package redislog

import (
	"sync"

	"github.com/caddy-sse/caddy-sse/hub"
)

// acks are the positions that publishers here were told and that the tail has not read back yet. Redis may go
// away and come back without one of them, because a replica or the disk did not have it yet. Then it has lost
// something that was acknowledged, and only acks tells.
type acks struct {
	mu        sync.Mutex     // guards all below
	epoch     string         // log of positions
	positions []hub.Position // in order
	read      hub.ID         // how far the tail has read
}

// add notes a position that is about to be acknowledged. It is called in the log's order.
func (a *acks) add(id hub.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.epoch != id.Epoch { // clients are told a gap that covers the positions of the old log
		a.epoch, a.positions = id.Epoch, nil
	}
	if a.read.Epoch != id.Epoch || id.Position.After(a.read.Position) {
		a.positions = append(a.positions, id.Position)
	}
}

// reached notes how far the tail has read. It reports whether the tail came to every acknowledged position on
// the way.
func (a *acks) reached(at hub.ID) (complete bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.read, complete = at, true
	for a.epoch == at.Epoch && len(a.positions) > 0 && !a.positions[0].After(at.Position) {
		complete = complete && a.positions[0] == at.Position
		a.positions = a.positions[1:]
	}
	return complete
}

// lastRead returns how far the tail has read.
func (a *acks) lastRead() hub.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.read
}

// newestUnread returns the newest acknowledged position of a log that the tail has not read; the zero
// Position if there is none.
func (a *acks) newestUnread(epoch string) hub.Position {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.epoch != epoch || len(a.positions) == 0 {
		return hub.Position{}
	}
	return a.positions[len(a.positions)-1]
}
