package answers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"
)

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
func (s *Store) Open(
	ctx context.Context, r *Request, cancel func(cause error),
) (a *Answer, mine bool, err error) {
	var key claim
	if r.Key != "" {
		key = r.keyClaim()
	}
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
		s.shareLocked(a)
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

func (s *Store) unclaimLocked(a *Answer) {
	for _, c := range a.claims {
		if s.claimed[c] == a {
			delete(s.claimed, c)
		}
	}
}
