// Package boltlog keeps a hub's log in a file. The log outlives the process: order, IDs, what is kept of each
// address and the answers to idempotency keys are the same after a restart.
//
// A message is committed to the file, then delivered, then answered. Requests that wait at the same time
// share a commit. Without Options.Sync a commit is not waited for on disk; after the machine has crashed, the
// log then goes on under another epoch, and clients are told a gap.
package boltlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Options are the settings of a log in a file.
type Options struct {
	// Sync has each publish on disk before it is answered. Without it the last messages may be lost if the
	// machine crashes, but not if only the process does; clients are then told a gap.
	Sync bool
	// Logger gets what an operator should know.
	Logger *zap.Logger
	// Release gives the file back. It is called once, when the log has ended.
	Release func() error
}

// Open returns the log in a file.
func Open(file *File, o Options) *Log {
	l := &Log{
		Options: o, File: file, queue: make(chan *pendingBatch), maxRecordBytes: broker.MaxRecordBytes,
	}
	l.context, l.cancel = context.WithCancel(context.Background())
	return l
}

// Log is a hub's log in a file. One goroutine commits.
type Log struct {
	Options
	*File
	replica *hub.Hub
	queue   chan *pendingBatch // unbuffered: a batch that nobody has taken is not under way

	// The fields below belong to the committing goroutine.

	loaded    bool                    // whether the replica has what the file keeps
	epoch     string                  // name of the log, once it has been read
	unremoved []*hub.Message          // messages that the hub has dropped and the file still has
	claims    map[hub.Position]string // owners to be stored with the messages at these positions
	// recordBytes is how much of the file the records of idempotency keys take, and recordsGrown by how much
	// the commit under way changes that.
	recordBytes, recordsGrown int
	maxRecordBytes            int
	forgetFrom                []byte // the key from which on records are looked at next; nil for the first

	context context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// pendingBatch is one request's messages on their way into the file.
type pendingBatch struct {
	batch     []*broker.Publication
	published int           // messages that were published
	err       error         // why not all were
	done      chan struct{} // closed when both are set
}

const (
	maxCommitBatch  = 1024            // messages of one commit, about
	maxTrimBatch    = 10_000          // messages removed by one commit
	maxRestoreBytes = 16 << 20        // message bytes restored before what is over the limits is removed
	maxMarks        = 1 << 16         // addresses of which the file knows what was removed
	probeSize       = 1 << 20         // bytes of the commit that tries a file again
	tendFileEvery   = 2 * time.Second // interval of tend
	cleanFileEvery  = 5 * time.Minute // interval of clean
)

// Start implements broker.Log.
func (l *Log) Start(h *hub.Hub, ready func()) {
	l.replica = h
	if err := l.load(); err != nil {
		l.fail(err)
	} else {
		h.LogFound()
	}
	l.wg.Go(l.commitPending)
	ready()
}

// Close implements broker.Log. Batches that are under way are still published and answered.
func (l *Log) Close() error {
	l.cancel()
	l.wg.Wait()
	if !l.loaded {
		return l.Release() // the run never began, or its last commit is in doubt
	}
	return errors.Join(l.end(), l.Release())
}

// Publish implements broker.Log.
func (l *Log) Publish(ctx context.Context, batch []*broker.Publication) (int, error) {
	if len(batch) == 0 {
		return 0, nil
	}
	p := &pendingBatch{batch: batch, done: make(chan struct{})}
	select {
	case l.queue <- p:
	case <-ctx.Done():
		return 0, broker.ErrUnavailable
	case <-l.context.Done():
		return 0, broker.ErrUnavailable
	}
	<-p.done // without ctx: a disk answers, even if late
	for _, m := range batch[:p.published] {
		l.replica.Wait(ctx, m.Receipt.Receivers)
	}
	return p.published, p.err
}

// CheckKeys implements broker.Log.
func (l *Log) CheckKeys(_ context.Context, batch []*broker.Publication) (fine int, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		answers := tx.Bucket(answersBucket)
		if answers == nil { // the first run could not begin yet
			return broker.ErrUnavailable
		}
		for ; fine < len(batch); fine++ {
			unanswered := *batch[fine] // the copy may be answered; the original is when it is published
			if unanswered.Key == "" {
				continue
			}
			stored, _, err := readRecord(answers, unanswered.Key, time.Now())
			if err != nil {
				return err
			}
			if _, err := unanswered.Record(stored).Find(&unanswered); err != nil {
				return err
			}
		}
		return nil
	})
	return fine, err
}

// fail tells the hub that the file can't be read or written.
func (l *Log) fail(err error) { l.replica.LogLost(fmt.Errorf("the log file %s: %w", l.path, err)) }

