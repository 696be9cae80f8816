package answers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"
)

// Shared joins the answers of several instances. The instance that asked the upstream owns its answer: it
// alone appends to it.
type Shared interface {
	// Claim claims a key, and takes a name over, for an answer that its owner is about to ask for. It returns
	// who has the key already, if an owner is there still or the answer has ended.
	Claim(ctx context.Context, c *Claim) (holder *Holder, err error)
	// Named returns the newest answer of a name; "" if there is none.
	Named(ctx context.Context, name string) (id string, err error)
	// Load returns what is known of an answer; nil if there is none.
	Load(ctx context.Context, id string) (*Record, error)
	// Read returns what an answer has behind a number, and what is known of it; nil if there is none. It tells
	// the owner that somebody reads the answer.
	Read(ctx context.Context, id string, after uint64) ([]Batch, *Record, error)
	// Append appends a batch, or nothing, says that the owner is there, and what is known of the answer now. A
	// batch that was appended before is not appended again. It reports whether somebody wants the answer to be
	// stopped.
	Append(ctx context.Context, id string, batch *Batch, r *Record, keep time.Duration) (stop bool, err error)
	// TellLost notes that a reader is told, by an event of that number, that the answer is lost. It reports whether
	// somebody was told so by the number that this reader had.
	TellLost(ctx context.Context, id string, had, number uint64) (told bool, err error)
	// IsRead reports whether somebody has read an answer lately.
	IsRead(ctx context.Context, id string) (bool, error)
	// Stop asks the owner to stop an answer.
	Stop(ctx context.Context, id string) error
	// Release gives a claim back, if the answer has it still, and forgets the answer.
	Release(ctx context.Context, id string, claims []string) error
	// Start has stopped called for each answer that somebody asks to be stopped. Close ends that.
	Start(stopped func(id string))
	Close()
	// Warn tells an operator what went wrong.
	Warn(what string, err error)
}

// Claim is what an answer is to be found by.
type Claim struct {
	ID        string
	Key, Name string // hashes; empty for none
	Body      string // a hash: what the request is known by beside its key
	Record    *Record
	Keep      time.Duration
}

// Holder is who has a key.
type Holder struct{ ID, Body string }

// Record is what is known of an answer beside its log.
type Record struct {
	Owner  string // a hash
	URL    string
	State  State
	Reason Reason
	Kind   Kind
	Header map[string][]string // nil before it has begun
	Events uint64
	Bytes  int64
	Last   uint64 // the number of the last piece that was appended
	Turn   uint64 // grows each time the owner says anew what is known
	Alive  bool   // its owner has been there lately; for reading only

	// Unseen is how long ago an owner that is alive was there last, at most; for reading only. What is known is that of
	// then, or newer.
	Unseen time.Duration
}

// Batch is a part of a log.
type Batch struct {
	Last   uint64  // the number of its last piece; if it has none, of the last before it
	Places []Place // of its pieces in Bytes; none in what is left of an answer that is over
	Bytes  []byte
}

// first returns the number of the first piece.
func (b *Batch) first() uint64 { return b.Last + 1 - uint64(len(b.Places)) }

// Times of sharing.
const (
	batchTime = 50 * time.Millisecond // the least time between two batches of an answer
	maxBatch  = 64 << 10
	renewTime = 3 * time.Second // how often an owner says that it is there
	// maxRetryTime is the longest pause before an owner tries again to tell the others. Who comes back on another
	// instance is called unknown only after twice of that.
	maxRetryTime = 500 * time.Millisecond
	LeaseTime    = 10 * time.Second
	sharedTime   = 2 * time.Second // how long a request waits for others
)

// ErrAway is the error for what the other instances can't be asked now.
var ErrAway = errors.New("the other instances can't be asked")

