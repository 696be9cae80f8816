package sse

import "sort"

// maxPositions is how many positions of a sparse log are remembered at least, 16 bytes each.
const maxPositions = 1 << 17

// positions remembers the newest positions that a sparse log gave out, in order. A nil positions
// remembers nothing: a dense log's need no remembering.
type positions struct{ all []Position }

func (s *positions) add(p Position) {
	if s == nil {
		return
	}
	if len(s.all) == 2*maxPositions {
		s.all = append(s.all[:0], s.all[maxPositions:]...)
	}
	s.all = append(s.all, p)
}

func (s *positions) has(p Position) bool {
	i := sort.Search(len(s.all), func(i int) bool { return !p.After(s.all[i]) })
	return i < len(s.all) && s.all[i] == p
}
