package load

import (
	"sync"
	"sync/atomic"
	"time"
)

// tally counts what a share of the streams get. Each reader has its own, so that readers don't wait for each other.
type tally struct {
	mu sync.Mutex // guards all of this and its streams; held while what one read brought is parsed

	streams  []*stream
	ready    int    // streams whose answer began
	received uint64 // messages
	latency  Histogram
	measure  bool // latencies count

	rounds []round // by publisher; nil unless somebody waits for whole rounds
	whole  *gather
}

// round is how many streams of a tally have got a publisher's latest message.
type round struct {
	number uint32
	got    int
}

func (t *tally) count(h header, at int64) {
	t.received++
	if t.measure {
		t.latency.Add(time.Duration(at-h.due), 1)
	}
	if t.rounds == nil {
		return
	}
	r := &t.rounds[h.publisher]
	if r.number != h.number {
		*r = round{number: h.number}
	}
	if r.got++; r.got == len(t.streams) {
		t.whole.arrive(h)
	}
}

// gather tells publishers when all tallies have got their message. A publisher has one message under way at a time.
type gather struct {
	tallies int32
	arrived []atomic.Int32
	done    []chan uint32 // the number of the message that is everywhere
}

func newGather(publishers, tallies int) *gather {
	g := &gather{tallies: int32(tallies), arrived: make([]atomic.Int32, publishers), done: make([]chan uint32, publishers)}
	for i := range g.done {
		g.done[i] = make(chan uint32, 1)
	}
	return g
}

func (g *gather) arrive(h header) {
	if g.arrived[h.publisher].Add(1) != g.tallies {
		return
	}
	select {
	case g.done[h.publisher] <- h.number:
	default: // nobody waits any more for the one before
	}
}

// expect is called before a message is sent.
func (g *gather) expect(publisher int) {
	g.arrived[publisher].Store(0)
	select {
	case <-g.done[publisher]:
	default:
	}
}

// wait reports whether the message has come everywhere within the patience.
func (g *gather) wait(publisher int, number uint32, patience time.Duration) bool {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		select {
		case n := <-g.done[publisher]:
			if n == number {
				return true
			}
		case <-timeout.C:
			return false
		}
	}
}