func hashText(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func (c claim) text() string { return hex.EncodeToString(c[:]) }

// Share joins the store with those of other instances, or with none. What goes on stays where it is.
func (s *Store) Share(with Shared) {
	s.mu.Lock()
	before := s.shared
	s.shared = with
	s.mu.Unlock()
	if with != nil {
		with.Start(s.stopShared)
	}
	if before != nil {
		before.Close()
	}
}

// within derives the context of a call to the other instances. It ends with the call, at the latest.
func within(ctx context.Context) context.Context {
	ctx, cancel := context.WithTimeout(ctx, sharedTime)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func (s *Store) sharing() Shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shared
}

// stopShared stops an answer of this instance because another instance asks.
func (s *Store) stopShared(id string) {
	s.mu.Lock()
	a := s.byID[id]
	s.mu.Unlock()
	if a != nil && !a.mirror {
		a.Stop()
	}
}

// recordLocked returns what others should know. a.mu is held.
func (a *Answer) recordLocked() *Record {
	return &Record{
		Owner: hashText(a.owner), URL: a.URL, State: a.state, Reason: a.reason, Kind: a.head.Kind,
		Header: a.head.Header, Events: a.upstream, Bytes: a.log.size,
	}
}

// next returns what follows a cursor and is to be appended next, or nil, and what others should know then. It
// reports whether the answer is over with it.
func (a *Answer) next(c cursor) (batch *Batch, after cursor, r *Record, over bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r = a.recordLocked()
	over = a.state.ended()
	batch, after = a.log.batch(c, maxBatch, over)
	r.Last = after.number
	if over && after.offset < a.log.size { // there is more to come
		over, r.State, r.Reason = false, Live, ""
	}
	return batch, after, r, over
}

// shareLocked has the other instances told of an answer, if there are any.
func (s *Store) shareLocked(a *Answer) {
	if a.shared == nil {
		return
	}
	told := make(chan struct{})
	if s.runLocked(func() {
		defer close(told)
		s.share(a, a.shared)
	}) {
		a.toldAll = told
	}
}

// runLocked runs a task that the store waits for at its end. It reports false if the store has ended.
func (s *Store) runLocked(task func()) bool {
	if s.open.Err() != nil {
		return false
	}
	s.tasks.Go(task)
	return true
}

// releaseLocked has the other instances forget an answer, once nothing more of it is on its way to them.
func (s *Store) releaseLocked(a *Answer) {
	told := a.toldAll
	if told == nil {
		return
	}
	s.runLocked(func() {
		<-told
		ctx, cancel := context.WithTimeout(context.Background(), sharedTime)
		defer cancel()
		var claims []string
		for _, c := range a.claims {
			claims = append(claims, c.text())
		}
		if err := a.shared.Release(ctx, a.ID, claims); err != nil {
			a.shared.Warn("forgetting an answer", err)
		}
	})
}

// share tells the other instances of an answer until it is over. Whatever happens to them, the answer goes on
// here.
func (s *Store) share(a *Answer, with Shared) {
	r := a.watch()
	defer r.Close()
	var at cursor
	for turn := uint64(1); ; turn++ {
		batch, after, record, over := a.next(at)
		record.Turn = turn
		if record.State == Passed || !s.appendUntilKnown(with, a, batch, record) {
			return
		}
		at = after
		if over {
			return
		}
		s.sleep(batchTime)
		if batch != nil {
			continue
		}
		select {
		case <-r.wake:
		case <-time.After(renewTime):
		}
	}
}

// appendUntilKnown appends a batch, and again until it is known to be there: the very same, since another that
// overlaps it would be there twice. It returns false if the store ends first, or the answer is nothing to keep.
func (s *Store) appendUntilKnown(with Shared, a *Answer, batch *Batch, record *Record) bool {
	for wait := batchTime; ; wait = min(2*wait, maxRetryTime) {
		ctx, cancel := context.WithTimeout(context.Background(), sharedTime)
		stop, err := with.Append(ctx, a.ID, batch, record, a.keep(record.State))
		cancel()
		if stop {
			a.Stop()
		}
		if err == nil {
			return true
		}
		with.Warn("telling the other instances of an answer", err)
		if state, _ := a.State(); state == Passed || s.open.Err() != nil { // trying on would hold up the exit
			return false
		}
		s.sleep(wait)
	}
}

// keep returns how long others may keep an answer that they hear no more of.
func (a *Answer) keep(state State) time.Duration {
	if state.ended() {
		return a.bounds.TTL
	}
	return a.bounds.MaxTime + a.bounds.TTL
}

func (s *Store) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.open.Done():
	}
}
