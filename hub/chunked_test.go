package hub

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestAChunkedListIsLikeASlice(t *testing.T) {
	var list chunked[int]
	var slice []int
	for i, grows := 0, true; i < 50*chunkSize; i++ {
		if i%(5*chunkSize) == 0 {
			grows = !grows || len(slice) == 0
		}
		switch n := rand.IntN(8); {
		case len(slice) == 0 || grows == (n < 6):
			list.push(i)
			slice = append(slice, i)
		case n%2 == 0:
			want(t, []int{list.popFirst()}, slice[0])
			slice = slice[1:]
		default:
			want(t, []int{list.popLast()}, slice[len(slice)-1])
			slice = slice[:len(slice)-1]
		}
		if list.n != len(slice) || list.n > 0 && (*list.at(0) != slice[0] || *list.at(list.n - 1) != slice[len(slice)-1]) {
			t.Fatalf("after %d steps the list has %d items, want %d", i, list.n, len(slice))
		}
		if i%1000 == 0 {
			want(t, list.items(), slice...)
		}
		if room, most := len(list.chunks)*chunkSize, len(slice)+4*chunkSize; room > most {
			t.Fatalf("%d items have room for %d", len(slice), room)
		}
	}
	var all []int
	for i := range list.n {
		all = append(all, *list.at(i))
	}
	if !slices.Equal(all, slice) {
		t.Error("the list holds something else")
	}
}
