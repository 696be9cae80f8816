package stream

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestStreamsHaveTheirTurnsAndOthersComeBetween(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that it can be seen what comes between
	synctest.Test(t, func(t *testing.T) {
		const n = 40 * batchPerCPU
		group := new(Group)
		all := &group.turns
		var given, published atomic.Int64 // turns, and how many of them came before the publisher's
		publish := func() {
			runtime.Gosched() // to stand at the end of the scheduler's line, as whoever has waited for the network
			published.Store(given.Load())
		}
		var streams [n]*Handler
		var had [n]int
		for i := range streams {
			s := &Handler{group: group, turn: make(chan struct{}, 1)}
			streams[i] = s
			go func() {
				for range s.turn {
					if given.Add(1) == 1 {
						go publish()
					}
					if had[i]++; had[i] == 1 { // there is more for it
						s.Wake()
					}
				}
			}()
		}
		for _, s := range streams {
			s.Wake()
		}
		synctest.Wait()
		for i, n := range had {
			if n != 2 {
				t.Errorf("stream %d had %d turns", i, n)
			}
		}
		if before := published.Load(); before == 0 || before > n/2 {
			t.Errorf("a publisher that came with the first turn had its own after %d, of %d streams", before, n)
		}
		if all.running || len(all.line) > 0 {
			t.Error("turns go on although nobody stands in line")
		}
		for _, s := range streams {
			close(s.turn)
		}
	})
}
