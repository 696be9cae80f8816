// Package ingest reads messages as publishers write them. It knows nothing of HTTP.
//
// A message comes in one of two forms. In form A something else names the target, such as the URL, and the
// body is data and nothing else. In form B fields of the message itself name its target, data and all else:
// as a JSON object, or as a form.
package ingest

import "fmt"

// Source reads messages from a body as they arrive.
type Source interface {
	// Next returns the next message. The error io.EOF means that the body has ended properly.
	Next() (Draft, error)
	// Buffered reports whether Next can return a message without waiting for the network.
	Buffered() bool
	// Line returns the line of the body on which the last message or error stands.
	Line() int
}

// Error is what a publisher has to change in a body. Other errors of a [Source] are those of its reader.
type Error struct {
	err      error
	TooLarge bool // whether a message is larger than allowed
}

// Error implements error.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

func sizeError(format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...), true}
}
