package answers

import (
	"cmp"
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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

// Stats are counters of a store, and what it has now.
type Stats struct {
	Pending, Live, Kept                       int
	Bytes                                     int64
	Done, Stopped, Aborted, Abandoned, Passed uint64 // answers that have ended, by how
	Complete, Gone, Unknown                   uint64 // requests that named an event, by what became of them
	Attached                                  uint64 // requests that were given an answer by key or name
	Alone                                     uint64 // keys and names that hold on this instance only
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

// claim is what an answer is found by beside its ID: a key, or a name, which a newer answer takes over. Both
// may be long, and secret: only their hash is kept.
type claim [sha256.Size]byte

func newClaim(parts ...string) claim {
	h := sha256.New()
	for _, part := range parts {
		sum := sha256.Sum256([]byte(part))
		h.Write(sum[:])
	}
	return claim(h.Sum(nil))
}

// Request is what a request that may be answered by a stream says.
type Request struct {
	Owner string // whose the answer is; empty for whoever knows its ID
	URL   string
	Host  string
	Key   string            // requests of the same key and URL get one answer; empty for none
	Body  [sha256.Size]byte // what the request is known by beside its key
	Name  string            // what the newest answer is found by; empty for none
	Bounds
}

func (r *Request) keyClaim() claim { return newClaim("key", r.Owner, r.Host, r.URL, r.Key) }

func nameClaim(owner, host, name string) claim { return newClaim("name", owner, host, name) }

// ErrKeyReused is the error for a key that was used with another body.
var ErrKeyReused = errors.New("the key was used for another request")

// Open returns the answer to a request, and whether the caller is the one to ask the upstream for it.
// [Answer.Leave] gives the answer back. Cancel ends the upstream; it is called with a cause, perhaps more
// than once.
func (s *Store) Open(ctx context.Context, r *Request, cancel func(cause error)) (a *Answer, mine bool, err error) {
	key := r.keyClaim()
	for {
		s.mu.Lock()
		if r.Key == "" {
			break
		}
		if before := s.claimed[key]; before != nil {
			defer s.mu.Unlock()
			return s.attachLocked(r, before)
		}
		claiming := s.claiming[key]
		if claiming == nil {
			break
		}
		s.mu.Unlock()
		select {
		case <-claiming:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	defer s.mu.Unlock()
	a = s.newAnswer(r, cancel)
	if a.shared == nil || len(a.claims) == 0 {
		s.addLocked(a)
		return a, true, nil
	}
	return s.claimLocked(ctx, r, a)
}

func (s *Store) newAnswer(r *Request, cancel func(cause error)) *Answer {
	var claims []claim
	if r.Key != "" {
		claims = append(claims, r.keyClaim())
	}
	if r.Name != "" {
		claims = append(claims, nameClaim(r.Owner, r.Host, r.Name))
	}
	return &Answer{
		ID:      newID(),
		URL:     r.URL,
		store:   s,
		owner:   r.Owner,
		body:    r.Body,
		claims:  claims,
		bounds:  r.Bounds,
		cancel:  cancel,
		shared:  s.shared,
		decided: make(chan struct{}),
		state:   Pending,
		since:   time.Now(),
		readers: 1,
	}
}

func (s *Store) addLocked(a *Answer) {
	for _, c := range a.claims {
		s.claimed[c] = a
	}
	s.byID[a.ID] = a
	a.maxTimer = time.AfterFunc(a.bounds.MaxTime, func() { s.overdue(a) })
}

// attachLocked gives a request the answer that has its key.
func (s *Store) attachLocked(r *Request, a *Answer) (*Answer, bool, error) {
	if a.body != r.Body {
		return nil, false, ErrKeyReused
	}
	s.stats.Attached++
	s.enterLocked(a)
	return a, false, nil
}

// claimLocked claims the key and the name of a new answer on all instances. If another instance has the key it
// returns the answer there. mu is held, but not while the others are asked.
func (s *Store) claimLocked(ctx context.Context, r *Request, a *Answer) (*Answer, bool, error) {
	c := &Claim{ID: a.ID, Body: hex.EncodeToString(r.Body[:]), Record: a.recordLocked(), Keep: a.keep(Pending)}
	if r.Key != "" {
		key := r.keyClaim()
		c.Key = key.text()
		said := make(chan struct{})
		s.claiming[key] = said
		defer func() {
			delete(s.claiming, key)
			close(said)
		}()
	}
	if r.Name != "" {
		c.Name = nameClaim(r.Owner, r.Host, r.Name).text()
	}
	s.mu.Unlock()
	holder, err := a.shared.Claim(within(ctx), c)
	s.mu.Lock()
	if err != nil {
		s.stats.Alone++
		a.shared.Warn("claiming a key or name on all instances; it holds on this one only", err)
	}
	switch {
	case holder == nil:
		s.addLocked(a)
		s.runLocked(func() { s.share(a, a.shared) })
		return a, true, nil
	case holder.Body != c.Body:
		return nil, false, ErrKeyReused
	}
	s.mu.Unlock()
	held, err := s.Find(ctx, r, holder.ID)
	s.mu.Lock()
	if held != nil && err == nil {
		s.stats.Attached++
		return held, false, nil
	}
	a.claims = nil // its answer went away just now: this one is by itself
	s.addLocked(a)
	return a, true, nil
}

// Find returns the answer of that ID, or nil if there is none, or none of that owner's. [Answer.Leave] gives
// it back. The error is [ErrAway].
func (s *Store) Find(ctx context.Context, r *Request, id string) (*Answer, error) {
	s.mu.Lock()
	a := s.byID[id]
	if a != nil {
		defer s.mu.Unlock()
		if a.owner != "" && a.owner != r.Owner {
			return nil, nil
		}
		s.enterLocked(a)
		return a, nil
	}
	s.mu.Unlock()
	return s.mirrored(ctx, r, id)
}

// Named returns the newest answer of a request's name, or nil. [Answer.Leave] gives it back. The error is
// [ErrAway].
func (s *Store) Named(ctx context.Context, r *Request) (*Answer, error) {
	name := nameClaim(r.Owner, r.Host, r.Name)
	if with := s.sharing(); with != nil {
		id, err := with.Named(within(ctx), name.text())
		switch {
		case err != nil:
			with.Warn("asking other instances for a name", err)
		case id != "":
			return s.Find(ctx, r, id)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.claimed[name]
	if a != nil {
		s.enterLocked(a)
	}
	return a, nil
}

// CountResume counts a request that named an event, by what became of it.
func (s *Store) CountResume(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, trimmed := errors.AsType[*TrimmedError](err)
	switch {
	case err == nil, errors.Is(err, ErrOver):
		s.stats.Complete++
	case trimmed:
		s.stats.Gone++
	default:
		s.stats.Unknown++
	}
}

// CountAttached counts a request that was given an answer by its name.
func (s *Store) CountAttached() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Attached++
}

// Stats returns the store's numbers.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Bytes = s.bytes.Load()
	for _, a := range s.byID {
		if a.mirror {
			continue
		}
		switch state, _ := a.State(); state {
		case Pending:
			stats.Pending++
		case Live:
			stats.Live++
		default:
			stats.Kept++
		}
	}
	return stats
}

// Item is an answer under way, for operators.
type Item struct {
	ID      string    `json:"id"`
	Since   time.Time `json:"since"`
	Readers int       `json:"readers"`
	Status
}

// List returns the answers that still go on, the oldest first and at most limit, and how many there are.
func (s *Store) List(limit int) (items []Item, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.byID {
		if status := a.Status(); !status.State.ended() && !a.mirror {
			items = append(items, Item{a.ID, a.since, a.readers, status})
		}
	}
	slices.SortFunc(items, func(a, b Item) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return items[:min(limit, len(items))], len(items)
}

// StopByOperator stops the answer of that ID, whoever's it is. It reports whether it was under way.
func (s *Store) StopByOperator(id string) bool {
	s.mu.Lock()
	a := s.byID[id]
	s.mu.Unlock()
	if a == nil {
		return false
	}
	if state, _ := a.State(); state.ended() {
		return false
	}
	a.Stop()
	return true
}

// Leave gives an answer back.
func (a *Answer) Leave() {
	s := a.store
	s.mu.Lock()
	a.readers--
	abandoned := s.leftLocked(a)
	s.mu.Unlock()
	if abandoned != nil {
		s.end(abandoned, Aborted, Abandoned)
	}
}

// enterLocked notes that somebody more has the answer.
func (s *Store) enterLocked(a *Answer) {
	a.readers++
	s.notIdleLocked(a)
}

func (s *Store) notIdleLocked(a *Answer) {
	if a.place != nil && !a.gone {
		s.idle.Remove(a.place)
		a.place = nil
	}
	if a.idleTimer != nil {
		a.idleTimer.Stop()
		a.idleTimer = nil
	}
}

// leftLocked sees to an answer that nobody may have any more. It returns one that is to be cancelled, perhaps
// another one that nobody has had for longer.
func (s *Store) leftLocked(a *Answer) (abandoned *Answer) {
	state, _ := a.State()
	if a.readers > 0 || state.ended() || a.gone || a.mirror {
		return nil
	}
	if a.late || s.open.Err() != nil {
		return a
	}
	a.place = s.idle.PushBack(a)
	if after := a.bounds.Abandon; after > 0 {
		a.idleTimer = time.AfterFunc(after, func() { s.abandon(a) })
	}
	if s.idle.Len() > a.bounds.MaxLive {
		return s.idle.Front().Value.(*Answer)
	}
	return nil
}

// abandon cancels an answer if nobody reads it still, on any instance.
func (s *Store) abandon(a *Answer) {
	elsewhere := false
	if a.shared != nil {
		ctx, cancel := context.WithTimeout(s.open, sharedTime)
		elsewhere, _ = a.shared.IsRead(ctx, a.ID) // whoever can't be asked does not read either
		cancel()
	}
	s.mu.Lock()
	read := a.readers > 0 || a.gone
	if elsewhere && !read {
		a.idleTimer = time.AfterFunc(a.bounds.Abandon, func() { s.abandon(a) })
	}
	s.mu.Unlock()
	if !read && !elsewhere {
		s.end(a, Aborted, Abandoned)
	}
}

// overdue ends an answer that takes too long. Somebody who waits for what may be no stream at all goes on
// waiting.
func (s *Store) overdue(a *Answer) {
	s.mu.Lock()
	state, _ := a.State()
	a.late = true
	wait := state == Pending && a.readers > 0
	s.mu.Unlock()
	if !wait {
		s.end(a, Aborted, MaxTime)
	}
}

// end ends an answer, if it has not ended.
func (s *Store) end(a *Answer, state State, reason Reason) {
	a.mu.Lock()
	if !a.endLocked(state, reason) {
		a.mu.Unlock()
		return
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

func (s *Store) unclaimLocked(a *Answer) {
	for _, c := range a.claims {
		if s.claimed[c] == a {
			delete(s.claimed, c)
		}
	}
}

// grow counts what an answer has grown by. The longest ended give way if all are too large.
func (s *Store) grow(a *Answer, by int64) {
	if s.bytes.Add(by) <= a.bounds.MaxTotal {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.bytes.Load() > a.bounds.MaxTotal {
		first := s.heads.Front()
		switch {
		case s.heads.Len() > 0 && (s.kept.Len() == 0 || int64(s.heads.Len()*answerRoom) > a.bounds.MaxTotal/16):
			s.forgetLocked(first.Value.(*Answer))
		case s.kept.Len() > 0:
			s.giveWayLocked(s.kept.Front().Value.(*Answer))
		default:
			return
		}
	}
}

// giveWayLocked forgets what an answer said, but not how much.
func (s *Store) giveWayLocked(a *Answer) {
	s.kept.Remove(a.place)
	a.place, a.among = s.heads.PushBack(a), &s.heads
	s.releaseLocked(a)
	s.unclaimLocked(a)
	a.mu.Lock()
	a.log.drop()
	a.wakeLocked()
	by := a.countLocked()
	a.mu.Unlock()
	s.bytes.Add(by)
}
