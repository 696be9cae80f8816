package boltlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/go-json-experiment/json"
	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/hub"
)

// The buckets of a file, and the keys of metaBucket. All values are sealed.
var (
	metaBucket    = []byte("meta")    // facts about the whole file, under the keys below
	logBucket     = []byte("log")     // messages by position
	marksBucket   = []byte("marks")   // by address: the newest message that was removed, and when
	answersBucket = []byte("answers") // by idempotency key: the record of its request

	allBuckets = [][]byte{metaBucket, logBucket, marksBucket, answersBucket}

	formatKey = []byte("format") // name of this format
	epochKey  = []byte("epoch")  // name of the log
	lastKey   = []byte("last")   // position given out last
	floorKey  = []byte("floor")  // position up to which marks may have been removed
	// unsyncedKey names the boot of the machine. It is there from the start to the clean end of a run that
	// does not sync: what a process wrote survives the death of the process, but not a crash of the machine.
	unsyncedKey = []byte("unsynced")
	// probeKey is written while the log is out of reach, to see whether there is room again.
	probeKey = []byte("probe")

	fileFormat = []byte("caddy-sse 1")
)

// put stores a sealed value.
func put(bucket *bbolt.Bucket, key, value []byte) error { return bucket.Put(key, seal(key, value)) }

// get returns the value of a key, nil if there is none. It is valid until the transaction ends.
func get(bucket *bbolt.Bucket, key []byte) ([]byte, error) {
	sealed := bucket.Get(key)
	if sealed == nil {
		return nil, nil
	}
	return unseal(key, sealed)
}

// each visits all keys of a bucket in order.
func each(bucket *bbolt.Bucket, visit func(key, value []byte) error) error {
	return bucket.ForEach(func(key, sealed []byte) error {
		value, err := unseal(key, sealed)
		if err != nil {
			return err
		}
		return visit(key, value)
	})
}

// seal appends a checksum of key and value to a value, so that damage shows.
func seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint32(value, checksum(key, value))
}

// unseal returns the value without its checksum, or errDamaged if that is wrong.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - 4
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != checksum(key, sealed[:n]) {
		return nil, fmt.Errorf("%w: the value of %q is not what was written", errDamaged, key)
	}
	return sealed[:n:n], nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// positionKey returns the key of the message at a position. Positions are stored as values in the same way.
func positionKey(p hub.Position) []byte { return binary.BigEndian.AppendUint64(nil, p.Major) }

// positionOf reads the position at the beginning of b; the zero Position if b is too short.
func positionOf(b []byte) hub.Position {
	if len(b) < 8 {
		return hub.Position{}
	}
	return hub.Position{Major: binary.BigEndian.Uint64(b)}
}

// lastPosition returns the position that the log gave out last. bbolt counts positions as the bucket's
// sequence.
func lastPosition(tx *bbolt.Tx) hub.Position {
	return hub.Position{Major: tx.Bucket(logBucket).Sequence()}
}

// storeLast stores lastPosition under a key of its own as well, so that damage to the sequence shows.
func storeLast(tx *bbolt.Tx) error {
	return put(tx.Bucket(metaBucket), lastKey, positionKey(lastPosition(tx)))
}

// storedMessage is a message as it stands in the file.
type storedMessage struct {
	To    []hub.Address
	Event string `json:",omitempty"`
	Key   string `json:",omitempty"`
	ID    string `json:",omitempty"` // that the publisher chose
	Data  string
	Retry *int64 `json:",omitempty"`
	Time  int64  // when it was published, in Unix milliseconds
	Owner string `json:",omitempty"` // owner of the client_id that the message is for
}

// storeMessage puts a message at the end of the log and sets its position.
func storeMessage(log *bbolt.Bucket, m *hub.Message, owner string) error {
	position, err := log.NextSequence()
	if err != nil {
		return err
	}
	m.Position = hub.Position{Major: position}
	s := storedMessage{
		To: m.To, Event: m.Event, Key: m.Key, ID: m.ChosenID,
		Data: string(m.Data), Time: m.Time.UnixMilli(), Owner: owner,
	}
	if m.HasRetry {
		s.Retry = &m.Retry
	}
	return s.put(log, positionKey(m.Position))
}

// put stores the message under a key.
func (s *storedMessage) put(log *bbolt.Bucket, key []byte) error {
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return put(log, key, value)
}

// readStored reads a message as it stands under a key.
func readStored(key, sealed []byte) (s storedMessage, err error) {
	value, err := unseal(key, sealed)
	if err != nil {
		return s, err
	}
	err = json.Unmarshal(value, &s)
	return s, err
}

// message returns the message that stands under a key.
func (s *storedMessage) message(key []byte) *hub.Message {
	m := &hub.Message{
		To: s.To, Event: s.Event, Key: s.Key, ChosenID: s.ID,
		Data: []byte(s.Data), Time: time.UnixMilli(s.Time), Position: positionOf(key),
	}
	if s.Retry != nil {
		m.Retry, m.HasRetry = *s.Retry, true
	}
	return m
}
