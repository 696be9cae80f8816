package answers

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// State is how far an answer has come.
type State string

// The states of an answer. The last four are ends.
const (
	Pending State = "pending" // the upstream has not said yet what it answers
	Live    State = "live"
	Done    State = "done"    // the upstream ended in good order
	Stopped State = "stopped" // somebody who may has stopped it
	Aborted State = "aborted" // it lacks its end; the reason says why
	Passed  State = "passed"  // it is nothing to keep
)

func (s State) ended() bool { return s != Pending && s != Live }

// Reason is why an answer was aborted.
type Reason string

// The reasons.
const (
	Upstream  Reason = "upstream"
	MaxBytes  Reason = "max_bytes"
	MaxTime   Reason = "max_time"
	Abandoned Reason = "abandoned"
	OwnerLost Reason = "owner_lost"
)

// message is what readers are told of a reason.
func (r Reason) message() string {
	switch r {
	case Upstream:
		return "the upstream broke off"
	case MaxBytes:
		return "the answer is longer than may be kept"
	case MaxTime:
		return "the answer took longer than it may"
	case Abandoned:
		return "nobody read the answer, and it was cancelled"
	case OwnerLost:
		return "the instance that had the answer is gone"
	}
	return string(r)
}

// block is the event that ends an answer which was aborted.
func (r Reason) block() []byte {
	data, err := json.Marshal(map[string]any{"error": map[string]string{
		"message": r.message(), "type": "stream_aborted", "code": string(r),
	}})
	if err != nil {
		panic(err) // they are strings
	}
	return fmt.Appendf(nil, "event: error\ndata: %s\n\n", data)
}

// Why an upstream is cancelled, as the cause of its context.
var (
	ErrStopped = errors.New("the answer was stopped")
	ErrEnded   = errors.New("the answer was ended")
	ErrExit    = errors.New("the process exits")
)

// Bounds are how long an answer may be, and how long it stays.
type Bounds struct {
	MaxBytes int64         // of one answer
	MaxTime  time.Duration // of one answer, from its request on
	MaxTotal int64         // bytes of all answers of the store
	MaxLive  int           // upstreams of the store that nobody reads
	Abandon  time.Duration // nobody reads it: cancelled after that long; 0: never
	TTL      time.Duration // how long it is kept after its end
}

// Head is what an answer begins with.
type Head struct {
	Kind       Kind
	ReplaceIDs bool                // id lines of the upstream are left out
	Header     map[string][]string // of the response
}

// Answer is what one upstream answers to one request.
type Answer struct {
	ID  string
	URL string // where its own request went

	store  *Store
	owner  string
	body   [sha256.Size]byte // of its request
	claims []claim
	since  time.Time // when the request came
	bounds Bounds
	cancel func(cause error) // ends the upstream

	mirror bool   // another instance owns it
	shared Shared // nil if the answer is not shared

	decided chan struct{} // closed once it is known whether the answer is kept, or that there will be none

	// Guarded by store.mu.
	readers   int           // requests that have the answer
	gone      bool          // it has ended, and is in none of the lists of what goes on
	late      bool          // it has taken longer than it may
	place     *list.Element // in the store's idle, kept or heads
	among     *list.List    // kept or heads, once it is there
	idleTimer *time.Timer   // cancels the upstream that nobody reads
	maxTimer  *time.Timer
	ttlTimer  *time.Timer
	toldAll   chan struct{} // closed when nothing more is told to other instances; nil if nothing ever was

	mu       sync.Mutex // guards all below; store.mu may be taken before it, never after
	state    State
	reason   Reason
	head     Head
	split    splitter
	log      log
	upstream uint64 // numbered pieces that the upstream sent
	counted  int64  // bytes that the store counts for it
	wakes    map[*Reader]struct{}
	told     *Status // what the owner of a mirror said last; nil before it was asked

	seen time.Time // when the owner of a mirror was there
	turn uint64    // of what it said then, or later
	lost bool      // it is gone with a mirror's end, and could not say so
}

// State returns how far the answer has come, and why it was aborted if it was.
func (a *Answer) State() (State, Reason) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state, a.reason
}

// Status is what may be asked of an answer.
type Status struct {
	State  State  `json:"state"`
	Reason Reason `json:"reason,omitempty"`
	Events uint64 `json:"events"`
	Bytes  int64  `json:"bytes"`
}

