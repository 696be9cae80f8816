package stream

import (
	"runtime"
	"sync"
)

// wakeQueue wakes a hub's handler streams, a few at a time. All at once they would stand in the scheduler's line before
// whoever publishes next; like this that one comes first, messages gather, and go out in one write. It is for handler
// streams what writers are for direct ones, except that each writes on a goroutine of its own, so that one whose
// client does not read holds up nobody.
type wakeQueue struct {
	mu      sync.Mutex // guards all below
	line    []*Handler
	running bool // run is at work
}

// batchPerCPU is how many streams are woken for each processor before the scheduler's line is let go on.
const batchPerCPU = 8

// enqueue puts a stream in line for a turn.
func (t *wakeQueue) enqueue(s *Handler) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line = append(t.line, s)
	if !t.running {
		t.running = true
		go t.run()
	}
}

// run gives turns until nobody stands in line.
func (t *wakeQueue) run() {
	few := batchPerCPU * runtime.GOMAXPROCS(0)
	var streams []*Handler
	for t.next(&streams) {
		for i, s := range streams {
			s.giveTurn()
			streams[i] = nil
			if i%few == few-1 {
				runtime.Gosched()
			}
		}
	}
}

// next exchanges the streams that have been woken for those in line. It reports whether there are any.
func (t *wakeQueue) next(streams *[]*Handler) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	*streams, t.line = t.line, (*streams)[:0]
	t.running = len(*streams) > 0
	return t.running
}
