package ingest

import (
	"cmp"
	"errors"
	"io"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

// Events is a [Source] for text/event-stream: each block is a message. Its id is dropped, since the log gives
// IDs of its own.
type Events struct {
	decoder *eventstream.Decoder
	maxSize int
	message func(data []byte) *hub.Message
	ahead   *hub.Message // already read by Buffered; nil for none
	retry   *int64       // of a block without data, within bounds: it goes with the next message
}

// NewEvents reads a body whose messages have at most maxSize bytes of data. The function message makes a
// message of data; then the block's event and retry are set.
func NewEvents(body io.Reader, maxSize int, message func(data []byte) *hub.Message) *Events {
	decoder := eventstream.NewDecoder(body, maxSize+topic.MaxBytes)
	decoder.KeepIncomplete = true
	return &Events{decoder: decoder, maxSize: maxSize, message: message}
}

// Next implements [Source].
func (s *Events) Next() (Draft, error) {
	for s.ahead == nil {
		e, err := s.decoder.Next()
		if errors.Is(err, eventstream.ErrTooLarge) {
			return Draft{}, sizeError("a message has more than %d bytes of data", s.maxSize)
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

// read returns the message of a block. Without data it returns nil: browsers dispatch nothing either.
func (s *Events) read(e eventstream.Event) *hub.Message {
	if e.HasRetry {
		s.retry = new(BoundRetry(e.Retry))
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

// Buffered implements [Source].
func (s *Events) Buffered() bool {
	for s.ahead == nil && s.decoder.Buffered() {
		e, _ := s.decoder.Next() // what is buffered has no error
		s.ahead = s.read(e)
	}
	return s.ahead != nil
}

// Line implements [Source].
func (s *Events) Line() int { return s.decoder.Line() }
