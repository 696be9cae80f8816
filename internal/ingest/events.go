package ingest

import (
	"cmp"
	"errors"
	"io"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

// Events reads a text/event-stream body, whose ids are dropped: the log gives its own.
type Events struct {
	decoder *eventstream.Decoder
	maxSize int
	message func(data []byte) *hub.Message
	ahead   *hub.Message // read by buffered already; nil = none
	retry   *int64       // of a block without data: it goes with the next message
}

// NewEvents reads messages of at most maxSize bytes of data, each of which is made by message and then given
// the event and retry of its block.
func NewEvents(body io.Reader, maxSize int, message func(data []byte) *hub.Message) *Events {
	decoder := eventstream.NewDecoder(body, maxSize+topic.MaxBytes)
	decoder.KeepIncomplete = true
	return &Events{decoder: decoder, maxSize: maxSize, message: message}
}

func (s *Events) Next() (Draft, error) {
	for s.ahead == nil {
		e, err := s.decoder.Next()
		if errors.Is(err, eventstream.ErrTooLarge) {
			return Draft{}, tooLarge("a message has more than %d bytes of data", s.maxSize)
		}
		if err != nil {
			return Draft{}, err
		}
		s.ahead = s.read(e)
	}
	m := s.ahead
	s.ahead = nil
	return Draft{Message: m}, nil
}

// read returns what a block says; nil if it has no data, as browsers dispatch nothing either.
func (s *Events) read(e eventstream.Event) *hub.Message {
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

func (s *Events) Buffered() bool {
	for s.ahead == nil && s.decoder.Buffered() {
		e, _ := s.decoder.Next() // what is buffered has no error
		s.ahead = s.read(e)
	}
	return s.ahead != nil
}

func (s *Events) Line() int { return s.decoder.Line() }
