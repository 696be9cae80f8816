package live

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
)

// leftLogs are the logs that a hub has left by a reload, as far as their idempotency records still count: a
// key that was used before the reload gets its first answer after it.
type leftLogs struct {
	mu   sync.Mutex // guards logs
	logs []*leftLog // the newest first
}

// leftLog is what is left of one log.
type leftLog struct {
	records broker.Records
	forget  *time.Timer
}

// maxLeftLogs bounds what reloads that follow each other quickly leave behind.
const maxLeftLogs = 8

// add keeps the records of a log that is about to be closed, if they can be read.
func (l *leftLogs) add(log broker.Log) {
	rememberer, ok := log.(broker.Rememberer)
	if !ok {
		return
	}
	records := rememberer.Records()
	if records == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	left := &leftLog{records: records}
	left.forget = time.AfterFunc(broker.IdempotencyPeriod, func() { l.remove(left) })
	l.logs = slices.Insert(l.logs, 0, left)
	for len(l.logs) > maxLeftLogs {
		l.removeLocked(l.logs[maxLeftLogs])
	}
}

// recall gives the messages of a batch the records that their keys have in the logs before.
func (l *leftLogs) recall(ctx context.Context, batch []*broker.Publication) error {
	if !slices.ContainsFunc(batch, func(p *broker.Publication) bool { return p.Key != "" }) {
		return nil
	}
	l.mu.Lock()
	logs := slices.Clone(l.logs)
	l.mu.Unlock()
	byKey := make(map[string]*broker.Record)
	for _, p := range batch {
		if p.Key == "" {
			continue
		}
		record, known := byKey[p.Key]
		if !known {
			var err error
			if record, err = l.find(ctx, logs, p.Key); err != nil {
				return err
			}
			byKey[p.Key] = record
		}
		p.Earlier = record
	}
	return nil
}

// find returns the newest record that the logs have of a key.
func (l *leftLogs) find(ctx context.Context, logs []*leftLog, key string) (*broker.Record, error) {
	for _, left := range logs {
		record, err := left.records.Find(ctx, key)
		switch {
		case err != nil && l.has(left):
			return nil, fmt.Errorf("%w: the broker before the reload: %w", broker.ErrUnavailable, err)
		case record != nil && err == nil:
			return record, nil
		}
	}
	return nil, nil
}

func (l *leftLogs) has(left *leftLog) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.logs, left)
}

func (l *leftLogs) remove(left *leftLog) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeLocked(left)
}

func (l *leftLogs) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.logs) > 0 {
		l.removeLocked(l.logs[0])
	}
}

// removeLocked forgets a log; a second call does nothing. mu is held.
func (l *leftLogs) removeLocked(left *leftLog) {
	i := slices.Index(l.logs, left)
	if i < 0 {
		return
	}
	l.logs = slices.Delete(l.logs, i, i+1)
	left.forget.Stop()
	_ = left.records.Close() // nothing is left to be done about it
}
