package boltlog

import (
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// pendingBatch is one request's messages on their way into the file.
type pendingBatch struct {
	batch     []*broker.Publication
	size      int           // about how many bytes they take in the file
	published int           // messages that were published
	err       error         // why not all were
	done      chan struct{} // closed when both are set
}

// entrySize is about how many bytes a message takes in the file beside its data.
const entrySize = 150

func newBatch(batch []*broker.Publication) *pendingBatch {
	p := &pendingBatch{batch: batch, done: make(chan struct{})}
	for _, m := range batch {
		p.size += len(m.Data) + entrySize
	}
	return p
}

// gather returns a batch and those that wait behind it, as many as fit into a commit.
func (l *Log) gather(first *pendingBatch) (pending []*pendingBatch) {
	pending, messages, size := append(pending, first), len(first.batch), first.size
	for messages < maxCommitBatch && size < maxCommitBytes {
		select {
		case next := <-l.queue:
			pending = append(pending, next)
			messages += len(next.batch)
			size += next.size
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
	stored, err := l.write(pending)
	if err != nil {
		l.fail(err)
		outcome := l.outcome(err)
		for _, p := range pending {
			p.published, p.err = 0, fmt.Errorf("%w: %w", outcome, err)
		}
		return
	}
	l.replica.LogFound()
	for i, s := range stored {
		pending[i].published, pending[i].err = s.published, s.err
		for _, m := range s.fresh {
			l.replica.Deliver(m.Message)
		}
	}
}

// write makes one commit of all the batches.
func (l *Log) write(pending []*pendingBatch) ([]storedBatch, error) {
	if err := l.load(); err != nil {
		return nil, err
	}
	size := 0
	for _, p := range pending {
		size += p.size
	}
	if err := l.makeRoom(size); err != nil {
		return nil, err
	}
	claims := l.gatherClaims()
	stored := make([]storedBatch, len(pending))
	room := l.maxRecordBytes - l.recordBytes
	err := l.change(func(tx *bbolt.Tx) (err error) {
		if err := storeClaims(tx, claims); err != nil {
			return err
		}
		for i, p := range pending {
			if stored[i], err = l.store(tx, p.batch, room); err != nil {
				return err
			}
			room -= stored[i].recordBytes
		}
		return storeLast(tx)
	})
	if err != nil {
		return nil, err
	}
	l.claims, l.tidied, l.recordBytes = nil, false, l.maxRecordBytes-room
	l.grown += size
	return stored, nil
}

// outcome returns what to tell publishers whose commit failed. If the commit may be in the file nevertheless,
// the log goes on under another name.
func (l *Log) outcome(err error) error {
	switch {
	case err == errGivenUp: //nolint:errorlint // onDisk returns it bare
		return broker.ErrUnknownOutcome
	case l.landed():
		l.doubtful, l.loaded = true, false
		return broker.ErrUnknownOutcome
	}
	return broker.ErrUnavailable
}

// landed reports whether a commit that failed is in the file nevertheless. Such a commit failed at its very
// end, and nobody knows whether it lasts.
func (l *Log) landed() bool {
	if !l.loaded {
		return false
	}
	var end hub.Position
	err := l.look(func(tx *bbolt.Tx) error {
		end = lastPosition(tx)
		return nil
	})
	return err == nil && end.After(l.replica.Position().Position)
}

// storedBatch is what became of a batch in a transaction.
type storedBatch struct {
	fresh     []*broker.Publication // to be delivered: all but those whose keys had an answer
	published int
	err       error // why not all were published
	// recordBytes is by how much the records of its keys have grown.
	recordBytes int
}

// store puts one batch into a transaction. A key that is refused ends its own batch and no other. There is room
// for so many bytes of records.
func (l *Log) store(tx *bbolt.Tx, batch []*broker.Publication, room int) (s storedBatch, err error) {
	log, records := tx.Bucket(logBucket), newBatchRecords(tx)
	log.FillPercent = 0.9 // messages come in order: a page that is split in half would stay half empty
	for _, m := range batch {
		var found bool
		if m.Key != "" {
			if found, s.err = records.findOrFit(m, room); s.err != nil {
				break
			}
		}
		s.published++
		if found {
			continue
		}
		m.Receipt = broker.Receipt{Receivers: l.replica.Reach(m.To)}
		m.Time = time.Now()
		if !m.Ephemeral {
			if err := storeMessage(log, m.Message, l.replica.OwnerOf(m.Message)); err != nil {
				return s, err
			}
			m.Receipt.ID = hub.ID{Epoch: l.epoch, Position: m.Position}.String()
		}
		if m.Key != "" {
			records.add(m)
		}
		s.fresh = append(s.fresh, m)
	}
	s.recordBytes, err = records.store()
	return s, err
}
