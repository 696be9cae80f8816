package hub

import "testing"

func TestAsManyPositionsAreRememberedAsTheLogKeepsMessages(t *testing.T) {
	for kept, most := range map[int]int{0: fewestPositions, 200_000: 200_000, 1 << 40: mostPositions} {
		if got := newPositions(kept).most; got != most {
			t.Errorf("of a log that keeps %d, %d are remembered; want %d", kept, got, most)
		}
	}
}

func TestPositionsOfASparseLogAreForgottenInTheEnd(t *testing.T) {
	s := newPositions(1000)
	for i := range uint64(3 * fewestPositions) {
		s.add(Position{2 * i, 0})
	}
	if s.all.n != fewestPositions {
		t.Errorf("%d positions are remembered", s.all.n)
	}
	for i := range uint64(fewestPositions) {
		newest := 2 * (3*fewestPositions - 1 - i)
		if !s.has(Position{newest, 0}) || s.has(Position{newest + 1, 0}) || s.has(Position{newest, 1}) {
			t.Fatalf("of the newest positions %d is not told from those about it", newest)
		}
	}
	if s.has(Position{0, 0}) {
		t.Error("the oldest position is still known")
	}
	var none *positions
	none.add(Position{1, 0}) // a dense log's are not remembered
}
