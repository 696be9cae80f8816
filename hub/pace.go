package hub

import (
	"context"
	"sync"
	"sync/atomic"
)

// window is how many messages may wait for each addressed client, on average, before publishers wait
// too. It is well under any client's queue, and large enough that one write carries many messages.
const window = 32

// pace holds publishers back while the machine is behind its clients. It counts what waits for our
// turn; what waits for a client's own socket is that client's problem.
type pace struct {
	waiting atomic.Int64 // messages queued for clients that were woken and have not had their turn
	woken   atomic.Int64 // how many such clients there are
	full    atomic.Int64 // clients over their queue's limit that publishers still have patience with
	heldFor atomic.Int64 // the most receivers that somebody who waits has addressed; 0: nobody waits

	mu       sync.Mutex
	released chan struct{} // closed when publishers may look again; guarded by mu
}

// behind reports whether whoever has published to so many clients should wait.
func (p *pace) behind(receivers int64) bool {
	return p.full.Load() > 0 || p.waiting.Load() > window*max(receivers, p.woken.Load())
}

// wait returns when the machine has caught up, or with ctx.
func (p *pace) wait(ctx context.Context, receivers int) {
	n := int64(receivers)
	for n > 0 && p.behind(n) {
		p.mu.Lock()
		if p.released == nil {
			p.released = make(chan struct{})
		}
		released := p.released
		p.heldFor.Store(max(n, p.heldFor.Load()))
		p.mu.Unlock()
		if !p.behind(n) { // it may have ended before heldFor was seen
			p.releaseIfCaughtUp()
			return
		}
		select {
		case <-released:
		case <-ctx.Done():
			return
		}
	}
}

// took notes that a woken client had its turn and took n messages.
func (p *pace) took(n int) {
	p.waiting.Add(int64(-n))
	p.woken.Add(-1)
	p.releaseIfCaughtUp()
}

// emptied notes that a full client has room again, or nobody's patience any more.
func (p *pace) emptied() {
	p.full.Add(-1)
	p.releaseIfCaughtUp()
}

func (p *pace) releaseIfCaughtUp() {
	n := p.heldFor.Load()
	if n == 0 || p.behind(n) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released != nil {
		close(p.released)
		p.released = nil
		p.heldFor.Store(0)
	}
}
