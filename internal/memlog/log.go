// Package memlog keeps a hub's log in memory. The log ends with the process: the next one begins another log,
// with an epoch of its own.
package memlog

import (
	"context"
	"sync"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Log is a hub's log in memory. A mutex gives the order: its holder has the next position.
type Log struct {
	// Epoch names the log.
	Epoch string

	mu      sync.Mutex // guards all below, and so the order of Deliver
	replica *hub.Hub
	last    uint64 // position given out last
	answers *answers
}

// Open returns an empty log.
func Open() *Log { return &Log{Epoch: hub.NewEpoch(), answers: newAnswers()} }

// Start implements broker.Log.
func (l *Log) Start(h *hub.Hub, ready func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replica = h
	h.Follow(hub.Origin{Epoch: l.Epoch})
	h.Announce("broker_changed")
	h.LogFound()
	ready()
}

// Publish implements broker.Log.
func (l *Log) Publish(ctx context.Context, batch []*broker.Publication) (int, error) {
	for i, p := range batch {
		if err := l.publishOne(p); err != nil {
			return i, err
		}
		l.replica.Wait(ctx, p.Receipt.Receivers)
	}
	return len(batch), nil
}

// publishOne puts a message at the end of the log and delivers it, or answers what its key was answered
// before.
func (l *Log) publishOne(p *broker.Publication) (err error) {
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

// CheckKeys implements broker.Log.
func (l *Log) CheckKeys(_ context.Context, batch []*broker.Publication) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range batch {
		unanswered := *p // find may fill in the copy's answer; p gets its own when it is published
		if _, err := l.answers.find(&unanswered); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

// Close implements broker.Log. Nothing runs that would have to end.
func (l *Log) Close() error { return nil }
