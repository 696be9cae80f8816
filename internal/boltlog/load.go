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
	renamed, err := l.begin(l.Sync)
	if err != nil {
		return err
	}
	if renamed {
		l.Logger.Warn("the log may not have all that was acknowledged; clients are told a gap",
			zap.String("file", l.path))
	}
	var end hub.Position
	var followed bool
	err = l.db.View(func(tx *bbolt.Tx) (err error) {
		if l.recordBytes, err = measureRecords(tx); err != nil {
			return err
		}
		end, followed, err = l.follow(tx)
		return err
	})
	if err != nil {
		return err
	}
	if !followed {
		if err := l.restoreAll(end); err != nil {
			return err
		}
	}
	l.loaded = true
	return nil
}

// follow has the replica begin with the file's log. It returns where the log ends, and whether the replica
// has already followed it to there, under other options.
func (l *Log) follow(tx *bbolt.Tx) (end hub.Position, already bool, err error) {
	epoch, err := get(tx.Bucket(metaBucket), epochKey)
	if err != nil {
		return end, false, err
	}
	gone, floor, err := readMarks(tx)
	if err != nil {
		return end, false, err
	}
	l.epoch, end = string(epoch), lastPosition(tx)
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

// restoreAll hands the replica all messages in the file. It trims between parts, so that memory never holds
// much more than the hub keeps.
func (l *Log) restoreAll(end hub.Position) (err error) {
	for next := positionKey(hub.Position{}); next != nil; l.trim() {
		if next, err = l.restore(next); err != nil {
			return err
		}
	}
	if err := l.db.View(l.forgetOnly); err != nil {
		return err
	}
	l.replica.Advance(end) // the newest messages may have been removed
	l.replica.Announce("broker_changed")
	return nil
}

// restore hands the replica some messages, from a key on. It returns the key of the next one, or nil.
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

// forgetOnly tells the replica exactly which messages the log had and has no longer. It does nothing while
// the file has messages that the hub has dropped.
func (l *Log) forgetOnly(tx *bbolt.Tx) error {
	gone, floor, err := readMarks(tx)
	if err == nil && len(l.unremoved) == 0 {
		l.replica.ForgetOnly(gone, floor)
	}
	return err
}
