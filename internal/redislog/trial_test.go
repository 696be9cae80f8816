package redislog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// trial runs instances under load while something goes wrong. Its ledger knows what was acknowledged.
type trial struct {
	t         *testing.T
	ledger    *e2etest.Ledger
	instances []*instance
	clients   []*trialClient
	cancel    context.CancelFunc
	running   sync.WaitGroup // publishers
	wandering sync.WaitGroup
	answered  []*progress // messages published by instance
	failover  bool        // whether the log may lose its end when another server takes over
}

// trialClient is a client that stays where it is.
type trialClient struct {
	*reader
	name   string
	topics []string
}

// progress counts what one instance has published.
type progress struct {
	mu sync.Mutex
	n  int
}

func (p *progress) add() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
}

func (p *progress) get() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

// outcomeOf returns what an error tells a publisher.
func outcomeOf(t testing.TB, err error) e2etest.Outcome {
	switch {
	case err == nil:
		return e2etest.OutcomePublished
	case errors.Is(err, broker.ErrUnknownOutcome):
		return e2etest.OutcomeUnknown
	case errors.Is(err, broker.ErrUnavailable):
		return e2etest.OutcomeRefused
	}
	t.Errorf("publishing gave %v", err)
	return e2etest.OutcomeRefused
}

// newTrial connects clients to the instances and starts publishers on each.
func newTrial(t *testing.T, instances ...*instance) *trial {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	x := &trial{t: t, ledger: e2etest.NewLedger(), instances: instances, cancel: cancel}
	t.Cleanup(func() {
		cancel()
		x.running.Wait()
		x.wandering.Wait()
	})
	for n, i := range instances {
		for _, topics := range [][]string{{"a"}, {"a", "b"}} {
			r, name := i.subscribe(hubtest.With(topics...)), fmt.Sprintf("%v on instance %d", topics, n)
			x.clients = append(x.clients, &trialClient{r, name, topics})
		}
	}
	for n, i := range instances {
		count := new(progress)
		x.answered = append(x.answered, count)
		for p, topic := range []string{"a", "b", "a"} {
			name := fmt.Sprintf("%d.%d", n, p)
			x.running.Go(func() {
				x.ledger.Drive(ctx, name, topic, time.Millisecond, func(text string) (string, e2etest.Outcome) {
					if ctx.Err() != nil && t.Failed() {
						return "", e2etest.OutcomePublished // nobody judges a test that has failed
					}
					m := withKey(text, text, hub.Topics(topic)...)
					_, err := i.log.Publish(context.Background(), []*broker.Publication{m})
					if err == nil {
						count.add()
					}
					return m.Receipt.ID, outcomeOf(t, err)
				})
			})
		}
	}
	x.awaitProgress(200)
	return x
}

// awaitProgress returns when every instance has published so many more messages.
func (x *trial) awaitProgress(n int) {
	x.t.Helper()
	for k, count := range x.answered {
		from := count.get()
		e2etest.Await(x.t, fmt.Sprintf("%d messages by instance %d", n, k), func() bool {
			return count.get() >= from+n
		})
	}
}

// conclude stops the publishers, waits until everything has arrived and judges what each client got. It
// returns the number of gaps that each was told.
func (x *trial) conclude() map[string]int {
	x.t.Helper()
	x.awaitProgress(100)
	x.cancel()
	x.running.Wait()
	for _, topic := range []string{"a", "b"} {
		end := withKey("end of "+topic, "end of "+topic, hub.Topics(topic)...)
		e2etest.Await(x.t, "the last message to be published", func() bool {
			_, err := x.instances[0].tryPublish(end)
			return err == nil
		})
		x.ledger.Note("end of "+topic, topic, end.Receipt.ID, e2etest.OutcomePublished)
	}
	for _, c := range x.clients {
		for _, topic := range c.topics {
			c.awaitText("end of " + topic)
		}
		judge := x.ledger.Judge
		if x.failover {
			judge = x.ledger.JudgeFailover
		}
		for _, fault := range judge(c.ID, c.topics, c.got()) {
			x.t.Errorf("client %s: %s", c.name, fault)
		}
	}
	published, refused, again := x.ledger.Counts()
	x.t.Logf("%d published, %d refused, %d sent again; gaps: %v", published, refused, again, x.gaps())
	return x.gaps()
}

// gaps returns how many gaps each client has been told.
func (x *trial) gaps() map[string]int {
	told := make(map[string]int)
	for _, c := range x.clients {
		told[c.name] = c.gaps()
	}
	return told
}

// wantNoGaps fails the test if a client was told a gap.
func (x *trial) wantNoGaps(gaps map[string]int) {
	x.t.Helper()
	for name, n := range gaps {
		if n > 0 {
			x.t.Errorf("client %s was told %d gaps", name, n)
		}
	}
}

// wander has a client resume on one instance after another until it has the last messages. What it gets is
// judged with the rest.
func (x *trial) wander() {
	topics := []string{"a", "b"}
	r := x.instances[0].subscribe(hubtest.With(topics...))
	w := &reader{Welcome: r.Welcome, t: x.t, changed: make(chan struct{})}
	x.clients = append(x.clients, &trialClient{w, fmt.Sprint("wanderer ", len(x.clients)), topics})
	x.wandering.Go(func() {
		deadline := time.Now().Add(2 * soon)
		ended := make(map[string]bool) // topics; after a gap an end may come again
		for len(ended) < len(topics) && time.Now().Before(deadline) {
			time.Sleep(time.Duration(5+rand.IntN(50)) * time.Millisecond) // how long it stays
			last := r.leave()
			w.goOn(r)
			for _, topic := range topics {
				if count(r.got(), "end of "+topic) > 0 {
					ended[topic] = true
				}
			}
			i := x.instances[rand.IntN(len(x.instances))]
			i.AwaitID(context.Background(), last)
			r = i.subscribe(hubtest.Returning(hubtest.With(topics...), last))
		}
		r.leave()
	})
}

// goOn adds what came on another connection of the client. A gap told at its start covers what its hub knew
// to be lost.
func (r *reader) goOn(one *reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one.Resume == hub.ResumeGap {
		r.events = append(r.events, eventstream.Event{Name: "gap", Data: []byte(one.covers), HasData: true})
	}
	r.events = append(r.events, one.got()...)
	close(r.changed)
	r.changed = make(chan struct{})
}
