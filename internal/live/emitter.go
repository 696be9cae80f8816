package live

import (
	"sync"
	"time"
)

// emitter tells those who listen to Caddy's events, in order, on a goroutine of its own: a handler may take its time,
// publish or reload, and holds up nobody.
type emitter struct {
	mu      sync.Mutex // guards all below
	waiting []func()
	drained chan struct{} // closed when nothing waits any more; nil while nothing does
}

// maxEvents is how many events may wait for handlers that are slower than what happens.
const maxEvents = 10_000

// add has an event emitted once those before it have been. It reports whether there was room for it.
func (e *emitter) add(emit func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) >= maxEvents {
		return false
	}
	e.waiting = append(e.waiting, emit)
	if e.drained == nil {
		e.drained = make(chan struct{})
		go e.run()
	}
	return true
}

// run emits what waits, until nothing does.
func (e *emitter) run() {
	for {
		e.mu.Lock()
		if len(e.waiting) == 0 {
			close(e.drained)
			e.waiting, e.drained = nil, nil
			e.mu.Unlock()
			return
		}
		emit := e.waiting[0]
		e.waiting[0] = nil
		e.waiting = e.waiting[1:]
		e.mu.Unlock()
		survive(emit)
	}
}

// survive calls a function of others, which may panic.
func survive(call func()) {
	defer func() { _ = recover() }()
	call()
}

// wait returns when nothing waits any more, or after that long.
func (e *emitter) wait(atMost time.Duration) {
	e.mu.Lock()
	drained := e.drained
	e.mu.Unlock()
	if drained == nil {
		return
	}
	select {
	case <-drained:
	case <-time.After(atMost):
	}
}
