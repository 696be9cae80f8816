package boltlog

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/hub"
)

// load hands the replica what the file keeps. It does nothing once that is done.
func (l *Log) load() error {
	if l.loaded {
		return nil
	}
	var renamed bool
	err := l.onDisk(func() (err error) {
		renamed, err = l.begin(l.Sync)
		return err
	})
	if err != nil {
		return err
	}
	if renamed {
		l.Logger.Warn("the log may not have all that was acknowledged; clients are told a gap",
			zap.String("file", l.path))
	}
	s, err := l.readState()
	if err != nil {
		return err
	}
	l.epoch, l.marks, l.recordBytes = s.Epoch, sizeOfMarks(s.gone), s.recordBytes
	if l.replica.Position() != s.ID { // else it has followed this log to its end already, under other options
		if err := l.restoreAll(s); err != nil {
			return err
		}
		l.shrinkAtStart()
	}
	l.loaded = true
	return nil
}

// state is what a file says of its log as a whole.
type state struct {
	hub.ID                              // the log's name, and the position given out last
	gone   map[hub.Address]hub.Position // by address: the newest message that was removed
	floor  hub.Position                 // position up to which addresses may be missing in gone
	// recordBytes is how much the records of idempotency keys take.
	recordBytes int
}

func (l *Log) readState() (state, error) {
	var s state
	err := l.look(func(tx *bbolt.Tx) error {
		epoch, err := get(tx.Bucket(metaBucket), epochKey)
		if err != nil {
			return err
		}
		s.ID = hub.ID{Epoch: string(epoch), Position: lastPosition(tx)}
		if s.gone, s.floor, err = readMarks(tx); err != nil {
			return err
		}
		s.recordBytes, err = measureRecords(tx)
		return err
	})
	if err != nil {
		return state{}, err
	}
	return s, nil
}

// restoreAll hands the replica all messages in the file. It removes what is over the limits between parts, so
// that memory never holds much more than the hub keeps.
func (l *Log) restoreAll(s state) (err error) {
	l.replica.Follow(hub.Origin{Epoch: s.Epoch, Trims: true})
	l.replica.ForgetAll(s.floor)
	for address, p := range s.gone {
		l.replica.Forget(address, p)
	}
	for next := positionKey(hub.Position{}); next != nil; {
		if next, err = l.restore(next); err != nil {
			return err
		}
		if err := l.removeAll(); err != nil {
			return err
		}
	}
	// Now it is known exactly which messages the log had and has no longer.
	now, err := l.readState()
	if err != nil {
		return err
	}
	l.replica.ForgetOnly(now.gone, now.floor)
	l.replica.Advance(s.Position) // the newest messages may have been removed
	l.replica.Announce("broker_changed")
	return nil
}

// restore hands the replica some messages, from a key on. It returns the key of the next one, or nil.
func (l *Log) restore(from []byte) (next []byte, err error) {
	type kept struct {
		*hub.Message
		owner string
	}
	var some []kept
	var then []byte
	err = l.look(func(tx *bbolt.Tx) error {
		cursor, size := tx.Bucket(logBucket).Cursor(), 0
		for key, sealed := cursor.Seek(from); key != nil; key, sealed = cursor.Next() {
			if size > maxRestoreBytes {
				then = bytes.Clone(key)
				return nil
			}
			s, err := readStored(key, sealed)
			if err != nil {
				return fmt.Errorf("message %x: %w", key, err)
			}
			some = append(some, kept{s.message(key), s.Owner})
			size += len(sealed)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, m := range some {
		l.replica.RestoreOwned(m.Message, m.owner)
	}
	return then, nil
}
