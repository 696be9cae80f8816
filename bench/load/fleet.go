//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Target is where a fleet subscribes, and how.
type Target struct {
	Addrs []string // the clients take turns
	TLS   bool
	// StreamsPerConn says that the streams are HTTP/2's, so many a connection; 0 = HTTP/1.1, one a connection.
	StreamsPerConn int
	// Path returns the request target of client i, and the header fields it needs beside Host and Accept.
	Path func(i int) (path string, fields []Field)
}

// Field is a header field of a request. Its name is in lower case, as HTTP/2 wants it.
type Field struct{ Name, Value string }

// Fleet is a crowd of subscribers. Client i is subscribed to topic i modulo the number of topics.
type Fleet struct {
	publishers int
	topics     int
	streams    []*stream
	tallies    []*tally
	close      func()
	wg         sync.WaitGroup // readers
	closing    atomic.Bool

	// sent is how many messages each publisher sent to each topic, as [topic*publishers + publisher]. A publisher
	// alone writes its own entries; others read them when publishers rest.
	sent []uint32
}

// Options say how large a fleet is.
type Options struct {
	Clients    int
	Topics     int // 0 = 1
	Publishers int // how many publishers there will be at most
}

const (
	// patience is how long a server may make no progress at all before it has failed.
	patience = 10 * time.Second
	// What has not come when nothing came for so long is lost.
	silence = 2 * time.Second
)

// Dial subscribes the clients, and returns when all of them have been answered. The fleet is to be closed also after
// an error, which is what the clients that did come up are for.
func Dial(ctx context.Context, target Target, o Options) (*Fleet, error) {
	o.Topics = max(o.Topics, 1)
	f := &Fleet{
		publishers: o.Publishers, topics: o.Topics,
		sent: make([]uint32, o.Topics*o.Publishers),
	}
	next := make([]uint32, o.Clients*o.Publishers)
	for i := range o.Clients {
		f.streams = append(f.streams, &stream{next: next[i*o.Publishers:][:o.Publishers:o.Publishers]})
	}
	var err error
	switch {
	case target.StreamsPerConn > 0:
		err = f.dialH2(ctx, target)
	case target.TLS:
		err = f.dialTLS(ctx, target)
	default:
		err = f.dialRaw(ctx, target)
	}
	if err == nil {
		err = f.await(ctx, patience, func() bool { return f.total(func(t *tally) uint64 { return uint64(t.ready) }) == uint64(o.Clients) })
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("subscribing %d clients: %w", o.Clients, errors.Join(err, f.firstEnd()))
	}
	return f, nil
}

// Nobody is a fleet without clients, for loads that only publish.
func Nobody(publishers int) *Fleet {
	return &Fleet{publishers: publishers, topics: 1, sent: make([]uint32, publishers)}
}

// share distributes the streams among n tallies.
func (f *Fleet) share(n int) {
	for range n {
		f.tallies = append(f.tallies, &tally{})
	}
	for i, s := range f.streams {
		s.tally = f.tallies[i%n]
		s.tally.streams = append(s.tally.streams, s)
	}
}

// Close ends all clients and waits for the readers.
func (f *Fleet) Close() {
	f.closing.Store(true)
	if f.close != nil {
		f.close()
	}
	f.wg.Wait()
}

// Clients returns how many there are.
func (f *Fleet) Clients() int { return len(f.streams) }

// Received returns how many messages have come in all.
func (f *Fleet) Received() uint64 { return f.total(func(t *tally) uint64 { return t.received }) }

// total adds up what each tally says.
func (f *Fleet) total(of func(*tally) uint64) (sum uint64) {
	for _, t := range f.tallies {
		t.mu.Lock()
		sum += of(t)
		t.mu.Unlock()
	}
	return sum
}

// ended returns how many clients the server has cut off.
func (f *Fleet) ended() int {
	return int(f.total(func(t *tally) (n uint64) {
		for _, s := range t.streams {
			if s.ended != nil {
				n++
			}
		}
		return n
	}))
}

func (f *Fleet) firstEnd() error {
	for _, t := range f.tallies {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, s := range t.streams {
			if s.ended != nil {
				return fmt.Errorf("a client's stream: %w", s.ended)
			}
		}
	}
	return nil
}

// await waits until it is so, as long as the server makes any progress.
func (f *Fleet) await(ctx context.Context, patience time.Duration, so func() bool) error {
	progress := func() uint64 { return f.total(func(t *tally) uint64 { return uint64(t.ready) + t.received }) }
	last, since := progress(), time.Now()
	for !so() {
		if n := progress(); n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) > patience {
			return errors.New("the server makes no progress")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// behind reports whether any client that is connected still lacks a message that was sent.
func (f *Fleet) behind() bool {
	for i, s := range f.streams {
		sent := f.sentTo(i)
		s.tally.mu.Lock()
		late := s.missing > 0
		for publisher, n := range s.next {
			late = late || n != sent[publisher]
		}
		late = late && s.ended == nil
		s.tally.mu.Unlock()
		if late {
			return true
		}
	}
	return false
}

// sentTo returns how many messages each publisher sent to client i.
func (f *Fleet) sentTo(i int) []uint32 {
	topic := i % f.topics
	return f.sent[topic*f.publishers:][:f.publishers]
}

// settle waits for what is under way, then returns what was lost and what came out of order since the last time. To
// be called while publishers rest.
func (f *Fleet) settle(ctx context.Context) (lost, outOfOrder int) {
	_ = f.await(ctx, silence, func() bool { return !f.behind() }) // who is still behind then has lost it
	for i, s := range f.streams {
		s.tally.mu.Lock()
		l, o := s.settle(f.sentTo(i))
		s.tally.mu.Unlock()
		lost, outOfOrder = lost+l, outOfOrder+o
	}
	return lost, outOfOrder
}

// measure begins the latencies anew, or ends them.
func (f *Fleet) measure(on bool) {
	for _, t := range f.tallies {
		t.mu.Lock()
		t.measure = on
		if on {
			t.latency = Histogram{}
		}
		t.mu.Unlock()
	}
}

// latency returns the latencies of all.
func (f *Fleet) latency() *Histogram {
	sum := new(Histogram)
	for _, t := range f.tallies {
		t.mu.Lock()
		sum.Merge(&t.latency)
		t.mu.Unlock()
	}
	return sum
}

// gather makes the tallies tell when all clients have got a message; nil stops that.
func (f *Fleet) gather(g *gather) {
	for _, t := range f.tallies {
		t.mu.Lock()
		t.whole, t.rounds = g, nil
		if g != nil {
			t.rounds = make([]round, f.publishers)
		}
		t.mu.Unlock()
	}
}

// endLocked notes that a stream is over. The tally must be locked.
func (f *Fleet) endLocked(s *stream, err error) {
	if !f.closing.Load() && s.ended == nil {
		s.ended = err
	}
}
