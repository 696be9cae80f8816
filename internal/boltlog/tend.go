package boltlog

import (
	"math"
	"time"

	"go.etcd.io/bbolt"
)

// removeBytes is about how many bytes of messages one commit removes when there is no hurry.
const removeBytes = 1 << 20

// tend removes what the hub no longer keeps, stores claims, shrinks a file that is too large, and tries a
// file again that could not be written.
func (l *Log) tend() {
	if err := l.removeBetween(); err != nil { // first, since it makes room within the file
		l.fail(err)
		return
	}
	if l.context.Err() != nil {
		return
	}
	if l.loaded {
		if err := l.noteClaims(); err != nil {
			l.fail(err)
			return
		}
		if len(l.unremoved) == 0 {
			l.shrinkWhileIdle()
		}
	}
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
	err := l.change(func(tx *bbolt.Tx) error {
		return put(tx.Bucket(metaBucket), probeKey, make([]byte, probeSize))
	})
	if err != nil {
		return err
	}
	return l.change(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(probeKey) })
}

// removeBetween removes what the hub no longer keeps, piece by piece. Between two pieces it commits the
// batches that wait. It ends before it is due again, even if something is left.
func (l *Log) removeBetween() error {
	l.noteDropped()
	for end := time.Now().Add(tendFileEvery); len(l.unremoved) > 0 && time.Now().Before(end); {
		select {
		case first := <-l.queue:
			l.commit(l.gather(first))
		case <-l.context.Done():
			return nil
		default:
			if err := l.remove(removeBytes); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeRoom comes before a commit that stores so many bytes. Once about as much has been stored as one commit
// holds, it removes at least as much, if the hub has dropped so much. So the file grows only as what is kept
// does, however fast messages come. It also bounds the marks. It makes one commit at most, and none for a
// small batch that has waited for such a commit already.
func (l *Log) makeRoom(size int) error {
	l.noteDropped()
	if len(l.unremoved) == 0 {
		l.grown = 0
	}
	switch {
	case l.tidied && size < maxCommitBytes:
		return nil
	case l.marks.over(maxMarks):
		return l.fold() // what grew meanwhile is removed before the next commit
	case len(l.unremoved) > 0 && l.grown+size >= maxCommitBytes:
		return l.remove(max(removeBytes, 2*(l.grown+size)))
	}
	return nil
}

// noteDropped asks the hub what it has dropped.
func (l *Log) noteDropped() {
	if l.epoch != "" && l.replica.Position().Epoch == l.epoch { // else the replica follows another log
		l.unremoved = append(l.unremoved, l.replica.Dropped()...)
	}
}

// removeAll removes all that the hub has dropped.
func (l *Log) removeAll() error {
	for l.noteDropped(); len(l.unremoved) > 0; {
		if err := l.remove(maxRestoreBytes); err != nil {
			return err
		}
	}
	return nil
}

// remove removes some of what the hub has dropped, about so many bytes, the oldest first.
func (l *Log) remove(size int) error {
	var removed int
	var made markSize
	unremoved := l.unremoved
	err := l.change(func(tx *bbolt.Tx) (err error) {
		removed, made, err = removeMessages(tx, unremoved, size)
		return err
	})
	if err != nil {
		return err
	}
	l.unremoved, l.grown, l.tidied = l.unremoved[removed:], 0, true
	l.marks.add(made)
	return nil
}

// clean bounds the marks that the file keeps beside its messages.
func (l *Log) clean() {
	if !l.loaded {
		return
	}
	if err := l.fold(); err != nil {
		l.fail(err)
	}
}

// fold bounds the marks.
func (l *Log) fold() error {
	limits := l.replica.Limits()
	keep := max(time.Hour, 2*min(limits.LongestAge(), math.MaxInt64/2))
	var left markSize
	err := l.change(func(tx *bbolt.Tx) (err error) {
		left, err = foldMarks(tx, keep, maxMarks, time.Now())
		return err
	})
	if err == nil {
		l.marks, l.tidied = left, true
	}
	return err
}
