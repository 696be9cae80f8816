package boltlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/broker"
)

// The record of an idempotency key is stored with the time of its last message before it, in Unix
// milliseconds. It is written with the messages that it is of, in the same commit.

const (
	maxForget      = 4096 // records looked at in one piece
	recordOverhead = 32   // what a record takes beside its key and value
)

// readRecord returns the record that is stored under a key, and how many bytes it takes, even if its time is
// over. Without one it returns nil.
func readRecord(bucket *bbolt.Bucket, key string, now time.Time) (r *broker.Record, size int, err error) {
	value, err := get(bucket, []byte(key))
	if value == nil || err != nil {
		return nil, 0, err
	}
	size = recordSize([]byte(key), value)
	if recordOver(value, now) {
		return nil, size, nil
	}
	r, err = broker.ParseRecord(string(value[8:]))
	return r, size, err
}

// recordOver reports whether a record's time is over. That of a value in the form of an older version is.
func recordOver(value []byte, now time.Time) bool {
	return len(value) < 8 || value[0] != 0 ||
		now.Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(value)))) >= broker.IdempotencyPeriod
}

// recordSize returns how much of the file a record takes, about.
func recordSize(key, value []byte) int { return len(key) + len(value) + recordOverhead }

// batchRecords are the records of one batch, each of which is read and written once.
type batchRecords struct {
	bucket *bbolt.Bucket
	now    time.Time
	byKey  map[string]*openRecord
}

// openRecord is a record with what it takes in the file.
type openRecord struct {
	*broker.Record
	stored  int // in bytes; 0 for nothing
	changed bool
}

func newBatchRecords(tx *bbolt.Tx) *batchRecords {
	return &batchRecords{bucket: tx.Bucket(answersBucket), now: time.Now(), byKey: make(map[string]*openRecord)}
}

// find looks whether a message with a key was published before.
func (b *batchRecords) find(p *broker.Publication) (found bool, err error) {
	r := b.byKey[p.Key]
	if r == nil {
		stored, size, err := readRecord(b.bucket, p.Key, b.now)
		if err != nil {
			return false, err
		}
		r = &openRecord{Record: p.Record(stored), stored: size}
		b.byKey[p.Key] = r
	}
	return r.Find(p)
}

// findOrFit is find for a message that is to be published. Unless it was, there must be room for its record.
func (b *batchRecords) findOrFit(p *broker.Publication, room int) (found bool, err error) {
	found, err = b.find(p)
	if !found && err == nil && room <= 0 {
		err = broker.ErrKeysFull
	}
	return found, err
}

// add notes that a message is published, which find did not find.
func (b *batchRecords) add(p *broker.Publication) {
	r := b.byKey[p.Key]
	r.Add(p)
	r.changed = true
}

// store writes the records that have changed. It returns by how many bytes they have grown.
func (b *batchRecords) store() (grown int, err error) {
	for key, r := range b.byKey {
		if !r.changed {
			continue
		}
		value := r.AppendText(binary.BigEndian.AppendUint64(nil, uint64(b.now.UnixMilli())))
		grown += recordSize([]byte(key), value) - r.stored
		if err := put(b.bucket, []byte(key), value); err != nil {
			return 0, err
		}
	}
	return grown, nil
}

// measureRecords returns how much of the file the records take.
func measureRecords(tx *bbolt.Tx) (size int, err error) {
	err = each(tx.Bucket(answersBucket), func(key, value []byte) error {
		size += recordSize(key, value)
		return nil
	})
	return size, err
}

// forgetRecords removes the records whose time is over. It looks at some of them each time, so that commits
// between don't wait long.
func (l *Log) forgetRecords(now time.Time) error {
	var old [][]byte
	var next []byte
	err := l.look(func(tx *bbolt.Tx) error {
		old, next = overRecords(tx, l.forgetFrom, now)
		return nil
	})
	if err != nil {
		return err
	}
	l.forgetFrom = next
	if len(old) == 0 {
		return nil
	}
	freed := 0
	err = l.change(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(answersBucket)
		for _, key := range old {
			value, err := get(bucket, key)
			if err != nil {
				return err
			}
			freed += recordSize(key, value)
			if err := bucket.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		l.recordBytes -= freed
	}
	return err
}

// overRecords returns which of the records from a key on are over, and where to look next; nil for the
// beginning.
func overRecords(tx *bbolt.Tx, from []byte, now time.Time) (old [][]byte, next []byte) {
	cursor, looked := tx.Bucket(answersBucket).Cursor(), 0
	for key, sealed := cursor.Seek(from); key != nil; key, sealed = cursor.Next() {
		if looked == maxForget {
			return old, bytes.Clone(key)
		}
		looked++
		// One that is damaged stays: who uses its key is told.
		if value, err := unseal(key, sealed); err == nil && recordOver(value, now) {
			old = append(old, bytes.Clone(key))
		}
	}
	return old, nil
}

// Records implements broker.Rememberer. The file is closed with the log, so its records are copied, unless the
// disk does not answer soon.
func (l *Log) Records() broker.Records {
	ctx, cancel := context.WithTimeout(context.Background(), l.closePatience)
	defer cancel()
	kept, err := patiently(ctx, l.copyRecords)
	if err != nil {
		return nil
	}
	return kept
}

// copyRecords is Records on a disk that answers.
func (l *Log) copyRecords() (leftRecords, error) {
	kept, now := make(leftRecords), time.Now()
	err := l.view(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(answersBucket)
		if bucket == nil {
			return errors.New("the first run has not begun")
		}
		return each(bucket, func(key, value []byte) error {
			if !recordOver(value, now) {
				kept[string(key)] = string(value)
			}
			return nil
		})
	})
	return kept, err
}

// leftRecords are the values of the records that a file had when its log was closed, by key.
type leftRecords map[string]string

// Find implements broker.Records.
func (r leftRecords) Find(_ context.Context, key string) (*broker.Record, error) {
	value, found := r[key]
	if !found || recordOver([]byte(value), time.Now()) {
		return nil, nil
	}
	return broker.ParseRecord(value[8:])
}

// Close implements broker.Records.
func (leftRecords) Close() error { return nil }
