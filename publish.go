package sse

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// publishRoute answers POST on a route.
type publishRoute struct {
	hub    *live.Hub
	access *access
	topics topicRules
	config *PublishConfig // nil: nobody may publish
	logger *zap.Logger
}

// serve answers POST. DESIGN 1.4 tells the forms apart.
func (route *publishRoute) serve(w http.ResponseWriter, r *http.Request) error {
	p := &post{publishRoute: route, w: w, request: r, body: &countedBody{ReadCloser: r.Body}}
	if err := route.hub.WaitReady(r.Context()); err != nil {
		return p.refuse(problem.Of(err))
	}
	p.liftWriteDeadline()
	defer p.stopReadingAtTheEnd()()
	defer p.hub.CloseAtExit(r)()
	if refusal := p.prepare(); refusal != nil {
		return p.refuse(refusal)
	}
	switch mediaType(r) {
	case "text/event-stream":
		if p.to == nil {
			return p.refuse(problem.New(http.StatusBadRequest, "a text/event-stream body says nothing of its target; name it in the URL, as ?topic=news"))
		}
		return p.stream(ingest.NewEvents(p.body, p.config.MaxSize, p.formA))
	case "application/x-ndjson":
		return p.stream(p.lines())
	}
	return p.whole()
}

// whole publishes a body that is read to its end first: one message, or an array of them.
func (p *post) whole() error {
	body, refusal := p.readBody()
	if refusal != nil {
		return p.refuse(refusal)
	}
	messages, isArray, refusal := p.decode(body)
	if refusal != nil {
		return p.refuse(refusal)
	}
	batch := make([]*broker.Publication, len(messages))
	for i, m := range messages {
		if refusal := p.check(m.Message); refusal != nil {
			if isArray {
				refusal.Detail = "message " + strconv.Itoa(i+1) + ": " + refusal.Detail
			}
			return p.refuse(refusal)
		}
		var extent []byte
		if isArray {
			extent = body
		}
		batch[i] = p.publication(m, i+1, extent)
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
		if n > 0 { // of an array, in spite of all that was checked
			refusal.Published = &n
			refusal.Detail = fmt.Sprintf("message %d, with those before it published: %s", n+1, refusal.Detail)
		}
		return p.refuse(refusal)
	}
	if isArray {
		return p.answerArray(batch)
	}
	return writeAnswer(p.w, publishedOne{idOrNull(batch[0].Receipt), batch[0].Receipt.Receivers})
}

func (p *post) answerArray(batch []*broker.Publication) error {
	answer := publishedArray{make([]*string, len(batch)), make([]int, len(batch))}
	for i, b := range batch {
		answer.IDs[i], answer.Receivers[i] = idOrNull(b.Receipt), b.Receipt.Receivers
	}
	return writeAnswer(p.w, answer)
}

// What publishing is answered with, by form. Ephemeral messages have no ID, which is null then.
type (
	publishedOne struct {
		ID        *string `json:"id"`
		Receivers int     `json:"receivers"`
	}
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

func idOrNull(r broker.Receipt) *string { return orNull(r.ID) }

func orNull(id string) *string {
	if id == "" {
		return nil
	}
	return &id
}

// maxBatch bounds how many messages of a body, if they are there already, go to the broker at once.
const maxBatch = 64

// stream publishes the messages of a body as they arrive.
func (p *post) stream(s ingest.Source) error {
	published, lastID := 0, ""
	for nth := 1; ; {
		batch, lines, ended := p.collect(s, &nth)
		var n int
		var err error
		if len(batch) > 0 {
			n, err = p.hub.Publish(p.request.Context(), batch)
		}
		published += n
		for _, b := range batch[:n] {
			if b.Receipt.ID != "" {
				lastID = b.Receipt.ID
			}
		}
		var refusal *problem.Problem
		switch {
		case err != nil:
			refusal = p.failed(err)
			refusal.Line = lines[n]
		case ended == io.EOF: //nolint:errorlint // a source returns it bare
			return writeAnswer(p.w, publishedStream{published, orNull(lastID)})
		case ended != nil:
			refusal = p.unreadable(ended)
			refusal.Line = s.Line()
		default:
			continue
		}
		refusal.Published = &published
		return p.refuse(refusal)
	}
}

// lines reads the body as NDJSON: data of messages for the target of the URL or the route, or else messages that name
// theirs.
func (p *post) lines() ingest.Source {
	if p.to == nil {
		// Each byte of data may be escaped, and there are other fields.
		return ingest.NewLines(p.body, 6*p.config.MaxSize+16<<10, ingest.Object)
	}
	return ingest.NewLines(p.body, p.config.MaxSize, func(line []byte) (ingest.Draft, error) { return ingest.Draft{Message: p.formA(line)}, nil })
}

// collect reads one message, waiting for it, and those that are there already.
func (p *post) collect(s ingest.Source, nth *int) (batch []*broker.Publication, lines []int, ended error) {
	for {
		d, err := s.Next()
		if err != nil {
			return batch, lines, err
		}
		refusal := p.check(d.Message)
		if refusal == nil {
			refusal = p.allow(1)
		}
		if refusal != nil {
			return batch, lines, refusal
		}
		batch = append(batch, p.publication(d, *nth, nil))
		lines = append(lines, s.Line())
		*nth++
		if len(batch) == maxBatch || !s.Buffered() {
			return batch, lines, nil
		}
	}
}
