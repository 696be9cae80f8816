// Package boltlog keeps a hub's log in a file. The log outlives the process: order, IDs, what is kept of each
// address and the answers to idempotency keys are the same after a restart.
//
// A message is committed to the file, then delivered, then answered. Requests that wait at the same time
// share a commit. Without Options.Sync a commit is not waited for on disk; after the machine has crashed, the
// log then goes on under another epoch, and clients are told a gap.
//
// What the hub no longer keeps is removed in small pieces between commits, at least as fast as new messages
// come. A publisher waits for one such piece at most, an exit for none: what is left is removed at the next
// start. There the file shrinks, too.
//
// Nobody waits for a disk that does not answer, but publishers for diskPatience, and Close for closePatience.
package boltlog

import (
	"context"
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
		Options: o, File: file, queue: make(chan *pendingBatch), purges: make(chan *pendingPurge),
		maxRecordBytes: broker.MaxRecordBytes, closePatience: closePatience, hopeless: make(chan struct{}),
	}
	l.context, l.cancel = context.WithCancel(context.Background())
	return l
}

// Log is a hub's log in a file. One goroutine commits.
type Log struct {
	Options
	*File
	replica *hub.Hub           // nil before Start
	queue   chan *pendingBatch // unbuffered: a batch that nobody has taken is not under way
	purges  chan *pendingPurge // unbuffered, too

	// The fields below belong to the committing goroutine.

	ready     func()                  // lets requests in; only the first call counts
	loaded    bool                    // whether the replica has what the file keeps
	epoch     string                  // name of the log, once it has been read
	unremoved []*hub.Message          // messages that the hub has dropped and the file still has
	grown     int                     // bytes stored since some of unremoved were removed
	tidied    bool                    // whether nothing was stored since
	marks     markSize                // about how large the marks are
	claims    map[hub.Position]string // owners to be stored with the messages at these positions
	// recordBytes is how much of the file the records of idempotency keys take.
	recordBytes    int
	maxRecordBytes int
	forgetFrom     []byte     // the key from which on records are looked at next; nil for the first
	stuck          chan error // gets what becomes of the work that was given up; nil for none
	err            error      // what Close returns
	// unshrinkable tells that the file could not be shrunk, which is not tried again in this run.
	unshrinkable bool

	context  context.Context // ends with Close
	cancel   context.CancelFunc
	hopeless chan struct{} // closed when Close has waited closePatience for the disk
	wg       sync.WaitGroup
	// closePatience is the constant. Tests, on machines with much to do, have more of it.
	closePatience time.Duration
}

const (
	maxCommitBatch  = 1024            // messages of one commit, about
	maxCommitBytes  = 1 << 20         // bytes of one commit, about
	maxRestoreBytes = 16 << 20        // message bytes restored before what is over the limits is removed
	probeSize       = 1 << 20         // bytes of the commit that tries a file again
	tendFileEvery   = 2 * time.Second // interval of tend
	cleanFileEvery  = 5 * time.Minute // interval of clean
)

// Start implements broker.Log.
func (l *Log) Start(h *hub.Hub, ready func()) {
	l.replica, l.ready = h, sync.OnceFunc(ready)
	l.wg.Go(l.run)
}

// run is the log's life, from Start to Close.
func (l *Log) run() {
	if !l.awaitTurn() {
		l.err = l.Release()
		return
	}
	defer l.leave()
	if err := l.load(); err != nil {
		l.fail(err)
	} else {
		l.replica.LogFound()
	}
	l.ready()
	l.commitPending()
	if l.loaded { // else the run never began, or its last commit is in doubt
		l.err = l.onDisk(l.end)
	}
}

// Close implements broker.Log. Batches that are under way are still published and answered, if the disk does
// so within closePatience.
func (l *Log) Close() error {
	l.cancel()
	if l.replica == nil {
		return l.Release()
	}
	late := time.AfterFunc(l.closePatience, func() { close(l.hopeless) })
	defer late.Stop()
	l.wg.Wait()
	return l.err
}

// Publish implements broker.Log.
func (l *Log) Publish(ctx context.Context, batch []*broker.Publication) (int, error) {
	if len(batch) == 0 {
		return 0, nil
	}
	p := newBatch(batch)
	late := time.NewTimer(diskPatience)
	defer late.Stop()
	select {
	case l.queue <- p:
	case <-ctx.Done():
		return 0, broker.ErrUnavailable
	case <-l.context.Done():
		return 0, broker.ErrUnavailable
	case <-late.C:
		return 0, fmt.Errorf("%w: %w", broker.ErrUnavailable, errSilent)
	}
	late.Reset(diskPatience)
	defer context.AfterFunc(ctx, func() { late.Reset(leavePatience) })()
	select {
	case <-p.done:
	case <-late.C:
		return 0, fmt.Errorf("%w: %w", broker.ErrUnknownOutcome, errSilent)
	}
	for _, m := range batch[:p.published] {
		l.replica.Wait(ctx, m.Receipt.Receivers)
	}
	return p.published, p.err
}

// CheckKeys implements broker.Log.
func (l *Log) CheckKeys(ctx context.Context, batch []*broker.Publication) (int, error) {
	return patiently(ctx, func() (int, error) { return l.checkKeys(batch) })
}

// checkKeys is CheckKeys on a disk that answers.
func (l *Log) checkKeys(batch []*broker.Publication) (fine int, err error) {
	err = l.view(func(tx *bbolt.Tx) error {
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

// commitPending commits the batches that wait, one commit at a time, until the log is closed. During a commit
// the next batches gather.
func (l *Log) commitPending() {
	tending, cleaning := time.NewTicker(tendFileEvery), time.NewTicker(cleanFileEvery)
	defer tending.Stop()
	defer cleaning.Stop()
	for {
		select {
		case first := <-l.queue:
			l.commit(l.gather(first))
		case p := <-l.purges:
			l.purge(p)
		case <-tending.C:
			l.tend()
		case <-cleaning.C:
			l.clean()
		case <-l.context.Done():
			l.commitRest()
			return
		}
	}
}

// commitRest commits the batches that still wait when the log is closed, and stores claims.
func (l *Log) commitRest() {
	for {
		select {
		case first := <-l.queue:
			l.commit(l.gather(first))
		default:
			if err := l.noteClaims(); err != nil {
				l.fail(err)
			}
			return
		}
	}
}
