package answers

import (
	"context"
	"time"
)

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
