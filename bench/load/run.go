//go:build linux

package load

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Pace says when a publisher sends its next message.
type Pace int

// The paces.
const (
	Open   Pace = iota // when the one before was answered
	Closed             // when the one before was answered and every client has got it
	Timed              // so many a second, whether or not the server keeps up
)

// Load is what a fleet's publishers do.
type Load struct {
	Pace       Pace
	Publishers int
	PerSecond  int // messages of all publishers together, if Timed
	Size       int // bytes of a message's data
	Warmup     time.Duration
	Measure    time.Duration

	Addr string
	// Request appends the request that publishes a payload to a topic.
	Request func(b []byte, topic int, payload []byte) []byte

	// Began and Ended are called when measuring begins and ends.
	Began, Ended func()
}

// Result is what a run came to. The figures but the last three are of the time that was measured.
type Result struct {
	Elapsed    time.Duration
	Deliveries uint64
	Published  uint64
	P50, P99   time.Duration

	Lost       int // messages that a client did not get, of the whole run
	OutOfOrder int // messages that came after a later one, or twice
	CutOff     int // clients whose stream the server ended
}

// Sync publishes to every topic until each client has got a message, so that nobody's subscription is still under
// way when a run begins. What got lost before does not count.
func (f *Fleet) Sync(ctx context.Context, l Load) error {
	p, err := DialPublisher(l.Addr)
	if err != nil {
		return err
	}
	defer p.Close()
	const attempts = 20
	for range attempts {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w := worker{Load: l, fleet: f, conn: p, count: 1}
		for topic := range f.topics {
			if err := w.publish(topic, now()); err != nil {
				return err
			}
		}
		_ = f.await(ctx, silence/4, func() bool { return !f.behind() }) // who is still behind gets another chance
		done := !f.behind()
		f.forget() // also what came late of an earlier attempt
		if done {
			return nil
		}
	}
	return fmt.Errorf("not every client got a message that was published %d times", attempts)
}

// forget takes what is sent for received.
func (f *Fleet) forget() {
	for i, s := range f.streams {
		s.tally.mu.Lock()
		s.settle(f.sentTo(i))
		s.tally.mu.Unlock()
	}
}

// Run publishes for a while and counts what the clients get.
func (f *Fleet) Run(ctx context.Context, l Load) (Result, error) {
	endedBefore := f.ended()
	workers := make([]*worker, l.Publishers)
	var g *gather
	if l.Pace == Closed {
		g = newGather(l.Publishers, len(f.tallies))
	}
	f.gather(g)
	defer f.gather(nil)
	for i := range workers {
		p, err := DialPublisher(l.Addr)
		if err != nil {
			return Result{}, err
		}
		defer p.Close()
		workers[i] = &worker{Load: l, fleet: f, conn: p, index: i, count: l.Publishers, gather: g}
	}
	stop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var publishing sync.WaitGroup
	for _, w := range workers {
		publishing.Go(func() {
			if err := w.run(stop); err != nil {
				cancel(err)
			}
		})
	}
	r := f.observe(stop, l, workers)
	failed := context.Cause(stop)
	cancel(nil)
	publishing.Wait()
	r.Lost, r.OutOfOrder = f.settle(ctx)
	r.CutOff = f.ended() - endedBefore
	return r, failed
}

// observe lets the publishers warm up, and measures.
func (f *Fleet) observe(ctx context.Context, l Load, workers []*worker) (r Result) {
	published := func() (sum uint64) {
		for _, w := range workers {
			sum += w.published.Load()
		}
		return sum
	}
	sleep(ctx, l.Warmup)
	f.measure(true)
	began, deliveries, publishes := time.Now(), f.Received(), published()
	l.Began()
	sleep(ctx, l.Measure)
	_ = f.await(ctx, patience, func() bool { // a short measurement may fall between two messages
		return published() > publishes && (len(f.streams) == 0 || f.Received() > deliveries)
	})
	l.Ended()
	r.Elapsed, r.Deliveries, r.Published = time.Since(began), f.Received()-deliveries, published()-publishes
	f.measure(false)
	latency := f.latency()
	r.P50, r.P99 = latency.Quantile(0.5), latency.Quantile(0.99)
	return r
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
