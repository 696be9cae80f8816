package sse

import (
	"io"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

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
