package sse

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// The parameter unheard ends a body that is published as it arrives once no client has been at its target for a
// while: the model behind it need not go on for nobody.

// Bounds of the parameter.
const (
	minUnheard = 100 * time.Millisecond
	maxUnheard = 24 * time.Hour
)

// readUnheard reads unheard from the query.
func (p *post) readUnheard(query url.Values) *problem.Problem {
	if !query.Has("unheard") {
		return nil
	}
	if media := mediaType(p.request); media != "text/event-stream" && media != "application/x-ndjson" {
		return problem.New(http.StatusBadRequest, "unheard ends a body that is published as it arrives; "+
			"send text/event-stream or application/x-ndjson, or leave it out")
	}
	limit, err := caddy.ParseDuration(query.Get("unheard"))
	if err != nil || limit < minUnheard || limit > maxUnheard {
		return problem.New(http.StatusBadRequest, "unheard must be a time such as 30s, from 100ms to 24h")
	}
	p.unheard = limit
	return nil
}

// silence is how long no client has been at the target of a body. If the body names targets itself, that of the
// newest message counts, and time runs from the first message on. Where nobody can tell who listens, it does not
// run.
type silence struct {
	limit time.Duration
	count func(context.Context, []hub.Address) (int, error) // of clients at a target

	mu    sync.Mutex // guards all below
	to    []hub.Address
	since time.Time // zero while there is none
	over  bool      // it has lasted as long as it may
}

// note takes in messages that were published. One that was published before says nothing of who listens now.
func (s *silence) note(batch []*broker.Publication) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range batch {
		s.to = p.To
		if p.Receipt.Receivers > 0 && !p.Repeated {
			s.since = time.Time{}
		}
	}
}

// ended reports whether the body is to end.
func (s *silence) ended() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// watch looks now and then who listens, and returns when nobody has for so long, or with ctx. Who comes for less
// than the time between two looks may go unnoticed.
func (s *silence) watch(ctx context.Context) (over bool) {
	ticker := time.NewTicker(min(s.limit/4, time.Second))
	defer ticker.Stop()
	for {
		s.look(ctx)
		if s.ended() {
			return true
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
	}
}

func (s *silence) look(ctx context.Context) {
	s.mu.Lock()
	to, began := s.to, s.since
	s.mu.Unlock()
	asked := time.Now()
	clients := 1 // in doubt somebody listens
	if len(to) > 0 {
		if n, err := s.count(ctx, to); err == nil {
			clients = n
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case clients > 0:
		s.since = time.Time{}
	case s.since.IsZero() && began.IsZero():
		s.since = asked
	case !s.since.IsZero():
		s.over = time.Since(s.since) >= s.limit
	}
}

// endUnheard has the body end once nobody has listened for as long as the publisher says. Call stop when the
// request is to be answered.
func (p *post) endUnheard() (stop func()) {
	if p.unheard == 0 {
		return func() {}
	}
	p.silence = &silence{limit: p.unheard, count: p.hub.Receivers, to: p.to}
	ctx, cancel := context.WithCancel(p.request.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		if p.silence.watch(ctx) {
			p.reading.Stop()
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// gone says that nobody listens to a body.
func (p *post) gone() *problem.Problem {
	return problem.New(http.StatusGone,
		"no client has been at the target for %v, as unheard says; what came until now is published", p.unheard)
}
