package ingest

import (
	"fmt"
)

// Source reads messages from a body as they arrive.
type Source interface {
	// Next returns the next message. io.EOF ends them properly.
	Next() (Draft, error)
	// Buffered reports whether next would not wait for the network.
	Buffered() bool
	// Line returns where in the body the last message, or error, stands.
	Line() int
}

// Error is what its publisher has to change in a body. Other errors of a source are those of reading it.
type Error struct {
	err      error
	TooLarge bool
}

func (e *Error) Error() string { return e.err.Error() }

func (e *Error) Unwrap() error { return e.err }

func tooLarge(format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...), true}
}
