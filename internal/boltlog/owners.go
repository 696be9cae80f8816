package boltlog

import (
	"maps"

	"go.etcd.io/bbolt"
)

// Whose a client_id is stands in the file with the messages that are kept for it, and goes with them: a
// message is stored with the owner of that moment, and when somebody claims a client_id that has
// messages, the newest of them is noted to be theirs with the next commit, or within tendFileEvery.

// noteClaims writes down what has been claimed.
func (l *Log) noteClaims() error {
	if l.gatherClaims(); len(l.claims) == 0 {
		return nil
	}
	err := l.update(l.storeClaims)
	if err == nil {
		l.claims = nil
	}
	return err
}

func (l *Log) gatherClaims() {
	claims := l.replica.Claimed()
	maps.Copy(claims, l.claims)
	l.claims = claims
}

func (l *Log) storeClaims(tx *bbolt.Tx) error {
	log := tx.Bucket(logBucket)
	for position, user := range l.claims {
		key := positionKey(position)
		sealed := log.Get(key)
		if sealed == nil {
			continue // it was removed
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
