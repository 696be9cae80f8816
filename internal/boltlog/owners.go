package boltlog

import (
	"maps"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/hub"
)

// The owner of a client_id stands in the file with the messages that are kept for it, and is removed with
// them. A message is stored with the owner of that moment. When a user claims a client_id that has messages,
// the newest of them gets the new owner with the next commit, or within tendFileEvery.

// noteClaims stores the owners of client_ids that were claimed since the last commit.
func (l *Log) noteClaims() error {
	claims := l.gatherClaims()
	if len(claims) == 0 {
		return nil
	}
	err := l.change(func(tx *bbolt.Tx) error { return storeClaims(tx, claims) })
	if err == nil {
		l.claims = nil
	}
	return err
}

// gatherClaims adds the replica's new claims to those that are still to be stored, and returns all of them.
func (l *Log) gatherClaims() map[hub.Position]string {
	claims := l.replica.Claimed()
	maps.Copy(claims, l.claims)
	l.claims = claims
	return claims
}

// storeClaims stores the new owners with the messages that stand for them.
func storeClaims(tx *bbolt.Tx, claims map[hub.Position]string) error {
	log := tx.Bucket(logBucket)
	for position, user := range claims {
		key := positionKey(position)
		sealed := log.Get(key)
		if sealed == nil {
			continue // the message was removed
		}
		s, err := readStored(key, sealed)
		if err != nil {
			return err
		}
		if s.Owner == user {
			continue
		}
		s.Owner = user
		if err := s.put(log, key); err != nil {
			return err
		}
	}
	return nil
}
