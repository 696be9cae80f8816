package answers

import (
	"errors"
	"fmt"
)

// ErrNeverGiven is the error for a number that the answer has not given out.
var ErrNeverGiven = errors.New("the answer has not given out this number")

// ErrOver is the error for a reader that has had all of an answer that is over.
var ErrOver = errors.New("the answer is over, and all of it has been had")

// ErrNoStream is the error for an answer that turned out to be nothing to keep.
var ErrNoStream = errors.New("the answer is not kept")

// TrimmedError is the error for an answer whose next piece is no longer kept.
type TrimmedError struct {
	Oldest uint64 // the number of the oldest piece that is, or will be
}

func (e *TrimmedError) Error() string {
	return fmt.Sprintf("the oldest event that is kept is %d", e.Oldest)
}

// Reader reads an answer. It belongs to one goroutine.
type Reader struct {
	answer *Answer
	id     string // for id lines; empty for lines
	cursor cursor
	wake   chan struct{}
	reads  bool // and is not only woken
}

// Read returns a reader of what follows the piece of that number. An answer that is pending can't be read
// yet: see [Answer.Decided]. [Reader.Close] ends the reading.
func (a *Answer) Read(after uint64) (*Reader, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.state == Passed || a.state == Pending:
		return nil, ErrNoStream
	case after > a.log.last():
		return nil, ErrNeverGiven
	case a.state.ended() && after == a.log.last() && !a.cutLocked():
		return nil, ErrOver
	}
	return a.readLocked(after)
}

// ReadFirst is Read for the request that the answer is to. It also reads what came before the upstream's own ids,
// and an answer that is over and has no piece.
func (a *Answer) ReadFirst() (*Reader, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.readLocked(0)
}

func (a *Answer) readLocked(after uint64) (*Reader, error) {
	if after < a.log.dropped {
		return nil, &TrimmedError{Oldest: a.log.dropped + 1}
	}
	r := a.watchLocked()
	r.reads, r.cursor = true, a.log.after(after)
	if a.head.Kind == Events {
		r.id = a.ID
	}
	return r, nil
}

// watch returns a reader that is only woken.
func (a *Answer) watch() *Reader {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.watchLocked()
}

func (a *Answer) watchLocked() *Reader {
	r := &Reader{answer: a, wake: make(chan struct{}, 1)}
	if a.wakes == nil {
		a.wakes = make(map[*Reader]struct{})
	}
	a.wakes[r] = struct{}{}
	return r
}

// isReadLocked reports whether somebody reads the answer now.
func (a *Answer) isReadLocked() bool {
	for r := range a.wakes {
		if r.reads {
			return true
		}
	}
	return false
}

// cutLocked reports whether readers are cut at the end, because it has no form for an error.
func (a *Answer) cutLocked() bool {
	return a.state == Aborted && a.head.Kind == Lines || a.state == Passed
}

// End is how an answer ends for its reader.
type End uint8

// The ends. A reader is cut if it would otherwise take a part for the whole.
const (
	Open End = iota // it goes on
	InGoodOrder
	Cut
)

// Next appends what follows to buf, as far as buf has room. If there is nothing it says whether that is the
// end.
func (r *Reader) Next(buf []byte) ([]byte, End) {
	a := r.answer
	a.mu.Lock()
	defer a.mu.Unlock()
	before := len(buf)
	if a.log.lacks(r.cursor) { // it gave way
		return buf, Cut
	}
	buf = a.log.read(&r.cursor, buf, r.id)
	switch {
	case len(buf) > before || !a.state.ended():
		return buf, Open
	case a.cutLocked():
		return buf, Cut
	}
	return buf, InGoodOrder
}

// Wake receives when there may be more to read.
func (r *Reader) Wake() <-chan struct{} { return r.wake }

// Poke wakes the reader for another reason.
func (r *Reader) Poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Close ends the reading.
func (r *Reader) Close() {
	r.answer.mu.Lock()
	defer r.answer.mu.Unlock()
	delete(r.answer.wakes, r)
}
