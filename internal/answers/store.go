package answers

import (
	"container/list"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Store has the answers of one hub, in this process. It outlives configs, as hubs do.
type Store struct {
	open  context.Context // ends when the process exits, or when nobody uses the store any more
	close context.CancelCauseFunc

	bytes atomic.Int64   // of all answers
	tasks sync.WaitGroup // what tells and asks other instances

	mu      sync.Mutex // guards all below
	byID    map[string]*Answer
	claimed map[claim]*Answer // by key and by name
	idle    list.List         // of answers that nobody reads and that still go on, the longest alone first
	kept    list.List         // of answers that have ended, the longest ended first
	heads   list.List         // of those whose log gave way
	stats   Stats
	shared  Shared // nil for none
	// claiming are keys that the other instances are being asked for. The channel is closed when they have said.
	claiming map[claim]chan struct{}
}

// NewStore returns a store without answers.
func NewStore() *Store {
	s := &Store{byID: make(map[string]*Answer), claimed: make(map[claim]*Answer), claiming: make(map[claim]chan struct{})}
	s.open, s.close = context.WithCancelCause(context.Background())
	return s
}

// Context ends when the process exits, or when nobody uses the store any more. Readers are cut then.
func (s *Store) Context() context.Context { return s.open }

// Close cuts all readers, and ends all answers but those that have not said yet what they answer to somebody
// who waits.
func (s *Store) Close(cause error) {
	s.close(cause)
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.byID))
	s.mu.Unlock()
	for _, a := range all {
		s.mu.Lock()
		waits := a.readers > 0
		s.mu.Unlock()
		state, _ := a.State()
		switch {
		case a.mirror:
		case state == Live, state == Pending && !waits:
			s.end(a, Aborted, OwnerLost)
		case state.ended():
			stopTimers(a)
		}
	}
}

// Wait waits, after Close, until the other instances have been told, but not longer than atMost.
func (s *Store) Wait(atMost time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.tasks.Wait()
	}()
	select {
	case <-done:
	case <-time.After(atMost):
	}
	s.Share(nil)
}

// end ends an answer. It reports false if it had ended before.
func (s *Store) end(a *Answer, state State, reason Reason) bool {
	a.mu.Lock()
	if !a.endLocked(state, reason) {
		a.mu.Unlock()
		return false
	}
	grown := a.countLocked()
	a.mu.Unlock()
	switch state {
	case Stopped:
		a.cancel(ErrStopped)
	case Aborted:
		a.cancel(ErrEnded)
	}
	s.mu.Lock()
	s.notIdleLocked(a)
	stopTimers(a)
	a.gone = true
	switch {
	case state == Done:
		s.stats.Done++
	case state == Stopped:
		s.stats.Stopped++
	case state == Passed:
		s.stats.Passed++
	case reason == Abandoned:
		s.stats.Abandoned++
	default:
		s.stats.Aborted++
	}
	if state == Passed {
		s.releaseLocked(a)
	}
	if state == Passed || s.open.Err() != nil {
		s.forgetLocked(a)
	} else {
		a.place, a.among = s.kept.PushBack(a), &s.kept
		a.ttlTimer = time.AfterFunc(a.bounds.TTL, func() { s.expire(a) })
	}
	s.mu.Unlock()
	s.grow(a, grown)
	return true
}

func stopTimers(a *Answer) {
	for _, timer := range []*time.Timer{a.maxTimer, a.ttlTimer, a.idleTimer} {
		if timer != nil {
			timer.Stop()
		}
	}
}

func (s *Store) expire(a *Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked(a)
}

// forgetLocked forgets an answer that has ended. A second call does nothing.
func (s *Store) forgetLocked(a *Answer) {
	if s.byID[a.ID] != a {
		return
	}
	delete(s.byID, a.ID)
	s.unclaimLocked(a)
	stopTimers(a)
	if a.among != nil {
		a.among.Remove(a.place)
		a.among = nil
	}
	a.mu.Lock()
	if a.state != Passed && s.open.Err() == nil { // or who reads on would lack the rest
		a.log.drop()
		a.wakeLocked()
	}
	freed := a.counted
	a.counted = 0
	a.mu.Unlock()
	s.bytes.Add(-freed)
}
