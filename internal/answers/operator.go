package answers

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// Stats are counters of a store, and what it has now.
type Stats struct {
	Pending, Live, Kept                       int
	Bytes                                     int64
	Done, Stopped, Aborted, Abandoned, Passed uint64 // answers that have ended, by how
	Complete, Gone, Unknown                   uint64 // requests that named an event, by what became of them
	Attached                                  uint64 // requests that were given an answer by key or name
	Alone                                     uint64 // keys and names that hold on this instance only
}

// CountResume counts a request that named an event, by what became of it.
func (s *Store) CountResume(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, trimmed := errors.AsType[*TrimmedError](err)
	switch {
	case errors.Is(err, ErrAway): // nobody knows yet
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
