package sse

import (
	"cmp"
	"errors"
	"io"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

// eventSource reads a text/event-stream body, whose ids are dropped: the log gives its own.
type eventSource struct {
	decoder *eventstream.Decoder
	maxSize int
	message func(data []byte) *hub.Message
	ahead   *hub.Message // read by buffered already; nil = none
	retry   *int64       // of a block without data: it goes with the next message
}

// newEventSource reads messages of at most maxSize bytes of data, each of which is made by message and then given
// the event and retry of its block.
func newEventSource(body io.Reader, maxSize int, message func(data []byte) *hub.Message) *eventSource {
	decoder := eventstream.NewDecoder(body, maxSize+topic.MaxBytes)
	decoder.KeepIncomplete = true
	return &eventSource{decoder: decoder, maxSize: maxSize, message: message}
}

func (s *eventSource) next() (draft, error) {
	for s.ahead == nil {
		e, err := s.decoder.Next()
		if errors.Is(err, eventstream.ErrTooLarge) {
			return draft{}, tooLarge("a message has more than %d bytes of data", s.maxSize)
		}
		if err != nil {
			return draft{}, err
		}
		s.ahead = s.read(e)
	}
	m := s.ahead
	s.ahead = nil
	return draft{Message: m}, nil
}

// read returns what a block says; nil if it has no data, as browsers dispatch nothing either.
func (s *eventSource) read(e eventstream.Event) *hub.Message {
	if e.HasRetry {
		s.retry = &e.Retry
	}
	if !e.HasData {
		return nil
	}
	m := s.message(e.Data)
	m.Event = cmp.Or(e.Name, m.Event)
	if s.retry != nil {
		m.Retry, m.HasRetry = *s.retry, true
		s.retry = nil
	}
	return m
}

func (s *eventSource) buffered() bool {
	for s.ahead == nil && s.decoder.Buffered() {
		e, _ := s.decoder.Next() // what is buffered has no error
		s.ahead = s.read(e)
	}
	return s.ahead != nil
}

func (s *eventSource) line() int { return s.decoder.Line() }
