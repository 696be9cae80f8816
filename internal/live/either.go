package live

import (
	"context"
	"sync"
	"time"
)

// either is a context that ends with the first of two. Most calls return without waiting for anything, so nothing is
// set up until somebody waits.
type either struct {
	context.Context // the first; values and deadline are its
	other           context.Context

	mu     sync.Mutex // guards all below
	joined context.Context
	cancel context.CancelFunc // of joined; nil until somebody waits
	stop   func() bool        // waiting for other
}

// endOfBoth returns a context that ends with the first of two, or by cancel.
func endOfBoth(first, other context.Context) (ctx context.Context, cancel context.CancelFunc) {
	e := &either{Context: first, other: other}
	return e, e.end
}

// Done implements context.Context.
func (e *either) Done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.joined == nil {
		e.joined, e.cancel = context.WithCancel(e.Context)
		e.stop = context.AfterFunc(e.other, e.cancel)
	}
	return e.joined.Done()
}

// Err implements context.Context.
func (e *either) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.joined != nil:
		return e.joined.Err()
	case e.other.Err() != nil:
		return context.Canceled
	}
	return e.Context.Err()
}

// Value implements context.Context. What package context asks for once it has asked for Done is joined's: so it
// need not start a goroutine for a context that is derived from this one.
func (e *either) Value(key any) any {
	e.mu.Lock()
	ctx := e.joined
	e.mu.Unlock()
	if ctx == nil {
		ctx = e.Context
	}
	return ctx.Value(key)
}

// end ends the context. A second call does nothing.
func (e *either) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.joined == nil {
		e.joined = ended
		return
	}
	if e.cancel != nil {
		e.stop()
		e.cancel()
	}
}

// ended is a context that has ended.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// WhileOpen derives a context that is also canceled when the hub ends, so that no pending call delays the exit.
func (h *Hub) WhileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	return endOfBoth(ctx, h.Core.Context())
}

// newCalls returns the context of what publishers ask of a broker. It ends by cancel, or soon after the hub.
func (h *Hub) newCalls() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(h.Core.Context(), func() { time.AfterFunc(drainTime/2, cancel) })
	return ctx, func() { stop(); cancel() }
}
