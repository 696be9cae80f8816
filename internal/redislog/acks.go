package redislog

import (
	"sync"

	"github.com/caddy-sse/caddy-sse/hub"
)

// acks are the positions that publishers here were told and that the tail has not come to yet. If
// Redis goes away and comes back without one of them, because a replica had not had it or the disk had
// not, then it has lost what was acknowledged, and this is the only trace.
type acks struct {
	mu        sync.Mutex     // guards all below
	epoch     string         // of positions
	positions []hub.Position // in order
	tail      hub.ID         // how far the tail has come
}

// add notes what is about to be acknowledged. It is called in the log's order.
func (p *acks) add(id hub.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != id.Epoch { // what was promised before is told as a gap
		p.epoch, p.positions = id.Epoch, nil
	}
	if p.tail.Epoch != id.Epoch || id.Position.After(p.tail.Position) {
		p.positions = append(p.positions, id.Position)
	}
}

// reached notes how far the tail has come. It reports whether it has left nothing out on the way that
// was promised.
func (p *acks) reached(at hub.ID) (kept bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tail, kept = at, true
	for p.epoch == at.Epoch && len(p.positions) > 0 && !p.positions[0].After(at.Position) {
		kept = kept && p.positions[0] == at.Position
		p.positions = p.positions[1:]
	}
	return kept
}

// cameTo returns how far the tail has come.
func (p *acks) cameTo() hub.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tail
}

// newest returns the newest position that is still to come in a log; the zero Position if none is.
func (p *acks) newest(epoch string) hub.Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != epoch || len(p.positions) == 0 {
		return hub.Position{}
	}
	return p.positions[len(p.positions)-1]
}