// commitPending commits the batches that wait, one commit at a time. During a commit the next batches gather.
func (l *Log) commitPending() {
	tending, cleaning := time.NewTicker(tendFileEvery), time.NewTicker(cleanFileEvery)
	defer tending.Stop()
	defer cleaning.Stop()
	for {
		select {
		case first := <-l.queue:
			l.commit(l.gather(first))
		case <-tending.C:
			l.tend()
		case <-cleaning.C:
			l.clean()
		case <-l.context.Done():
			l.commitRest()
			l.trim()
			return
		}
	}
}

// commitRest commits the batches that still wait when the log is closed.
func (l *Log) commitRest() {
	for {
		select {
		case first := <-l.queue:
			l.commit(l.gather(first))
		default:
			return
		}
	}
}

// gather returns a batch and those that wait behind it, as many as fit into a commit.
func (l *Log) gather(first *pendingBatch) (pending []*pendingBatch) {
	pending, messages := append(pending, first), len(first.batch)
	for messages < maxCommitBatch {
		select {
		case next := <-l.queue:
			pending = append(pending, next)
			messages += len(next.batch)
		default:
			return pending
		}
	}
	return pending
}

// commit puts batches into the file, then delivers and answers them.
func (l *Log) commit(pending []*pendingBatch) {
	defer func() {
		for _, p := range pending {
			close(p.done)
		}
	}()
	fresh, err := l.write(pending)
	if err != nil {
		l.fail(err)
		outcome := broker.ErrUnavailable
		if l.landed() {
			outcome = broker.ErrUnknownOutcome
			l.doubtful, l.loaded = true, false // so that the log goes on under another name
		}
		for _, p := range pending {
			p.published, p.err = 0, fmt.Errorf("%w: %w", outcome, err)
		}
		return
	}
	l.replica.LogFound()
	for _, m := range fresh {
		l.replica.Deliver(m.Message)
	}
}

// write makes one commit of all the batches. It returns the messages to be delivered.
func (l *Log) write(pending []*pendingBatch) (fresh []*broker.Publication, err error) {
	if err := l.load(); err != nil {
		return nil, err
	}
	l.gatherClaims()
	l.recordsGrown = 0
	err = l.update(func(tx *bbolt.Tx) error {
		if err := l.storeClaims(tx); err != nil {
			return err
		}
		for _, p := range pending {
			stored, err := l.store(tx, p)
			if err != nil {
				return err
			}
			fresh = append(fresh, stored...)
		}
		return storeLast(tx)
	})
	if err == nil {
		l.claims = nil
		l.recordBytes += l.recordsGrown
	}
	return fresh, err
}

// landed reports whether a commit that failed is in the file nevertheless. Such a commit failed at its very
// end, and nobody knows whether it lasts.
func (l *Log) landed() bool {
	if !l.loaded {
		return false
	}
	var end hub.Position
	_ = l.db.View(func(tx *bbolt.Tx) error {
		end = lastPosition(tx)
		return nil
	})
	return end.After(l.replica.Position().Position)
}

// store puts one batch into a transaction. It returns the messages to be delivered: all but those whose keys
// had an answer. A key that is refused ends its own batch and no other.
func (l *Log) store(tx *bbolt.Tx, p *pendingBatch) (fresh []*broker.Publication, err error) {
	p.published, p.err = 0, nil
	log, records := tx.Bucket(logBucket), newBatchRecords(tx)
	for _, m := range p.batch {
		var found bool
		if m.Key != "" {
			if found, p.err = l.findRepeated(records, m); p.err != nil {
				break
			}
		}
		p.published++
		if found {
			continue
		}
		m.Receipt = broker.Receipt{Receivers: l.replica.Reach(m.To)}
		m.Time = time.Now()
		if !m.Ephemeral {
			if err := storeMessage(log, m.Message, l.replica.OwnerOf(m.Message)); err != nil {
				return nil, err
			}
			m.Receipt.ID = hub.ID{Epoch: l.epoch, Position: m.Position}.String()
		}
		if m.Key != "" {
			records.add(m)
		}
		fresh = append(fresh, m)
	}
	grown, err := records.store()
	l.recordsGrown += grown
	return fresh, err
}

// findRepeated looks whether a message was published under its key before. If it was not, there must be room
// for its record.
func (l *Log) findRepeated(records *batchRecords, m *broker.Publication) (found bool, err error) {
	found, err = records.find(m)
	if !found && err == nil && l.recordBytes+l.recordsGrown >= l.maxRecordBytes {
		err = broker.ErrKeysFull
	}
	return found, err
}
