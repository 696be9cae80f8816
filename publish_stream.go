package sse

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"net/http"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/topic"
)

// source reads messages from a body as they arrive.
type source interface {
	// next returns the next message. io.EOF ends them properly.
	next() (draft, error)
	// buffered reports whether next would not wait for the network.
	buffered() bool
	// line returns where in the body the last message, or error, stands.
	line() int
}

// maxBatch bounds how many messages of a body, if they are there already, go to the broker at once.
const maxBatch = 64

// stream publishes the messages of a body as they arrive.
func (p *post) stream(s source) error {
	published, lastID := 0, ""
	for nth := 1; ; {
		batch, lines, ended := p.collect(s, &nth)
		var n int
		var err error
		if len(batch) > 0 {
			n, err = p.hub.publish(p.request.Context(), batch)
		}
		published += n
		for _, b := range batch[:n] {
			if b.Receipt.ID != "" {
				lastID = b.Receipt.ID
			}
		}
		var refusal *problem
		switch {
		case err != nil:
			refusal = p.failed(err)
			refusal.Line = lines[n]
		case ended == io.EOF: //nolint:errorlint // a source returns it bare
			return writeAnswer(p.w, publishedStream{published, orNull(lastID)})
		case ended != nil:
			refusal = p.unreadable(ended)
			refusal.Line = s.line()
		default:
			continue
		}
		refusal.Published = &published
		return p.refuse(refusal)
	}
}

// collect reads one message, waiting for it, and those that are there already.
func (p *post) collect(s source, nth *int) (batch []*Publication, lines []int, ended error) {
	for {
		d, err := s.next()
		if err != nil {
			return batch, lines, err
		}
		refusal := p.check(d.Message)
		if refusal == nil {
			refusal = p.hub.allow(p.who.name, p.Publish, 1)
		}
		if refusal != nil {
			return batch, lines, refusal
		}
		batch = append(batch, p.publication(d, *nth, nil))
		lines = append(lines, s.line())
		*nth++
		if len(batch) == maxBatch || !s.buffered() {
			return batch, lines, nil
		}
	}
}

// eventSource reads a text/event-stream body, whose ids are dropped: the log gives its own.
type eventSource struct {
	post    *post
	decoder *eventstream.Decoder
	ahead   *Message // read by buffered already; nil = none
	retry   *int64   // of a block without data: it goes with the next message
}

func newEventSource(p *post) *eventSource {
	decoder := eventstream.NewDecoder(p.body, p.Publish.MaxSize+topic.MaxBytes)
	decoder.KeepIncomplete = true
	return &eventSource{post: p, decoder: decoder}
}

func (s *eventSource) next() (draft, error) {
	for s.ahead == nil {
		e, err := s.decoder.Next()
		if errors.Is(err, eventstream.ErrTooLarge) {
			return draft{}, problemf(http.StatusRequestEntityTooLarge, "a message has more than %d bytes of data", s.post.Publish.MaxSize)
		}
		if err != nil {
			return draft{}, err
		}
		s.ahead = s.message(e)
	}
	m := s.ahead
	s.ahead = nil
	return draft{Message: m}, nil
}

// message returns what a block says; nil if it has no data, as browsers dispatch nothing either.
func (s *eventSource) message(e eventstream.Event) *Message {
	if e.HasRetry {
		s.retry = &e.Retry
	}
	if !e.HasData {
		return nil
	}
	m := s.post.formA(e.Data)
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
		s.ahead = s.message(e)
	}
	return s.ahead != nil
}

func (s *eventSource) line() int { return s.decoder.Line() }

// lineSource reads NDJSON: a message, or the data of one, on each line.
type lineSource struct {
	post   *post
	reader *bufio.Reader
	limit  int
	number int
}

func newLineSource(p *post) *lineSource {
	limit := p.Publish.MaxSize
	if p.to == nil {
		limit = 6*limit + 16<<10 // each byte of data may be escaped, and there are other fields
	}
	return &lineSource{post: p, reader: bufio.NewReaderSize(p.body, 16<<10), limit: limit}
}

func (s *lineSource) next() (draft, error) {
	for {
		line, err := s.readLine()
		if err != nil {
			return draft{}, err
		}
		if len(line) == 0 {
			continue
		}
		if s.post.to != nil {
			return draft{Message: s.post.formA(line)}, nil
		}
		d, err := decodeObject(line)
		if err != nil {
			return draft{}, problemf(http.StatusBadRequest, "%v", err)
		}
		return d, nil
	}
}

// readLine returns the next line without its end. The last one needs none if the body ended properly.
func (s *lineSource) readLine() (line []byte, err error) {
	s.number++
	for {
		part, err := s.reader.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > s.limit+len("\r\n"):
			return nil, problemf(http.StatusRequestEntityTooLarge, "the line has more than %d bytes", s.limit)
		case err == nil:
			return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), nil
		case errors.Is(err, bufio.ErrBufferFull):
		case err == io.EOF && len(line) > 0:
			return bytes.TrimSuffix(line, []byte("\r")), nil
		default:
			return nil, err
		}
	}
}

func (s *lineSource) buffered() bool {
	ahead, _ := s.reader.Peek(s.reader.Buffered())
	ahead = bytes.TrimLeft(ahead, "\r\n") // empty lines are no messages
	return bytes.IndexByte(ahead, '\n') >= 0
}

func (s *lineSource) line() int { return s.number }
