package sse

import "fmt"

// source reads messages from a body as they arrive.
type source interface {
	// next returns the next message. io.EOF ends them properly.
	next() (draft, error)
	// buffered reports whether next would not wait for the network.
	buffered() bool
	// line returns where in the body the last message, or error, stands.
	line() int
}

// contentError is what its publisher has to change in a body. Other errors of a source are those of reading it.
type contentError struct {
	err      error
	TooLarge bool
}

func (e *contentError) Error() string { return e.err.Error() }

func (e *contentError) Unwrap() error { return e.err }

func tooLarge(format string, args ...any) error {
	return &contentError{fmt.Errorf(format, args...), true}
}
