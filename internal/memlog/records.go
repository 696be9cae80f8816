package memlog

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
)

// records remembers the record of each idempotency key for broker.IdempotencyPeriod.
type records struct {
	mu       sync.Mutex // guards all below; held while a message with a key is published
	byKey    map[string]*entry
	order    []*entry // by the time of their queued, the oldest first
	bytes    int      // what the records hold
	maxBytes int
}

// entry is the record of one key.
type entry struct {
	*broker.Record
	key    string
	at     time.Time // when its last message was published
	queued time.Time // when it was put into order
}

// entryBytes is what an entry holds beside its key and its record, with its places in byKey and order.
const entryBytes = 160

func newRecords() *records {
	return &records{byKey: make(map[string]*entry), maxBytes: broker.MaxRecordBytes}
}

func (r *records) full() bool { return r.bytes >= r.maxBytes }

// stored returns the record of a key; nil if there is none.
func (r *records) stored(key string) *broker.Record {
	r.forget(time.Now())
	if e := r.byKey[key]; e != nil && !over(e.at, time.Now()) {
		return e.Record
	}
	return nil
}

// add notes in a record, which [broker.Publication.Record] returned, that a message is published.
func (r *records) add(record *broker.Record, p *broker.Publication) {
	now := time.Now()
	e := r.byKey[p.Key]
	if e == nil {
		e = &entry{key: p.Key, queued: now}
		r.byKey[p.Key] = e
		r.order = append(r.order, e)
		r.bytes += entryBytes + len(p.Key)
	} else {
		r.bytes -= e.Size()
	}
	record.Add(p)
	e.Record, e.at = record, now
	r.bytes += e.Size()
}

// forget drops the records whose time is over. One that has grown since it was put into order gets a new
// place there.
func (r *records) forget(now time.Time) {
	for len(r.order) > 0 && over(r.order[0].queued, now) {
		e := r.order[0]
		r.order[0] = nil
		r.order = r.order[1:]
		if over(e.at, now) {
			delete(r.byKey, e.key)
			r.bytes -= entryBytes + len(e.key) + e.Size()
			continue
		}
		e.queued = now
		r.order = append(r.order, e)
	}
}

func over(at, now time.Time) bool { return now.Sub(at) >= broker.IdempotencyPeriod }

// Find implements broker.Records.
func (r *records) Find(_ context.Context, key string) (*broker.Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if stored := r.stored(key); stored != nil {
		return stored.Clone(), nil
	}
	return nil, nil
}

// Close implements broker.Records.
func (r *records) Close() error { return nil }
