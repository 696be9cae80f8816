// Package memlog keeps a hub's log in memory. The log ends with the process: the next one begins another log,
// with an epoch of its own.
package memlog

import (
	"context"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Log is a hub's log in memory: it is nowhere but in its hub, which gives each message the next position.
type Log struct {
	// Epoch names the log.
	Epoch   string
	replica *hub.Hub

	records *records // of the idempotency keys
}

// Open returns an empty log.
func Open() *Log { return &Log{Epoch: hub.NewEpoch(), records: newRecords()} }

// Start implements broker.Log.
func (l *Log) Start(h *hub.Hub, ready func()) {
	l.replica = h
	h.Follow(hub.Origin{Epoch: l.Epoch, Transient: true})
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
func (l *Log) publishOne(p *broker.Publication) error {
	if p.Key == "" {
		return l.append(p)
	}
	l.records.mu.Lock()
	defer l.records.mu.Unlock()
	record := p.Record(l.records.stored(p.Key))
	if found, err := record.Find(p); found || err != nil {
		return err
	}
	if l.records.full() {
		return broker.ErrKeysFull
	}
	if err := l.append(p); err != nil {
		return err
	}
	l.records.add(record, p)
	return nil
}

// append puts a message at the end of the hub's log.
func (l *Log) append(p *broker.Publication) (err error) {
	if p.Receipt.Receivers, err = l.replica.Append(p.Message, l.Epoch); err != nil {
		return err
	}
	if !p.Ephemeral {
		p.Receipt.ID = hub.ID{Epoch: l.Epoch, Position: p.Position}.String()
	}
	return nil
}

// CheckKeys implements broker.Log.
func (l *Log) CheckKeys(_ context.Context, batch []*broker.Publication) (int, error) {
	l.records.mu.Lock()
	defer l.records.mu.Unlock()
	for i, p := range batch {
		if p.Key == "" {
			continue
		}
		unanswered := *p // Find may fill in the copy's answer; p gets its own when it is published
		if _, err := p.Record(l.records.stored(p.Key)).Find(&unanswered); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

// Purge implements broker.Purger.
func (l *Log) Purge(_ context.Context, p hub.Purge) error {
	l.replica.Purge(p)
	return nil
}

// Records implements broker.Rememberer.
func (l *Log) Records() broker.Records { return l.records }

// Close implements broker.Log. Nothing runs that would have to end.
func (l *Log) Close() error { return nil }
