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
	all   []Position
	least int // of the newest are remembered
}

func newPositions(kept int) *positions {
	return &positions{least: min(max(fewestPositions, kept), mostPositions)}
}

func (s *positions) add(p Position) {
	if s == nil {
		return
	}
	if len(s.all) == 2*s.least {
		s.all = append(s.all[:0], s.all[s.least:]...)
	}
	s.all = append(s.all, p)
}

func (s *positions) has(p Position) bool {
	i := sort.Search(len(s.all), func(i int) bool { return !p.After(s.all[i]) })
	return i < len(s.all) && s.all[i] == p
}

// before returns the position given out before p.
func (s *positions) before(p Position) (Position, bool) {
	i := sort.Search(len(s.all), func(i int) bool { return !p.After(s.all[i]) })
	if i == 0 {
		return Position{}, false
	}
	return s.all[i-1], true
}
