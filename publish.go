package sse

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// serve answers POST. A body of events or lines is published as it arrives, any other body as a whole.
// Package ingest says what forms A and B are.
func (route *publishRoute) serve(w http.ResponseWriter, r *http.Request) error {
	p := newPost(route, w, r)
	if err := route.hub.WaitReady(r.Context()); err != nil {
		return p.refuse(problem.Of(err))
	}
	live.LiftWriteDeadline(w, r)
	p.reading.Begin(p.hub, w)
	defer p.reading.End()
	defer p.hub.CloseAtExit(r)()
	if refusal := p.prepare(); refusal != nil {
		return p.refuse(refusal)
	}
	switch mediaType(r) {
	case "text/event-stream":
		if p.to == nil {
			return p.refuse(problem.New(http.StatusBadRequest,
				"a text/event-stream body says nothing of its target; name it in the URL, as ?topic=news"))
		}
		return p.stream(ingest.NewEvents(p.text, p.config.MaxSize, p.formA))
	case "application/x-ndjson":
		return p.stream(p.lines())
	}
	return p.whole()
}

// whole publishes a body after it has read all of it: one message, or an array of messages.
func (p *post) whole() error {
	body, refusal := p.readBody()
	if refusal != nil {
		return p.refuse(refusal)
	}
	messages, isArray, refusal := p.decode(body)
	if refusal != nil {
		return p.refuse(refusal)
	}
	key := newRequestKey(p.who, p.key)
	var array [sha256.Size]byte
	if isArray {
		array = arrayFingerprint(body)
	}
	batch := make([]*broker.Publication, len(messages))
	for i, m := range messages {
		if refusal := p.checkMessage(m.Message); refusal != nil {
			if isArray {
				refusal.Detail = "message " + strconv.Itoa(i+1) + ": " + refusal.Detail
			}
			return p.refuse(refusal)
		}
		if isArray {
			batch[i] = key.whole(m, array)
		} else {
			batch[i] = key.publication(m)
		}
	}
	if isArray {
		if n, err := p.hub.CheckKeys(p.request.Context(), batch); err != nil {
			refusal := p.failed(err)
			refusal.Detail = fmt.Sprintf("message %d: %s", n+1, refusal.Detail)
			return p.refuse(refusal)
		}
	}
	if refusal := p.allow(len(batch)); refusal != nil {
		return p.refuse(refusal)
	}
	n, err := p.hub.Publish(p.request.Context(), batch)
	if err != nil {
		refusal := p.failed(err)
		if n > 0 { // an array broke off after all checks
			refusal.Published = &n
			refusal.Detail = fmt.Sprintf("message %d, with those before it published: %s", n+1, refusal.Detail)
		}
		return p.refuse(refusal)
	}
	if isArray {
		return p.answerArray(batch)
	}
	receipt := batch[0].Receipt
	return writeOne(p.w, receipt)
}

func (p *post) answerArray(batch []*broker.Publication) error {
	answer := publishedArray{make([]*string, len(batch)), make([]int, len(batch))}
	for i, b := range batch {
		answer.IDs[i], answer.Receivers[i] = orNull(b.Receipt.ID), b.Receipt.Receivers
	}
	return writeAnswer(p.w, answer)
}

// The answers to a POST of several messages. An ephemeral message has no ID: it is null.
type (
	publishedArray struct {
		IDs       []*string `json:"ids"`
		Receivers []int     `json:"receivers"`
	}
	publishedStream struct {
		Published int     `json:"published"`
		LastID    *string `json:"last_id"`
	}
)

func writeAnswer(w http.ResponseWriter, answer any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return problem.WriteJSON(w, http.StatusOK, answer)
}

// writeOne answers a POST of one message: {"id":"...","receivers":3}.
func writeOne(w http.ResponseWriter, receipt broker.Receipt) error {
	body := append(make([]byte, 0, 128), `{"id":`...)
	var err error
	if receipt.ID == "" {
		body = append(body, "null"...)
	} else if body, err = jsontext.AppendQuote(body, receipt.ID); err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	body = strconv.AppendInt(append(body, `,"receivers":`...), int64(receipt.Receivers), 10)
	live.Answer(w, "application/json", append(body, "}\n"...))
	return nil
}

// orNull returns an ID for JSON. Without one it is null.
func orNull(id string) *string {
	if id == "" {
		return nil
	}
	return &id
}

// maxBatch is how many messages that have arrived already go to the broker at once.
const maxBatch = 64

// stream publishes the messages of a body as they arrive.
func (p *post) stream(s ingest.Source) error {
	var came progress
	key := newRequestKey(p.who, p.key)
	defer p.endUnheard()()
	for {
		batch, lines, ended := p.collect(s, key)
		var n int
		var err error
		if len(batch) > 0 {
			n, err = p.hub.Publish(p.request.Context(), batch)
		}
		came.note(batch[:n], lines, key.key)
		p.silence.note(batch[:n])
		var refusal *problem.Problem
		switch {
		case err != nil:
			refusal = p.failed(err)
			came.locate(refusal, lines[n])
		case ended == io.EOF && came.published == 0 && !p.text.Empty(): //nolint:errorlint // a source returns it bare
			refusal = problem.New(http.StatusBadRequest, "the body holds no message: none of its lines %s",
				p.messageLine())
			came.locate(refusal, 0)
		case ended == io.EOF: //nolint:errorlint // as above
			if refusal = came.tooShort(s.Line()); refusal == nil {
				return writeAnswer(p.w, came.answer())
			}
		case ended != nil:
			refusal = p.unreadable(ended)
			came.locate(refusal, s.Line())
			if refusal.Status == http.StatusGone { // no line is why
				refusal.Line = 0
			}
		default:
			continue
		}
		return p.refuse(refusal)
	}
}

// messageLine says what a line has to do so that there is a message.
func (p *post) messageLine() string {
	if mediaType(p.request) == "text/event-stream" {
		return "begins with data:"
	}
	return "has anything on it"
}

// lines reads the body as NDJSON. Each line is a message in form B or, if the target is known, the data of
// one.
func (p *post) lines() ingest.Source {
	if p.to == nil {
		// Each byte of data may be escaped as \u0000, and there are other fields.
		return ingest.NewObjectLines(p.text, 6*p.config.MaxSize+16<<10)
	}
	return ingest.NewDataLines(p.text, p.config.MaxSize, p.formA)
}

// collect waits for a message and reads it, with those behind it that have arrived already. It returns the
// line of each.
func (p *post) collect(s ingest.Source, key *requestKey) (batch []*broker.Publication, lines []int, ended error) {
	for {
		d, err := s.Next()
		if err != nil {
			return batch, lines, err
		}
		refusal := p.checkMessage(d.Message)
		if refusal == nil {
			refusal = p.allow(1)
		}
		if refusal != nil {
			return batch, lines, refusal
		}
		batch = append(batch, key.streamed(d))
		lines = append(lines, s.Line())
		if len(batch) == maxBatch || !s.Buffered() {
			return batch, lines, nil
		}
	}
}
