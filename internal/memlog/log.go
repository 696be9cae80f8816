package memlog

import (
	"context"
	"sync"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Log orders messages by a mutex: whoever holds it has the next position.
type Log struct {
	Epoch string

	mu      sync.Mutex // guards all below, and so the order of Deliver
	replica *hub.Hub
	last    uint64
	answers *answers
}

// Open returns an empty log.
func Open() *Log { return &Log{Epoch: hub.NewEpoch(), answers: newAnswers()} }

func (l *Log) Start(h *hub.Hub, ready func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replica = h
	h.Follow(hub.Origin{Epoch: l.Epoch})
	h.Announce("broker_changed")
	h.LogFound()
	ready()
}

func (l *Log) Publish(ctx context.Context, batch []*broker.Publication) (int, error) {
	for i, p := range batch {
		if err := l.publish(p); err != nil {
			return i, err
		}
		l.replica.Wait(ctx, p.Receipt.Receivers)
	}
	return len(batch), nil
}

func (l *Log) publish(p *broker.Publication) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found, err := l.answers.find(p); found || err != nil {
		return err
	}
	if !p.Ephemeral {
		p.Position = hub.Position{Major: l.last + 1}
		p.Receipt.ID = hub.ID{Epoch: l.Epoch, Position: p.Position}.String()
	}
	if p.Receipt.Receivers, err = l.replica.DeliverUnlessEnded(p.Message); err != nil {
		return err
	}
	if !p.Ephemeral {
		l.last++
	}
	l.answers.keep(p)
	return nil
}

func (l *Log) CheckKeys(_ context.Context, batch []*broker.Publication) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range batch {
		looked := *p // it is not answered yet
		if _, err := l.answers.find(&looked); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

func (l *Log) Close() error { return nil }
