package hub

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
)

// Position is a place in a hub's log. Positions grow along the log and need not be dense. The zero
// Position is the log's beginning, before its first message.
type Position struct{ Major, Minor uint64 }

// Compare returns -1, 0 or +1 as p stands before, at or after q.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Major, q.Major), cmp.Compare(p.Minor, q.Minor))
}

// After reports whether p stands behind q.
func (p Position) After(q Position) bool {
	return p.Major > q.Major || p.Major == q.Major && p.Minor > q.Minor
}

// before returns the position just before p.
func (p Position) before() Position {
	switch {
	case p.Minor > 0:
		return Position{p.Major, p.Minor - 1}
	case p.Major > 0:
		return Position{p.Major - 1, math.MaxUint64}
	}
	return Position{}
}

// String returns the position as it stands in IDs: "7", or "1700000000000-3".
func (p Position) String() string { return string(p.append(nil)) }

// digitsOf returns how many digits a number has.
func digitsOf(n uint64) (digits int) {
	for digits = 1; n >= 10; n /= 10 {
		digits++
	}
	return digits
}

func (p Position) append(b []byte) []byte {
	b = strconv.AppendUint(b, p.Major, 10)
	if p.Minor != 0 {
		b = strconv.AppendUint(append(b, '-'), p.Minor, 10)
	}
	return b
}

// ID is what clients know a position by: "<epoch>-<position>". The epoch names the origin of the
// log's order and changes whenever that was lost.
type ID struct {
	Epoch    string
	Position Position
}

// String returns the ID as clients get it.
func (id ID) String() string {
	b := append(make([]byte, 0, 64), id.Epoch...) // as long as IDs are
	return string(id.Position.append(append(b, '-')))
}

// ParseID reads an ID as String wrote it. Anything else is not ok; it is never an error, since
// clients bring back whatever somebody told them.
func ParseID(s string) (id ID, ok bool) {
	epoch, position, found := strings.Cut(s, "-")
	if !found || epoch == "" {
		return ID{}, false
	}
	major, minor, hasMinor := strings.Cut(position, "-")
	id.Epoch = epoch
	var err error
	if id.Position.Major, err = strconv.ParseUint(major, 10, 64); err != nil {
		return ID{}, false
	}
	if hasMinor {
		if id.Position.Minor, err = strconv.ParseUint(minor, 10, 64); err != nil {
			return ID{}, false
		}
	}
	return id, id.String() == s
}

// NewEpoch returns a name for the origin of a new log.
func NewEpoch() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
