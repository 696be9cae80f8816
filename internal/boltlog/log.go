package boltlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// Options are the settings of a log in a file.
type Options struct {
	// Sync has each publish on disk before it is answered. Without it a crash of the machine, but not of the
	// process, may lose the last messages; clients are told a gap then.
	Sync bool
	// Logger is told what an operator should know.
	Logger *zap.Logger
	// Release gives the file back. It is called once, when the log has ended.
	Release func() error
}

// Open returns the log in a file.
func Open(file *File, o Options) *Log {
	l := &Log{Options: o, File: file, queue: make(chan *request)}
	l.context, l.cancel = context.WithCancel(context.Background())
	return l
}

// Log is a hub's log in a file. Publishes that are under way share a commit; when it is on disk
// they are delivered and answered.
type Log struct {
	Options
	*File
	replica *hub.Hub
	queue   chan *request // without a buffer: what nobody takes is not under way

	// What follows is the committing goroutine's.
	loaded    bool // the replica has what the file keeps
	epoch     string
	undropped []*hub.Message          // could not be removed yet
	claims    map[hub.Position]string // owners that are to be noted with the messages there

	context context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// request is one request's batch on its way into the file.
type request struct {
	batch     []*broker.Publication
	published int
	err       error
	done      chan struct{}
}

const (
	maxCommitBatch  = 1024 // messages of one commit, about
	tendFileEvery   = 2 * time.Second
	cleanFileEvery  = 5 * time.Minute
	maxTrimBatch    = 10_000   // messages removed in one commit
	maxRestoreBytes = 16 << 20 // of messages that are restored before those over the limits are removed
	maxMarks        = 1 << 16
	probeSize       = 1 << 20
)

// Start implements Broker.
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

// Close implements Broker. What is being published is still answered.
func (l *Log) Close() error {
	l.cancel()
	l.wg.Wait()
	if !l.loaded {
		return l.Release() // it never began, or what it began is in doubt
	}
	return errors.Join(l.end(), l.Release())
}

// load hands the replica what the file keeps, if it has not been done.
func (l *Log) load() error {
	if l.loaded {
		return nil
	}
	renamed, err := l.begin(l.Sync)
	if err != nil {
		return err
	}
	if renamed {
		l.Logger.Warn("the log may not have all that was acknowledged; clients are told a gap", zap.String("file", l.path))
	}
	var end hub.Position
	var followed bool
	err = l.db.View(func(tx *bbolt.Tx) (err error) {
		end, followed, err = l.follow(tx)
		return err
	})
	if err != nil {
		return err
	}
	if !followed {
		for next := positionKey(hub.Position{}); next != nil; l.trim() { // so that no more is in memory than is kept
			if next, err = l.restore(next); err != nil {
				return err
			}
		}
		if err := l.db.View(l.forgetOnly); err != nil {
			return err
		}
		l.replica.Advance(end) // the newest messages may have been removed
		l.replica.Announce("broker_changed")
	}
	l.loaded = true
	return nil
}

// follow lets the replica begin with the file's log, and returns where that ends; or tells that the
// replica has followed it to there already, under other options.
func (l *Log) follow(tx *bbolt.Tx) (end hub.Position, already bool, err error) {
	meta := tx.Bucket(metaBucket)
	epoch, err := get(meta, epochKey)
	if err != nil {
		return end, false, err
	}
	gone, floor, err := readMarks(tx)
	if err != nil {
		return end, false, err
	}
	l.epoch, end = string(epoch), hub.Position{Major: tx.Bucket(logBucket).Sequence()}
	if l.replica.Position() == (hub.ID{Epoch: l.epoch, Position: end}) {
		return end, true, nil
	}
	l.replica.Follow(hub.Origin{Epoch: l.epoch, Trims: true})
	l.replica.ForgetAll(floor)
	for address, p := range gone {
		l.replica.Forget(address, p)
	}
	return end, false, nil
}

// forgetOnly tells the replica exactly what the log has had and has no more, unless some of that is not in the file yet.
func (l *Log) forgetOnly(tx *bbolt.Tx) error {
	gone, floor, err := readMarks(tx)
	if err == nil && len(l.undropped) == 0 {
		l.replica.ForgetOnly(gone, floor)
	}
	return err
}

// restore hands the replica some of the messages from a key on. It returns the key of the next ones.
func (l *Log) restore(from []byte) (next []byte, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		cursor, size := tx.Bucket(logBucket).Cursor(), 0
		for key, sealed := cursor.Seek(from); key != nil; key, sealed = cursor.Next() {
			if size > maxRestoreBytes {
				next = bytes.Clone(key)
				return nil
			}
			s, err := readStored(key, sealed)
			if err != nil {
				return fmt.Errorf("message %x: %w", key, err)
			}
			l.replica.RestoreOwned(s.message(key), s.Owner)
			size += len(sealed)
		}
		return nil
	})
	return next, err
}

// fail notes that the file can't be read or written.
func (l *Log) fail(err error) { l.replica.LogLost(fmt.Errorf("the log file %s: %w", l.path, err)) }

// Publish implements Broker.
func (l *Log) Publish(ctx context.Context, batch []*broker.Publication) (int, error) {
	if len(batch) == 0 {
		return 0, nil
	}
	r := &request{batch: batch, done: make(chan struct{})}
	select {
	case l.queue <- r:
	case <-ctx.Done():
		return 0, broker.ErrUnavailable
	case <-l.context.Done():
		return 0, broker.ErrUnavailable
	}
	<-r.done // a disk answers, late perhaps
	for _, p := range batch[:r.published] {
		l.replica.Wait(ctx, p.Receipt.Receivers)
	}
	return r.published, r.err
}

