package answers

import (
	"context"
	"time"
)

// lostTime is how long an owner must have been away, beyond its lease, before readers are told. An owner that
// could not say that it is there, because Redis was frozen, says so first.
const lostTime = 2 * time.Second

// mirrored returns the answer of another instance; nil if there is none of that owner's.
func (s *Store) mirrored(ctx context.Context, asked *Request, id string) (*Answer, error) {
	with := s.sharing()
	if with == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, sharedTime)
	defer cancel()
	r, err := with.Load(ctx, id)
	// Its owner may be about to tell.
	for wait := batchTime; err == nil && r == nil && wait <= 4*batchTime; wait *= 2 {
		s.sleep(wait)
		r, err = with.Load(ctx, id)
	}
	switch {
	case err != nil:
		with.Warn("asking for an answer of another instance", err)
		return nil, ErrAway
	case r == nil || (r.Owner != hashText("") && r.Owner != hashText(asked.Owner)):
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.byID[id]; a != nil { // somebody else was first
		s.enterLocked(a)
		return a, nil
	}
	a := &Answer{
		ID: id, URL: r.URL, store: s, owner: asked.Owner, mirror: true, shared: with, bounds: asked.Bounds,
		cancel: func(error) {}, decided: make(chan struct{}), state: Pending, since: time.Now(), readers: 1,
		told: &Status{State: r.State, Reason: r.Reason, Events: r.Events, Bytes: r.Bytes},
	}
	if r.Owner == hashText("") {
		a.owner = ""
	}
	if !s.runLocked(func() { s.follow(a, with) }) {
		return nil, ErrAway
	}
	s.byID[id] = a
	return a, nil
}

// follow reads an answer of another instance while somebody asks for it.
func (s *Store) follow(a *Answer, with Shared) {
	var lostSince time.Time
	pause := batchTime
	for !s.forgetUnread(a) && s.open.Err() == nil {
		a.mu.Lock()
		last, over := a.log.last(), a.state.ended()
		a.mu.Unlock()
		if over {
			s.sleep(batchTime)
			continue
		}
		ctx, cancel := context.WithTimeout(s.open, sharedTime)
		batches, record, err := with.Read(ctx, a.ID, last)
		cancel()
		switch {
		case err != nil:
			pause = min(2*pause, time.Second)
		case record == nil:
			a.follow(nil, &Record{State: Passed})
		default:
			if len(batches) > 0 || a.isPending() {
				pause = batchTime
			} else {
				pause = min(pause*5/4, 5*batchTime)
			}
			if record.State.ended() || record.Alive {
				lostSince = time.Time{}
			} else if lostSince.IsZero() {
				lostSince = time.Now()
			} else if time.Since(lostSince) > lostTime && len(batches) == 0 {
				record.State, record.Reason = Aborted, OwnerLost
				record.Last = last
			}
			a.follow(batches, record)
		}
		s.sleep(pause)
	}
}

func (a *Answer) isPending() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state == Pending
}

// follow takes in what the owner says.
func (a *Answer) follow(batches []Batch, r *Record) {
	a.mu.Lock()
	if a.state == Pending && (r.Header != nil || r.State.ended()) {
		a.state, a.head = Live, Head{Kind: r.Kind, Header: r.Header}
		if r.State.ended() && r.Header == nil {
			a.state = r.State
		}
		defer close(a.decided)
	}
	for _, b := range batches {
		if len(b.Places) > 0 || r.State.ended() { // or it would be read again
			a.log.takeIn(b)
		}
	}
	a.upstream = r.Events
	a.told = &Status{State: r.State, Reason: r.Reason, Events: r.Events, Bytes: r.Bytes}
	if r.State.ended() && (a.log.size >= r.Bytes || len(batches) == 0) {
		a.state, a.reason = r.State, r.Reason
		switch {
		case a.log.last() < r.Last: // it was trimmed
			a.log.drop()
			a.log.dropped = r.Last
		case r.Reason == OwnerLost && r.Kind == Events && a.log.last() <= r.Events: // it could not say so itself
			a.log.append(OwnerLost.block(), true)
		}
	}
	grown := a.countLocked()
	a.wakeLocked()
	a.mu.Unlock()
	a.store.grow(a, grown)
}

// AwaitNumber waits until a mirror has read up to a number that the owner has given out. Others have all.
func (a *Answer) AwaitNumber(ctx context.Context, number uint64) {
	if !a.mirror {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sharedTime)
	defer cancel()
	r := a.watch()
	defer r.Close()
	for {
		a.mu.Lock()
		there := a.log.last() >= number || a.state.ended()
		a.mu.Unlock()
		if there {
			return
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
	}
}

// forgetUnread forgets a mirror that nobody reads. It reports whether it has.
func (s *Store) forgetUnread(a *Answer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.readers == 0 {
		s.forgetLocked(a)
	}
	return a.readers == 0
}

// Refresh takes in what the owner of a mirror says now.
func (a *Answer) Refresh(ctx context.Context) error {
	if !a.mirror {
		return nil
	}
	r, err := a.shared.Load(within(ctx), a.ID)
	if err != nil || r == nil {
		return ErrAway
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = &Status{State: r.State, Reason: r.Reason, Events: r.Events, Bytes: r.Bytes}
	return nil
}
