package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unsafe"
)

// MaxRecordBytes is how many bytes of records a log keeps for one hub. Beyond that it refuses messages whose
// key it does not know, with [ErrKeysFull].
const MaxRecordBytes = 64 << 20

// Record is what a log remembers of a request with an idempotency key: how many of its messages are
// published, by which fingerprint they are known again, and what they were answered. There is one for each
// request, however many messages it has. The zero Record is that of a request without published messages.
//
// The record of a streamed request does not grow with the request. It has the fingerprint of the newest
// message, which covers all before it, and marks: the beginnings of at most 64 fingerprints in between, at
// equal distances. They show early, and close to the place, that a repeated request is another one.
//
// A Record is not safe for concurrent use.
type Record struct {
	count       int               // messages that are published
	fingerprint [sha256.Size]byte // of the newest of them
	// marks are those of each message whose number is a multiple of stride(count), the newest left out. If
	// there are fewer, the record begins in the middle of a request, and they count for nothing.
	marks    []byte
	receipts []Receipt // of the newest messages: the newest one only, if the request is streamed
	idBytes  int       // bytes of the IDs in receipts
}

const (
	maxMarks  = 64
	markBytes = 8
)

// stride returns the distance of the marks of a record: the smallest power of two that needs no more than
// maxMarks of them.
func stride(count int) int {
	distance := 1
	for (count-1)/distance > maxMarks {
		distance *= 2
	}
	return distance
}

// marked reports whether the marks count.
func (r *Record) marked() bool { return len(r.marks) == (r.count-1)/stride(r.count)*markBytes }

// Find looks whether a message was published before, under its key. If it was, it gets its answer: Repeated,
// and Receipt or Following. If its request is not the one that the record is of, it returns [ErrKeyReused].
func (r *Record) Find(p *Publication) (found bool, err error) {
	following := r.count - 1 - p.Index
	switch {
	case r.count == 0:
		return false, nil
	case !r.covers(p, following):
		return false, ErrKeyReused
	case following < 0:
		return false, nil
	}
	p.Repeated = true
	if n := len(r.receipts) - 1 - following; n >= 0 {
		p.Receipt = r.receipts[n]
	}
	if p.Streamed {
		p.Following = following
		p.Unproven = following > 0 && !(r.marked() && (p.Index+1)%stride(r.count) == 0)
	}
	return true, nil
}

// covers reports whether the record may be of the message's request, as far as its fingerprint tells.
func (r *Record) covers(p *Publication, following int) bool {
	switch {
	case !p.Streamed || following == 0:
		return p.Fingerprint == r.fingerprint
	case following < 0:
		return following == -1 && p.Before == r.fingerprint
	}
	number, distance := p.Index+1, stride(r.count)
	if !r.marked() || number%distance != 0 {
		return true
	}
	at := (number/distance - 1) * markBytes
	return string(r.marks[at:at+markBytes]) == string(p.Fingerprint[:markBytes])
}

// Add notes that a message is published, which Find did not find. Its Receipt is set.
func (r *Record) Add(p *Publication) {
	if !p.Streamed {
		r.receipts = append(r.receipts, p.Receipt)
		r.idBytes += len(p.Receipt.ID)
	} else {
		r.mark(p.Index)
		receipt := p.Receipt
		if receipt.ID == "" && len(r.receipts) > 0 {
			receipt.ID = r.receipts[len(r.receipts)-1].ID // the last ID is part of the answer
		}
		r.receipts, r.idBytes = append(r.receipts[:0], receipt), len(receipt.ID)
	}
	r.count, r.fingerprint = p.Index+1, p.Fingerprint
}

// mark makes a mark of the newest message before another one comes, if it is due, and thins the marks out.
func (r *Record) mark(count int) {
	if r.count == 0 || r.count != count || !r.marked() {
		return
	}
	distance := stride(count + 1)
	if distance != stride(count) {
		thinned := r.marks[:0]
		for at := markBytes; at < len(r.marks); at += 2 * markBytes {
			thinned = append(thinned, r.marks[at:at+markBytes]...)
		}
		r.marks = thinned
	}
	if count%distance == 0 {
		r.marks = append(r.marks, r.fingerprint[:markBytes]...)
	}
}

// Clone returns a copy.
func (r *Record) Clone() *Record {
	copied := *r
	copied.marks, copied.receipts = slices.Clone(r.marks), slices.Clone(r.receipts)
	return &copied
}

// Size returns how many bytes of memory the record holds, about.
func (r *Record) Size() int {
	const idOverhead = 16 // what an allocation is rounded up by
	return int(unsafe.Sizeof(*r)) + cap(r.marks) + cap(r.receipts)*int(unsafe.Sizeof(Receipt{})) +
		r.idBytes + len(r.receipts)*idOverhead
}

// AppendText appends the record as text: the number of messages, the fingerprint and the marks in
// hexadecimal, then for each receipt its ID and its receivers. Blanks part them, and "-" stands for what is
// empty. ParseRecord reads it.
func (r *Record) AppendText(b []byte) []byte {
	b = strconv.AppendInt(b, int64(r.count), 10)
	b = hex.AppendEncode(append(b, ' '), r.fingerprint[:])
	b = append(b, ' ')
	if len(r.marks) == 0 {
		b = append(b, '-')
	}
	b = hex.AppendEncode(b, r.marks)
	for _, receipt := range r.receipts {
		b = append(b, ' ')
		if receipt.ID == "" {
			b = append(b, '-')
		}
		b = append(append(b, receipt.ID...), ' ')
		b = strconv.AppendInt(b, int64(receipt.Receivers), 10)
	}
	return b
}

// ParseRecord reads a record from its text.
func ParseRecord(text string) (*Record, error) {
	fields := strings.Split(text, " ")
	if len(fields) < 3 || len(fields)%2 != 1 {
		return nil, fmt.Errorf("%w: %d fields", errNoRecord, len(fields))
	}
	r := new(Record)
	var err error
	if r.count, err = strconv.Atoi(fields[0]); err != nil || r.count < 1 {
		return nil, fmt.Errorf("%w: of %.20q messages", errNoRecord, fields[0])
	}
	fingerprint, err := hex.DecodeString(fields[1])
	if err != nil || len(fingerprint) != sha256.Size {
		return nil, fmt.Errorf("%w: its fingerprint is %.80q", errNoRecord, fields[1])
	}
	r.fingerprint = [sha256.Size]byte(fingerprint)
	if fields[2] != "-" {
		if r.marks, err = hex.DecodeString(fields[2]); err != nil || len(r.marks) > maxMarks*markBytes {
			return nil, fmt.Errorf("%w: its marks are %.80q", errNoRecord, fields[2])
		}
	}
	r.receipts = make([]Receipt, 0, len(fields)/2-1)
	for n := 3; n < len(fields); n += 2 {
		var receipt Receipt
		if fields[n] != "-" {
			receipt.ID = strings.Clone(fields[n]) // the text may be large
		}
		if receipt.Receivers, err = strconv.Atoi(fields[n+1]); err != nil {
			return nil, fmt.Errorf("%w: %.20q receivers", errNoRecord, fields[n+1])
		}
		r.receipts = append(r.receipts, receipt)
		r.idBytes += len(receipt.ID)
	}
	if len(r.receipts) > r.count {
		return nil, fmt.Errorf("%w: %d receipts of %d messages", errNoRecord, len(r.receipts), r.count)
	}
	return r, nil
}

var errNoRecord = errors.New("this is no idempotency record")
