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
	records, before map[string]*broker.Record // by idempotency key; before has older ones
	size            int                       // bytes of records and before, about
	since           time.Time                 // when records was begun
}

// Start implements broker.Log.
func (l *Log) Start(h *hub.Hub, ready func()) {
	l.hub = h
	h.Follow(hub.Origin{Epoch: l.epoch, Transient: true})
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
	record := l.record(p)
	if found, err := record.Find(p); found || err != nil {
		return err
	}
	if p.Key != "" && l.size >= broker.MaxRecordBytes {
		return broker.ErrKeysFull
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
		l.size -= record.Size()
		record.Add(p)
		l.size += record.Size()
		l.records[p.Key] = record
	}
	return nil
}

// record returns the record that counts for the key of p. Without a key it is empty.
func (l *Log) record(p *broker.Publication) *broker.Record {
	if now := time.Now(); now.Sub(l.since) > broker.IdempotencyPeriod {
		l.before, l.records, l.since, l.size = l.records, make(map[string]*broker.Record), now, 0
		for _, r := range l.before {
			l.size += r.Size()
		}
	}
	if stored := l.records[p.Key]; stored != nil {
		return p.Record(stored)
	}
	return p.Record(l.before[p.Key])
}

// CheckKeys implements broker.Log.
func (l *Log) CheckKeys(_ context.Context, batch []*broker.Publication) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range batch {
		unanswered := *p // Find may answer the copy; p is answered when it is published
		if _, err := l.record(p).Find(&unanswered); err != nil {
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
