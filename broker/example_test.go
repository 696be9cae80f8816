package broker_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Module opens logs that last as long as the process.
type Module struct{}

// Identity implements broker.Module.
func (Module) Identity() string { return "example" }

// Open implements broker.Module.
func (Module) Open(string) (broker.Log, error) { return &Log{epoch: hub.NewEpoch()}, nil }

// Log orders messages by a mutex: whoever holds it has the next position.
type Log struct {
	epoch string

	mu              sync.Mutex // guards all below, and the order of Deliver
	hub             *hub.Hub
	last            uint64
	answers, before map[string]*broker.Publication // by idempotency key; before has older ones
	since           time.Time                      // when answers was begun
}

// Start implements broker.Log.
func (l *Log) Start(h *hub.Hub, ready func()) {
	l.hub = h
	h.Follow(hub.Origin{Epoch: l.epoch})
	h.Announce("broker_changed")
	h.LogFound()
	ready()
}

// Publish implements broker.Log.
func (l *Log) Publish(ctx context.Context, batch []*broker.Publication) (int, error) {
	for i, p := range batch {
		if err := l.publish(p); err != nil {
			return i, err
		}
		l.hub.Wait(ctx, p.Receipt.Receivers)
	}
	return len(batch), nil
}

func (l *Log) publish(p *broker.Publication) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, err := l.find(p)
	if err != nil {
		return err
	}
	if first != nil {
		p.Receipt, p.Repeated = first.Receipt, true
		return nil
	}
	if !p.Ephemeral {
		p.Position = hub.Position{Major: l.last + 1}
		p.Receipt.ID = hub.ID{Epoch: l.epoch, Position: p.Position}.String()
	}
	if p.Receipt.Receivers, err = l.hub.DeliverUnlessEnded(p.Message); err != nil {
		return err
	}
	if !p.Ephemeral {
		l.last++
	}
	if p.Key != "" {
		l.answers[p.Key] = &broker.Publication{Fingerprint: p.Fingerprint, Receipt: p.Receipt}
	}
	return nil
}

// find returns what was published with the key of p, if anything was.
func (l *Log) find(p *broker.Publication) (*broker.Publication, error) {
	if now := time.Now(); now.Sub(l.since) > broker.IdempotencyPeriod {
		l.before, l.answers, l.since = l.answers, make(map[string]*broker.Publication), now
	}
	first := l.answers[p.Key]
	if first == nil {
		first = l.before[p.Key]
	}
	if first != nil && first.Fingerprint != p.Fingerprint {
		return nil, broker.ErrKeyReused
	}
	return first, nil
}

// CheckKeys implements broker.Log.
func (l *Log) CheckKeys(_ context.Context, batch []*broker.Publication) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range batch {
		if _, err := l.find(p); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

// Close implements broker.Log.
func (l *Log) Close() error { return nil }

func Example() {
	log, err := Module{}.Open("news")
	if err != nil {
		panic(err)
	}
	defer func() { _ = log.Close() }()
	log.Start(hub.NewHub(hub.Limits{}), func() { fmt.Println("ready") })

	message := &broker.Publication{Message: &hub.Message{To: hub.Topics("snow"), Data: []byte("30 cm")}}
	n, err := log.Publish(context.Background(), []*broker.Publication{message})
	id, _ := hub.ParseID(message.Receipt.ID)
	fmt.Println("published:", n, err)
	fmt.Println("position:", id.Position, "receivers:", message.Receipt.Receivers)
	// Output:
	// ready
	// published: 1 <nil>
	// position: 1 receivers: 0
}
