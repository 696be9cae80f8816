package hub

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
)

// How far the slowest shard may be behind the log before publishers wait: so many deliveries, and within these
// bounds so many frames. It is large enough that one write carries many messages.
const (
	windowDeliveries = 1 << 16
	leastWindow      = 48
	mostWindow       = 1024
	// idleWindow counts for those who have reached nobody.
	idleWindow = 4096
	// wakeAfter is how many frames for nobody gather before shards are woken to read past them.
	wakeAfter = mostWindow
)

// How much more than its limits history may hold because clients are catching up, before publishers wait.
const (
	mostExcess      = 1 << 16
	mostExcessBytes = 32 << 20
)

// pace holds publishers back while this machine is behind with its own work. It knows of shards only: what waits for
// a client's socket is no part of it.
type pace struct {
	excessive atomic.Bool  // history holds too much for those who are catching up
	waiting   atomic.Int64 // publishers

	mu       sync.Mutex // guards released
	released chan struct{}
}

// window returns how many frames a shard may be behind whoever has published to so many clients.
func window(receivers int) uint64 {
	if receivers == 0 {
		return idleWindow
	}
	return uint64(max(leastWindow, min(mostWindow, windowDeliveries/receivers)))
}

// behind reports whether whoever has published to so many clients should wait.
func (h *Hub) behind(receivers int) bool {
	floor := h.floor()
	return floor != math.MaxUint64 && h.head.Load() > floor+window(receivers) || h.pace.excessive.Load()
}

// floor returns the place of the first frame that some shard needs; the last there is if none needs any.
func (h *Hub) floor() uint64 {
	floor := uint64(math.MaxUint64)
	for _, s := range h.shards {
		floor = min(floor, s.floor.Load())
	}
	return floor
}

// Wait returns when whoever has delivered to so many clients may go on: at once, unless the machine is behind with
// its own work. It returns with ctx as well.
func (h *Hub) Wait(ctx context.Context, receivers int) {
	if !h.behind(receivers) {
		return
	}
	p := &h.pace
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	for {
		p.mu.Lock()
		if p.released == nil {
			p.released = make(chan struct{})
		}
		released := p.released
		p.mu.Unlock()
		if !h.behind(receivers) { // it may have ended before anybody was seen to wait
			return
		}
		h.wakeShards()
		select {
		case <-released:
		case <-ctx.Done():
			return
		}
	}
}

// release lets those who wait look again. A shard calls it when it has read some of the log.
func (p *pace) release() {
	if p.waiting.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released != nil {
		close(p.released)
		p.released = nil
	}
}

// wakeShards has every shard read the log that is not at work.
func (h *Hub) wakeShards() {
	for _, s := range h.shards {
		s.poke()
	}
}
