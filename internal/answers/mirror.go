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
	// Its owner may be about to tell, or to try again.
	for wait := batchTime; err == nil && r == nil && wait <= 2*maxRetryTime; wait *= 2 {
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
		asked := time.Now()
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
			if record.Alive {
				a.see(asked.Add(-record.Unseen), record.Turn)
			}
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
	lost := false // to who reads it now
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
			a.lost = true
			lost = a.isReadLocked()
		}
	}
	grown, last := a.countLocked(), a.log.last()
	a.wakeLocked()
	a.mu.Unlock()
	if lost {
		_, _ = a.tellLost(context.Background(), 0, last) // or they may be told again
	}
	a.store.grow(a, grown)
}

// see notes when the owner was there, and what turn it was.
func (a *Answer) see(owner time.Time, turn uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen, a.turn = owner, turn
	a.wakeLocked()
}

// Resume is [Answer.Read] for a reader who may have read on another instance. A number that the owner has given out and
// others have not read yet is waited for. If the owner is gone with it, the reader is told so, as those are who are
// less far: once, by an event of the number that comes next for it. [ErrAway] says that it can't be known.
func (a *Answer) Resume(ctx context.Context, after uint64) (*Reader, error) {
	if !a.mirror {
		return a.Read(after)
	}
	if err := a.awaitNumber(ctx, after); err != nil {
		return nil, err
	}
	a.mu.Lock()
	last, lost := a.log.last(), a.lost
	a.mu.Unlock()
	if !lost {
		return a.Read(after)
	}
	told, err := a.tellLost(ctx, after, max(after+1, last))
	switch {
	case err != nil:
		return nil, ErrAway
	case after < last:
		return a.Read(after)
	case told:
		return nil, ErrOver
	}
	r, err := a.Read(last - 1)
	if err == nil {
		r.cursor.ahead = after - (last - 1)
	}
	return r, err
}

func (a *Answer) tellLost(ctx context.Context, had, number uint64) (told bool, err error) {
	return a.shared.TellLost(within(ctx), a.ID, had, number)
}

// awaitNumber waits until a mirror has read up to a number, or all there is, or it is known that the owner has not given
// it out. What the owner says may have been on its way for long, as while Redis was away. What it says in the turn after
// one that came after that was asked, it knew after that was asked. What it takes to find that an owner is gone is waited
// for.
func (a *Answer) awaitNumber(ctx context.Context, number uint64) error {
	ctx, cancel := context.WithTimeout(ctx, LeaseTime+lostTime+2*sharedTime)
	defer cancel()
	asked, came, turn := time.Now(), false, uint64(0)
	r := a.watch()
	defer r.Close()
	for {
		a.mu.Lock()
		if !came && a.seen.After(asked) {
			came, turn = true, a.turn
		}
		there := a.log.last() >= number || a.state.ended()
		neverGiven := came && a.turn > turn && number > a.upstream
		a.mu.Unlock()
		if there || neverGiven {
			return nil
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return ErrAway
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
