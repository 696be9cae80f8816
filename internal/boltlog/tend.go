package boltlog

import (
	"math"
	"time"

	"go.etcd.io/bbolt"
)

// tend removes what the hub no longer keeps, stores claims, and tries a file again that could not be written.
func (l *Log) tend() {
	l.trim() // first, since it makes room within the file
	if l.replica.LogUp() {
		l.forgetOldRecords()
		return
	}
	if err := l.tryAgain(); err != nil {
		l.fail(err)
		return
	}
	l.replica.LogFound()
}

// forgetOldRecords looks for records of idempotency keys whose time is over.
func (l *Log) forgetOldRecords() {
	if !l.loaded {
		return
	}
	if err := l.forgetRecords(time.Now()); err != nil {
		l.fail(err)
	}
}

// tryAgain makes a large commit and takes it back. A small one could find room within a file on a full disk.
func (l *Log) tryAgain() error {
	if err := l.load(); err != nil {
		return err
	}
	err := l.update(func(tx *bbolt.Tx) error {
		return put(tx.Bucket(metaBucket), probeKey, make([]byte, probeSize))
	})
	if err != nil {
		return err
	}
	return l.update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(probeKey) })
}

// trim removes from the file what the replica no longer keeps, and stores the new owners of the rest.
func (l *Log) trim() {
	if l.epoch == "" || l.replica.Position().Epoch != l.epoch {
		return // the replica follows another log
	}
	dropped := append(l.unremoved, l.replica.Dropped()...)
	l.unremoved = nil
	for len(dropped) > 0 {
		n := min(len(dropped), maxTrimBatch)
		if err := l.update(func(tx *bbolt.Tx) error { return removeMessages(tx, dropped[:n]) }); err != nil {
			l.unremoved = dropped
			l.fail(err)
			return
		}
		dropped = dropped[n:]
	}
	if !l.loaded {
		return
	}
	if err := l.noteClaims(); err != nil {
		l.fail(err)
	}
}

// clean bounds the marks that the file keeps beside its messages.
func (l *Log) clean() {
	if !l.loaded {
		return
	}
	now := time.Now()
	keep := max(time.Hour, 2*min(l.replica.Limits().History.Age, math.MaxInt64/2))
	if err := l.update(foldMarks(keep, maxMarks, now)); err != nil {
		l.fail(err)
	}
}
