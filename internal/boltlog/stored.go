package boltlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/go-json-experiment/json"
	"go.etcd.io/bbolt"
)

// storedMessage is a message as it stands in the file.
type storedMessage struct {
	To    []hub.Address
	Event string `json:",omitempty"`
	Data  string
	Retry *int64 `json:",omitempty"`
	Time  int64  // Unix milliseconds
	Owner string `json:",omitempty"` // of the client_id that it is for
}

func storeMessage(log *bbolt.Bucket, m *hub.Message, owner string) error {
	position, err := log.NextSequence()
	if err != nil {
		return err
	}
	m.Position = hub.Position{Major: position}
	s := storedMessage{To: m.To, Event: m.Event, Data: string(m.Data), Time: m.Time.UnixMilli(), Owner: owner}
	if m.HasRetry {
		s.Retry = &m.Retry
	}
	return s.put(log, positionKey(m.Position))
}

func (s *storedMessage) put(log *bbolt.Bucket, key []byte) error {
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return put(log, key, value)
}

func readStored(key, sealed []byte) (s storedMessage, err error) {
	value, err := unseal(key, sealed)
	if err != nil {
		return s, err
	}
	err = json.Unmarshal(value, &s)
	return s, err
}

func (s *storedMessage) message(key []byte) *hub.Message {
	m := &hub.Message{To: s.To, Event: s.Event, Data: []byte(s.Data), Time: time.UnixMilli(s.Time), Position: positionOf(key)}
	if s.Retry != nil {
		m.Retry, m.HasRetry = *s.Retry, true
	}
	return m
}

// removeMessages takes messages out of the log and remembers by address that they are gone.
func removeMessages(tx *bbolt.Tx, messages []*hub.Message) error {
	log, marks := tx.Bucket(logBucket), tx.Bucket(marksBucket)
	now := uint64(time.Now().UnixMilli())
	for _, m := range messages {
		if err := log.Delete(positionKey(m.Position)); err != nil {
			return err
		}
		for _, to := range m.To {
			address := append([]byte{byte(to.Kind)}, to.Name...)
			mark, err := get(marks, address)
			if err != nil {
				return err
			}
			if positionOf(mark).After(m.Position) {
				continue
			}
			if err := put(marks, address, binary.BigEndian.AppendUint64(positionKey(m.Position), now)); err != nil {
				return err
			}
		}
	}
	return nil
}

// readMarks returns, by address, the newest message that was removed, and up to where marks may be missing.
func readMarks(tx *bbolt.Tx) (gone map[hub.Address]hub.Position, floor hub.Position, err error) {
	folded, err := get(tx.Bucket(metaBucket), floorKey)
	if err != nil {
		return nil, floor, err
	}
	gone = make(map[hub.Address]hub.Position)
	err = each(tx.Bucket(marksBucket), func(address, mark []byte) error {
		gone[addressOf(address)] = positionOf(mark)
		return nil
	})
	return gone, positionOf(folded), err
}

// foldMarks forgets which addresses old marks were of: whoever comes back with an ID from before the
// newest of them is told a gap. That keeps the marks bounded.
func foldMarks(keep time.Duration, most int, now time.Time) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		meta, marks := tx.Bucket(metaBucket), tx.Bucket(marksBucket)
		over := marks.Stats().KeyN > most
		folded, err := get(meta, floorKey)
		if err != nil {
			return err
		}
		floor := positionOf(folded)
		var old [][]byte
		err = each(marks, func(address, mark []byte) error {
			made := time.UnixMilli(int64(binary.BigEndian.Uint64(mark[8:])))
			if !over && now.Sub(made) < keep {
				return nil
			}
			old = append(old, bytes.Clone(address))
			if p := positionOf(mark); p.After(floor) {
				floor = p
			}
			return nil
		})
		for _, address := range old {
			err = errors.Join(err, marks.Delete(address))
		}
		if err != nil || len(old) == 0 {
			return err
		}
		return put(meta, floorKey, positionKey(floor))
	}
}

func addressOf(key []byte) hub.Address {
	return hub.Address{Kind: hub.Kind(key[0]), Name: string(key[1:])}
}

func positionKey(p hub.Position) []byte { return binary.BigEndian.AppendUint64(nil, p.Major) }

// positionOf reads a position at the beginning of b; the zero Position if there is none.
func positionOf(b []byte) hub.Position {
	if len(b) < 8 {
		return hub.Position{}
	}
	return hub.Position{Major: binary.BigEndian.Uint64(b)}
}

// storedAnswer is what an idempotency key was answered.
type storedAnswer struct {
	ID          string
	Receivers   int
	Fingerprint [sha256.Size]byte
	At          int64 // Unix milliseconds
}

func (a storedAnswer) over(now time.Time) bool {
	return now.Sub(time.UnixMilli(a.At)) >= broker.IdempotencyPeriod
}

// findAnswer gives p the answer that its key got before. It returns ErrKeyReused if that was for
// another message.
func findAnswer(answers *bbolt.Bucket, p *broker.Publication, now time.Time) (found bool, err error) {
	if p.Key == "" {
		return false, nil
	}
	value, err := get(answers, []byte(p.Key))
	if value == nil || err != nil {
		return false, err
	}
	var a storedAnswer
	if err := json.Unmarshal(value, &a); err != nil {
		return false, err
	}
	switch {
	case a.over(now):
		return false, nil
	case a.Fingerprint != p.Fingerprint:
		return false, broker.ErrKeyReused
	}
	p.Receipt, p.Repeated = broker.Receipt{ID: a.ID, Receivers: a.Receivers}, true
	return true, nil
}

func keepAnswer(answers *bbolt.Bucket, p *broker.Publication) error {
	value, err := json.Marshal(storedAnswer{p.Receipt.ID, p.Receipt.Receivers, p.Fingerprint, p.Time.UnixMilli()})
	if err != nil {
		return err
	}
	return put(answers, []byte(p.Key), value)
}

// forgetAnswers removes the answers whose time is over.
func forgetAnswers(now time.Time) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		answers := tx.Bucket(answersBucket)
		var old [][]byte
		err := each(answers, func(key, value []byte) error {
			var a storedAnswer
			if json.Unmarshal(value, &a) != nil || a.over(now) {
				old = append(old, bytes.Clone(key))
			}
			return nil
		})
		for _, key := range old {
			err = errors.Join(err, answers.Delete(key))
		}
		return err
	}
}