// CheckKeys implements Broker.
func (l *Log) CheckKeys(_ context.Context, batch []*broker.Publication) (fine int, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		answers := tx.Bucket(answersBucket)
		if answers == nil { // the file could not be begun yet
			return broker.ErrUnavailable
		}
		for ; fine < len(batch); fine++ {
			looked := *batch[fine] // it is not answered yet
			if _, err := findAnswer(answers, &looked, time.Now()); err != nil {
				return err
			}
		}
		return nil
	})
	return fine, err
}

// commitPending commits what waits, one commit at a time: while one is under way, the next gathers.
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
			for {
				select {
				case r := <-l.queue:
					l.commit(l.gather(r))
				default:
					l.trim()
					return
				}
			}
		}
	}
}

func (l *Log) gather(r *request) (requests []*request) {
	requests, messages := append(requests, r), len(r.batch)
	for messages < maxCommitBatch {
		select {
		case r := <-l.queue:
			requests = append(requests, r)
			messages += len(r.batch)
		default:
			return requests
		}
	}
	return requests
}

// commit puts the requests' messages into the file, then delivers and answers them.
func (l *Log) commit(requests []*request) {
	defer func() {
		for _, r := range requests {
			close(r.done)
		}
	}()
	fresh, err := l.write(requests)
	if err != nil {
		l.fail(err)
		outcome := broker.ErrUnavailable
		if l.landed() {
			outcome = broker.ErrUnknownOutcome
		}
		for _, r := range requests {
			r.published, r.err = 0, fmt.Errorf("%w: %w", outcome, err)
		}
		return
	}
	l.replica.LogFound()
	for _, p := range fresh {
		l.replica.Deliver(p.Message)
	}
}

// write makes one commit of all the requests. It returns what is to be delivered.
func (l *Log) write(requests []*request) (fresh []*broker.Publication, err error) {
	if err := l.load(); err != nil {
		return nil, err
	}
	l.gatherClaims()
	err = l.update(func(tx *bbolt.Tx) error {
		if err := l.storeClaims(tx); err != nil {
			return err
		}
		for _, r := range requests {
			stored, err := l.store(tx, r)
			if err != nil {
				return err
			}
			fresh = append(fresh, stored...)
		}
		return put(tx.Bucket(metaBucket), lastKey, positionKey(hub.Position{Major: tx.Bucket(logBucket).Sequence()}))
	})
	if err == nil {
		l.claims = nil
	}
	return fresh, err
}

// landed reports whether a commit that failed stands in the file all the same: then it failed at the
// very end, and nobody knows whether it lasts. The log begins anew, under another name.
func (l *Log) landed() bool {
	if !l.loaded {
		return false
	}
	var end hub.Position
	_ = l.db.View(func(tx *bbolt.Tx) error {
		end.Major = tx.Bucket(logBucket).Sequence()
		return nil
	})
	if !end.After(l.replica.Position().Position) {
		return false
	}
	l.doubtful, l.loaded = true, false
	return true
}

// store puts one request's messages into a transaction. It returns those that are to be delivered:
// all but the ones whose keys had an answer. A key that is refused ends its request, and no other.
func (l *Log) store(tx *bbolt.Tx, r *request) (fresh []*broker.Publication, err error) {
	r.published, r.err = 0, nil
	log, answers := tx.Bucket(logBucket), tx.Bucket(answersBucket)
	for _, p := range r.batch {
		found, err := findAnswer(answers, p, time.Now())
		if err != nil {
			r.err = err
			return fresh, nil
		}
		if found {
			r.published++
			continue
		}
		p.Receipt = broker.Receipt{Receivers: l.replica.Reach(p.To)}
		p.Time = time.Now()
		if !p.Ephemeral {
			if err := storeMessage(log, p.Message, l.replica.OwnerOf(p.Message)); err != nil {
				return nil, err
			}
			p.Receipt.ID = hub.ID{Epoch: l.epoch, Position: p.Position}.String()
		}
		if p.Key != "" {
			if err := keepAnswer(answers, p); err != nil {
				return nil, err
			}
		}
		fresh = append(fresh, p)
		r.published++
	}
	return fresh, nil
}

// tend does what is to be done now and then: it removes what is no longer kept, writes down what has been
// claimed, and tries a file again that could not be written.
func (l *Log) tend() {
	l.trim() // first, since it makes room within the file
	if l.replica.LogUp() {
		return
	}
	if err := l.tryAgain(); err != nil {
		l.fail(err)
		return
	}
	l.replica.LogFound()
}

// tryAgain tries a commit larger than most: a small one could find room within a file on a full disk.
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

// trim removes from the file what the replica no longer keeps, and notes whose the rest has become.
func (l *Log) trim() {
	if l.epoch == "" || l.replica.Position().Epoch != l.epoch {
		return // what the replica has is not of this file
	}
	dropped := append(l.undropped, l.replica.Dropped()...)
	l.undropped = nil
	for len(dropped) > 0 {
		n := min(len(dropped), maxTrimBatch)
		if err := l.update(func(tx *bbolt.Tx) error { return removeMessages(tx, dropped[:n]) }); err != nil {
			l.undropped = dropped
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

// clean keeps bounded what the file knows beside its messages.
func (l *Log) clean() {
	if !l.loaded {
		return
	}
	now := time.Now()
	keep := max(time.Hour, 2*min(l.replica.Limits().History.Age, math.MaxInt64/2))
	for _, update := range []func(*bbolt.Tx) error{forgetAnswers(now), foldMarks(keep, maxMarks, now)} {
		if err := l.update(update); err != nil {
			l.fail(err)
			return
		}
	}
}
