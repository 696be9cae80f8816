package hub

import "sort"

// How many positions of a sparse log are remembered at least, 16 bytes each: as many as the log keeps messages, within
// these bounds.
const (
	fewestPositions = 1 << 17
	mostPositions   = 1 << 20
)

// positions remembers the newest positions that a sparse log gave out, in order. A nil positions
// remembers nothing: a dense log's need no remembering.
type positions struct {
	all  chunked[Position]
	most int // are remembered
}

func newPositions(kept int) *positions {
	return &positions{most: min(max(fewestPositions, kept), mostPositions)}
}

func (s *positions) add(p Position) {
	if s == nil {
		return
	}
	if s.all.n == s.most {
		s.all.popFirst()
	}
	s.all.push(p)
}

func (s *positions) has(p Position) bool {
	i := s.search(p)
	return i < s.all.n && *s.all.at(i) == p
}

// search returns the index of the first position at or after p.
func (s *positions) search(p Position) int {
	return sort.Search(s.all.n, func(i int) bool { return !p.After(*s.all.at(i)) })
}

// before returns the position given out before p.
func (s *positions) before(p Position) (Position, bool) {
	i := s.search(p)
	if i == 0 {
		return Position{}, false
	}
	return *s.all.at(i - 1), true
}