// Status returns what may be asked of the answer.
func (a *Answer) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.told != nil && !a.state.ended() {
		return *a.told
	}
	return Status{State: a.state, Reason: a.reason, Events: a.upstream, Bytes: a.log.size}
}

// Head returns what the answer begins with, once it is decided.
func (a *Answer) Head() Head {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.head
}

// Decided is closed once it is known whether the answer is kept: then its state is not [Pending].
func (a *Answer) Decided() <-chan struct{} { return a.decided }

// Begin says that the upstream answers with a stream. It reports whether the stream is to be kept: not if it
// was ended meanwhile.
func (a *Answer) Begin(head Head) bool {
	a.store.mu.Lock()
	late := a.late
	a.store.mu.Unlock()
	a.mu.Lock()
	if a.state != Pending || a.store.open.Err() != nil {
		a.mu.Unlock()
		return false
	}
	a.state, a.head, a.split = Live, head, newSplitter(head.Kind, head.ReplaceIDs)
	close(a.decided)
	a.wakeLocked()
	a.mu.Unlock()
	if len(a.claims) == 0 { // others with a claim are told from the request on
		a.store.mu.Lock()
		a.store.shareLocked(a)
		a.store.mu.Unlock()
	}
	if late {
		a.store.end(a, Aborted, MaxTime)
	}
	return true
}

// errNotLive is the error of a write to an answer that has ended.
var errNotLive = errors.New("the answer has ended")

// Write takes in bytes of the upstream. It returns what to pass on as it is if the upstream has ids of its
// own: then the answer is [Passed] and takes nothing more.
func (a *Answer) Write(b []byte) (own []byte, err error) {
	a.mu.Lock()
	if a.state != Live {
		a.mu.Unlock()
		return nil, errNotLive
	}
	over := false
	own = a.split.feed(b, func(piece []byte, numbered bool) {
		if over = over || a.log.size+int64(len(piece)) > a.bounds.MaxBytes; !over {
			a.log.append(piece, numbered)
		}
	})
	over = over || a.log.size+int64(a.split.held()) > a.bounds.MaxBytes
	a.upstream = a.log.last()
	grown := a.countLocked()
	a.wakeLocked()
	a.mu.Unlock()
	a.store.grow(a, grown)
	switch {
	case own != nil:
		a.store.end(a, Passed, "")
	case over:
		a.store.end(a, Aborted, MaxBytes)
		return nil, errNotLive
	}
	return own, nil
}

// End says that the upstream has ended, in good order or not.
func (a *Answer) End(inGoodOrder bool) {
	if inGoodOrder {
		a.store.end(a, Done, "")
	} else {
		a.store.end(a, Aborted, Upstream)
	}
}

// Pass says that what the upstream answers is nothing to keep. Its key and name are free. It reports false if
// the answer was ended meanwhile: then it is not to be passed on either.
func (a *Answer) Pass() bool { return a.store.end(a, Passed, "") }

// Stop ends the answer in good order, and cancels its upstream, also on another instance.
func (a *Answer) Stop() {
	if !a.mirror {
		a.store.end(a, Stopped, "")
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), sharedTime)
	defer cancel()
	if err := a.shared.Stop(ctx, a.ID); err != nil {
		a.shared.Warn("asking another instance to stop an answer", err)
	}
}

// countLocked returns by how much the answer has grown in memory since the last call.
func (a *Answer) countLocked() (grown int64) {
	now := a.log.room() + answerRoom
	if a.split != nil {
		now += int64(a.split.held())
	}
	grown, a.counted = now-a.counted, now
	return grown
}

// answerRoom is about what an answer takes in memory beside its log.
const answerRoom = 1024

func (a *Answer) wakeLocked() {
	for r := range a.wakes {
		r.Poke()
	}
}

// endLocked ends the answer. It reports whether it had not ended before.
func (a *Answer) endLocked(state State, reason Reason) bool {
	if a.state.ended() {
		return false
	}
	wasPending := a.state == Pending
	if state == Done && a.split != nil {
		a.split.finish(func(piece []byte, numbered bool) { a.log.append(piece, numbered) })
		a.upstream = a.log.last()
	}
	a.state, a.reason, a.split = state, reason, nil
	if state == Aborted && !wasPending && a.head.Kind == Events {
		a.log.append(reason.block(), true)
	}
	if wasPending {
		close(a.decided)
	}
	a.wakeLocked()
	return true
}
