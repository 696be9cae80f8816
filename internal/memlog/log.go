// Package memlog keeps a hub's log in memory. The log ends with the process: the next one begins another log,
// with an epoch of its own.
package memlog

import (
	"context"
	"sync"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Log is a hub's log in memory: it is nowhere but in its hub, which gives each message the next position.
type Log struct {
	// Epoch names the log.
	Epoch   string
	replica *hub.Hub

	mu      sync.Mutex // guards answers; held while a message with a key is published
	answers *answers
}

// Open returns an empty log.
func Open() *Log { return &Log{Epoch: hub.NewEpoch(), answers: newAnswers()} }

// Start implements broker.Log.
func (l *Log) Start(h *hub.Hub, ready func()) {
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

// publishOne puts a message at the end of the hub's log, which is all there is of this one, or answers what
// its key was answered before. Only keys need a lock.
func (l *Log) publishOne(p *broker.Publication) (err error) {
	if p.Key != "" {
		l.mu.Lock()
		defer l.mu.Unlock()
		if found, err := l.answers.find(p); found || err != nil {
			return err
		}
	}
	if p.Receipt.Receivers, err = l.replica.Append(p.Message, l.Epoch); err != nil {
		return err
	}
	if !p.Ephemeral {
		p.Receipt.ID = hub.ID{Epoch: l.Epoch, Position: p.Position}.String()
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
