package e2etest

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// Reconnecting subscribes as a browser's EventSource does: when the stream ends
// or the server can't be reached, it comes back after the delay the server
// told, with the last ID it saw; an answer that is not an event stream ends it
// for good. It keeps all that it gets.
//
// Its methods may be called from any goroutine.
type Reconnecting struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended

	mu       sync.Mutex // guards the rest
	stream   *Stream    // nil between two connections
	events   []eventstream.Event
	connects []Connected
	err      error
	changed  chan struct{} // closed and made anew when any of these change
}

// browserRetry is how long browsers wait that were told nothing.
const browserRetry = 3 * time.Second

// Reconnect starts a reconnecting client. It ends with the test.
func Reconnect(t testing.TB, url string, options ...Option) *Reconnecting {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Reconnecting{cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	go r.run(ctx, url, options)
	t.Cleanup(func() { r.Stop() })
	return r
}

func (r *Reconnecting) run(ctx context.Context, url string, options []Option) {
	defer close(r.done)
	retry := browserRetry
	lastID := ""
	for ctx.Err() == nil {
		withID := options
		if lastID != "" {
			withID = append(slices.Clip(options), LastEventID(lastID))
		}
		stream, err := Open(ctx, url, append(slices.Clip(withID), Each(r.add))...)
		if refused, ok := errors.AsType[*Refused](err); ok {
			r.update(func() { r.err = refused })
			return
		}
		if err == nil {
			r.follow(stream)
			lastID = stream.LastID()
			if told := stream.Retry(); told > 0 {
				retry = told
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

// follow returns when the stream has ended.
func (r *Reconnecting) follow(stream *Stream) {
	defer stream.Close()
	r.update(func() { r.stream = stream })
	defer r.update(func() { r.stream = nil })
	if connected, err := stream.awaitConnected(math.MaxInt64); err == nil {
		r.update(func() { r.connects = append(r.connects, connected) })
	}
	<-stream.done
}

func (r *Reconnecting) add(event eventstream.Event) {
	r.update(func() { r.events = append(r.events, event) })
}

func (r *Reconnecting) update(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.changed)
	r.changed = make(chan struct{})
}

// Cut drops the present connection, as a failing network does, and reports
// whether there was one.
func (r *Reconnecting) Cut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream == nil {
		return false
	}
	r.stream.cancel()
	return true
}

// Await waits until enough(events so far) or fails the test. enough must not
// keep the slice.
func (r *Reconnecting) Await(t testing.TB, timeout time.Duration, enough func([]eventstream.Event) bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		ok, n, err, changed := enough(r.events), len(r.events), r.err, r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-r.done:
			t.Fatalf("the client has ended with %d events: %v", n, err)
		case <-deadline.C:
			t.Fatalf("%d events within %v are not enough", n, timeout)
		}
	}
}

// Events returns all events so far but `connected`.
func (r *Reconnecting) Events() []eventstream.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Connects returns the event `connected` of every connection so far.
func (r *Reconnecting) Connects() []Connected {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.connects)
}

// Err returns the [*Refused] that ended the client for good, or nil.
func (r *Reconnecting) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Stop ends the client, waits until nothing of it is left, and returns all
// events.
func (r *Reconnecting) Stop() []eventstream.Event {
	r.cancel()
	<-r.done
	return r.Events()
}
