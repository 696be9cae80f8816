package boltlog

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// A purge goes through the file from its beginning: there are messages in it for an address that the hub keeps for
// others only, and some that the hub keeps no more. It does so in pieces, between which messages are published. A
// process that is killed in the middle has removed some, and marked what it has removed.

// pendingPurge is a purge on its way through the file.
type pendingPurge struct {
	hub.Purge
	names [][]byte // of its addresses, as the file has them
	err   error
	done  chan struct{} // closed when err is set
}

// purgeBytes is about how many bytes of messages one piece of a purge looks at.
const purgeBytes = 8 << 20

// Purge implements broker.Purger.
func (l *Log) Purge(ctx context.Context, purge hub.Purge) error {
	p := &pendingPurge{Purge: purge, done: make(chan struct{})}
	for _, a := range p.To {
		name, err := json.Marshal(a.Name)
		if err != nil {
			return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
		}
		p.names = append(p.names, name)
	}
	late := time.NewTicker(diskPatience)
	defer late.Stop()
	select {
	case l.purges <- p:
	case <-ctx.Done():
		return broker.ErrUnavailable
	case <-l.context.Done():
		return broker.ErrUnavailable
	case <-late.C:
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, errSilent)
	}
	leaving := ctx.Done()
	for {
		select {
		case <-p.done:
			return p.err
		case <-leaving:
			leaving = nil
			late.Reset(leavePatience)
		case <-late.C:
			if leaving == nil || !l.replica.LogInReach() {
				return fmt.Errorf("%w: the purge is under way", broker.ErrUnknownOutcome)
			}
		}
	}
}

// purge removes messages from the file, and then from the hub.
func (l *Log) purge(p *pendingPurge) {
	defer close(p.done)
	removed, err := l.purgeFile(p)
	switch {
	case err == nil:
		l.replica.Purge(p.Purge)
	case removed || err == errGivenUp: //nolint:errorlint // onDisk returns it bare
		p.err = fmt.Errorf("%w: %w", broker.ErrUnknownOutcome, err)
	default:
		p.err = fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
}

// purgeFile removes messages from the file. It reports whether any may have been removed.
func (l *Log) purgeFile(p *pendingPurge) (removed bool, err error) {
	if err := l.load(); err != nil {
		l.fail(err)
		return false, err
	}
	p.Until = l.replica.Position().Position
	for next := positionKey(hub.Position{}); next != nil; {
		select {
		case first := <-l.queue:
			l.commit(l.gather(first))
			continue
		case <-l.context.Done():
			return removed, context.Cause(l.context)
		default:
		}
		var found [][]byte
		if found, next, err = l.find(p, next); err != nil {
			l.fail(err)
			return removed, err
		}
		if len(found) == 0 {
			continue
		}
		var made markSize
		err = l.change(func(tx *bbolt.Tx) (err error) {
			made, err = purgeMessages(tx, found, p.To)
			return err
		})
		if err != nil {
			l.fail(err)
			still, _, unread := l.find(p, found[0]) // the commit may have failed at its very end
			landed := unread != nil || len(still) == 0 || !bytes.Equal(still[0], found[0])
			return removed || landed, err
		}
		removed, l.tidied = true, true
		l.marks.add(made)
	}
	return removed, nil
}

// find returns the keys of messages that a purge is about, from a key on. If there may be more, it also returns the
// key to go on at.
func (l *Log) find(p *pendingPurge, from []byte) (found [][]byte, next []byte, err error) {
	err = l.look(func(tx *bbolt.Tx) error {
		some, then := [][]byte(nil), []byte(nil)
		cursor, looked, size := tx.Bucket(logBucket).Cursor(), 0, 0
		for key, sealed := cursor.Seek(from); key != nil && !positionOf(key).After(p.Until); key, sealed = cursor.Next() {
			if looked > purgeBytes || size > removeBytes {
				then = bytes.Clone(key)
				break
			}
			looked += len(sealed)
			if !p.mayConcern(sealed) { // most need not be decoded
				continue
			}
			s, err := readStored(key, sealed)
			if err != nil {
				return fmt.Errorf("message %x: %w", key, err)
			}
			if p.concerns(&s) {
				some = append(some, bytes.Clone(key))
				size += len(sealed)
			}
		}
		found, next = some, then
		return nil
	})
	return found, next, err
}

// mayConcern reports whether a message as it stands in the file has one of the names.
func (p *pendingPurge) mayConcern(sealed []byte) bool {
	return slices.ContainsFunc(p.names, func(name []byte) bool { return bytes.Contains(sealed, name) })
}

// concerns reports whether a purge is about a message.
func (p *pendingPurge) concerns(s *storedMessage) bool {
	return (p.Key == "" || s.Key == p.Key) &&
		slices.ContainsFunc(s.To, func(to hub.Address) bool { return slices.Contains(p.To, to) })
}

// purgeMessages takes addresses away from the messages at these keys, and marks the addresses. A message without any
// is removed. It returns how large the new marks are.
func purgeMessages(tx *bbolt.Tx, keys [][]byte, from []hub.Address) (made markSize, err error) {
	log := tx.Bucket(logBucket)
	gone := make(map[hub.Address]hub.Position)
	for _, key := range keys {
		s, err := readStored(key, log.Get(key))
		if err != nil {
			return made, err
		}
		s.To = slices.DeleteFunc(s.To, func(to hub.Address) bool {
			if !slices.Contains(from, to) {
				return false
			}
			gone[to] = positionOf(key) // they come in order
			return true
		})
		if len(s.To) == 0 {
			err = log.Delete(key)
		} else {
			err = s.put(log, key)
		}
		if err != nil {
			return made, err
		}
	}
	return markGone(tx, gone)
}
