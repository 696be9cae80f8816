package boltlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/hub"
)

// A mark says which message an address has lost: the newest that was removed, and when it was. Anybody who
// publishes to ever new topics makes marks, so the oldest of them are folded into one position, the floor.

// markSize is how large marks are.
type markSize struct{ marks, bytes int }

// maxMarks bounds the marks of a file.
var maxMarks = markSize{1 << 16, 4 << 20}

// markBytes is what a mark takes in the file beside the name of its address.
const markBytes = 40

func (s *markSize) add(other markSize) {
	s.marks += other.marks
	s.bytes += other.bytes
}

// over reports whether there is more of anything than most says.
func (s *markSize) over(most markSize) bool { return s.marks > most.marks || s.bytes > most.bytes }

// sizeOfMarks returns how large the marks of these addresses are.
func sizeOfMarks(gone map[hub.Address]hub.Position) (s markSize) {
	for address := range gone {
		s.add(markSize{1, len(address.Name) + markBytes})
	}
	return s
}

// removeMessages takes messages of about so many bytes out of the log, from the first on, and marks their
// addresses. It returns how many it took, and how large the new marks are.
func removeMessages(tx *bbolt.Tx, messages []*hub.Message, size int) (removed int, made markSize, err error) {
	log := tx.Bucket(logBucket)
	gone := make(map[hub.Address]hub.Position)
	for ; removed < len(messages) && size > 0; removed++ {
		m := messages[removed]
		key := positionKey(m.Position)
		size -= len(log.Get(key)) + len(key)
		if err := log.Delete(key); err != nil {
			return removed, made, err
		}
		for _, to := range m.To {
			had := m.Had
			if had.Minor > 0 { // between two messages
				had = hub.Position{Major: had.Major + 1}
			}
			if had.After(gone[to]) {
				gone[to] = had
			}
		}
	}
	made, err = markGone(tx, gone)
	return removed, made, err
}

// markGone marks addresses with the newest message that each has lost. It returns how large the new marks are.
func markGone(tx *bbolt.Tx, gone map[hub.Address]hub.Position) (made markSize, err error) {
	marks, now := tx.Bucket(marksBucket), uint64(time.Now().UnixMilli())
	for to, p := range gone {
		address := addressKey(to)
		mark, err := get(marks, address)
		if err != nil {
			return made, err
		}
		if mark == nil {
			made.add(markSize{1, len(to.Name) + markBytes})
		} else if positionOf(mark).After(p) {
			continue
		}
		if err := put(marks, address, binary.BigEndian.AppendUint64(positionKey(p), now)); err != nil {
			return made, err
		}
	}
	return made, nil
}

// readMarks returns the newest message that was removed by address, and the position up to which marks may be
// missing.
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

// foldMarks removes the marks that are older than keep, and raises the floor to the newest of them. A client
// that comes back with an ID from before the floor is told a gap. If there are more marks than most, those of
// the oldest messages go too, until an eighth of most is free. It returns what is left.
func foldMarks(tx *bbolt.Tx, keep time.Duration, most markSize, now time.Time) (left markSize, err error) {
	type mark struct {
		address  []byte
		position hub.Position
	}
	meta, marks := tx.Bucket(metaBucket), tx.Bucket(marksBucket)
	var old, recent []mark
	err = each(marks, func(address, value []byte) error {
		m := mark{bytes.Clone(address), positionOf(value)}
		made := time.UnixMilli(int64(binary.BigEndian.Uint64(value[8:])))
		if now.Sub(made) >= keep {
			old = append(old, m)
			return nil
		}
		recent = append(recent, m)
		left.add(markSize{1, len(address) - 1 + markBytes})
		return nil
	})
	if err != nil {
		return left, err
	}
	if left.over(most) {
		slices.SortFunc(recent, func(a, b mark) int { return a.position.Compare(b.position) })
		for i := 0; left.over(markSize{most.marks - most.marks/8, most.bytes - most.bytes/8}); i++ {
			old = append(old, recent[i])
			left.add(markSize{-1, 1 - len(recent[i].address) - markBytes})
		}
	}
	folded, err := get(meta, floorKey)
	floor := positionOf(folded)
	for _, m := range old {
		err = errors.Join(err, marks.Delete(m.address))
		if m.position.After(floor) {
			floor = m.position
		}
	}
	if err != nil || len(old) == 0 {
		return left, err
	}
	return left, put(meta, floorKey, positionKey(floor))
}

// addressKey returns the key of an address's mark.
func addressKey(a hub.Address) []byte { return append([]byte{byte(a.Kind)}, a.Name...) }

// addressOf reads the address of a mark from its key.
func addressOf(key []byte) hub.Address {
	return hub.Address{Kind: hub.Kind(key[0]), Name: string(key[1:])}
}
