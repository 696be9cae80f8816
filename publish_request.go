package sse

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/internal/stream"
)

// publishRoute is what all POSTs of a route share.
type publishRoute struct {
	hub    *live.Hub
	access *access
	topics topicRules
	urls   urlRules
	config *PublishConfig // nil if nobody may publish
	logger *zap.Logger
}

// post is one POST. What it can't take it answers by [post.refuse].
type post struct {
	*publishRoute
	w       http.ResponseWriter
	request *http.Request
	body    countedBody  // as it comes over the network
	text    *ingest.Text // the body decoded
	coded   bool         // whether the body has a Content-Encoding
	reading live.Reading // ends reading the body
	who     publisher
	key     string      // the header Idempotency-Key; empty for none
	at      routeTopics // those of the route, for this request

	// to is the target that the URL names, or else the route: then the body is data (form A). If it is nil
	// the body names the target (form B).
	to []hub.Address
	// defaults holds event, key, retry and ephemeral of the URL, for messages in form A.
	defaults hub.Message

	unheard time.Duration // how long nobody may listen to a body that is published as it arrives; 0 is for ever
	silence *silence      // nil without unheard
}

// newPost makes the post of a request.
func newPost(route *publishRoute, w http.ResponseWriter, r *http.Request) *post {
	return &post{
		publishRoute: route, w: w, request: r, body: countedBody{ReadCloser: r.Body},
	}
}

// prepare checks the publisher and reads everything but the body.
func (p *post) prepare() (refusal *problem.Problem) {
	if p.who, refusal = p.access.authorizePublish(p.request); refusal != nil {
		return refusal
	}
	query, refusal := p.urls.read(p.request, postParameters)
	if refusal != nil {
		return refusal
	}
	if p.key = p.request.Header.Get("Idempotency-Key"); len(p.key) > ingest.MaxKeyBytes {
		return problem.New(http.StatusBadRequest,
			"the Idempotency-Key has %d bytes; the limit is %d", len(p.key), ingest.MaxKeyBytes)
	}
	if p.at, refusal = p.topics.of(p.request); refusal != nil {
		return refusal
	}
	if p.to, refusal = urlTarget(query); refusal != nil {
		return refusal
	}
	if p.to == nil && len(p.at.topics) > 0 {
		p.to = hub.Topics(p.at.topics...)
	}
	if refusal = p.readDefaults(query); refusal != nil {
		return refusal
	}
	if refusal = p.readUnheard(query); refusal != nil {
		return refusal
	}
	return p.openBody()
}

// checkMessage refuses a message that this publisher may not publish here.
func (p *post) checkMessage(m *hub.Message) *problem.Problem {
	if len(m.Data) > p.config.MaxSize {
		return problem.New(http.StatusRequestEntityTooLarge,
			"the message has %d bytes of data; the limit is %d", len(m.Data), p.config.MaxSize)
	}
	if err := p.hub.CheckMessage(m); err != nil {
		return problem.New(http.StatusBadRequest, "%v", err)
	}
	if refusal := p.who.checkExpiry(); refusal != nil {
		return refusal
	}
	if len(m.To) > ingest.MaxTargets { // they are the topics of the route
		return problem.New(http.StatusBadRequest,
			"a message for %d topics; name %d or fewer in the URL", len(m.To), ingest.MaxTargets)
	}
	return p.access.checkAddresses(p.who, m.To, p.at)
}

// allow takes n messages from what the publisher may send at its rate, or says when to come back.
func (p *post) allow(n int) *problem.Problem {
	if p.config.Rate == 0 {
		return nil
	}
	return p.hub.Allow(p.who.name(), p.config.Rate, p.config.Burst, n)
}

// failed turns an error of the broker into an answer, and logs an outage. The log has one line a second,
// however many publish.
func (p *post) failed(err error) *problem.Problem {
	refusal := problem.Of(err)
	if refusal.Status == http.StatusServiceUnavailable {
		p.hub.Failures.Do(func() {
			p.logger.Warn("publishing failed", zap.String("hub", p.hub.Name), zap.Error(err))
		})
	}
	return refusal
}

// unreadable turns an error of reading the body into an answer. If the publisher has gone it ends the
// request.
func (p *post) unreadable(err error) *problem.Problem {
	var refusal *problem.Problem
	var limit *http.MaxBytesError // from the site's directive request_body
	var malformed *ingest.Error
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.As(err, &malformed):
		return malformedBody(malformed)
	case errors.As(err, &limit):
		return bodyTooLarge(limit.Limit)
	case p.hub.Core.Context().Err() != nil:
		return problem.Of(hub.ErrDraining)
	case p.silence.ended():
		return p.gone()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problem.New(http.StatusRequestTimeout, "the body stalled for too long")
	}
	panic(http.ErrAbortHandler)
}

func malformedBody(err error) *problem.Problem {
	status := http.StatusBadRequest
	if malformed := (*ingest.Error)(nil); errors.As(err, &malformed) && malformed.TooLarge {
		status = http.StatusRequestEntityTooLarge
	}
	return problem.New(status, "%v", err)
}

// refuse answers with a problem. An HTTP/1 connection whose body was not read to its end is closed after the
// answer. Read on for lingerTime first: closing with unread data sends RST, and the publisher may lose the
// answer. (RFC 9112, section 9.6)
func (p *post) refuse(refusal *problem.Problem) error {
	p.hub.CountRefusedPublish(refusal.Status)
	p.hub.LogRefusal(p.logger, p.request, refusal)
	if p.request.ProtoMajor != 1 || p.body.ended || p.request.ContentLength == 0 {
		return problem.Write(p.w, refusal)
	}
	controller := http.NewResponseController(p.w)
	_ = controller.SetReadDeadline(time.Now().Add(lingerTime))
	p.w.Header().Set("Connection", "close")
	err := problem.Write(p.w, refusal)
	_ = controller.Flush()
	if p.reading.Stopped() { // net/http reads the body no further
		stream.SocketOf(p.request.Context()).Discard(lingerTime)
	} else {
		_, _ = io.Copy(io.Discard, &p.body)
	}
	return err
}

// lingerTime is how long a publisher that was refused early may go on sending.
const lingerTime = 500 * time.Millisecond

// urlTarget returns the target that a query names; nil for none. A parameter that stands there twice is
// refused: nobody knows which one is meant.
func urlTarget(query url.Values) ([]hub.Address, *problem.Problem) {
	for _, name := range postParameters[1:] { // topic may be there several times
		if n := len(query[name]); n > 1 {
			return nil, problem.New(http.StatusBadRequest,
				"%s stands in the URL %d times; give it once", name, n)
		}
	}
	target := ingest.Target{Topics: query["topic"], HasTopic: query.Has("topic")}
	if query.Has("client_id") {
		target.ClientID = new(query.Get("client_id"))
	}
	if query.Has("user") {
		target.User = new(query.Get("user"))
	}
	if query.Has("broadcast") {
		on, err := ingest.ParseBool(cmp.Or(query.Get("broadcast"), "true"))
		if err != nil {
			return nil, problem.New(http.StatusBadRequest, "broadcast in the URL must be empty, true or false")
		}
		target.Broadcast = on
	}
	to, err := target.Addresses()
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "%v", err)
	}
	return to, nil
}

// readDefaults reads event, key, retry and ephemeral from the query. They need a target there.
func (p *post) readDefaults(query url.Values) *problem.Problem {
	for _, name := range []string{"event", "key", "retry", "ephemeral"} {
		if query.Has(name) && p.to == nil {
			return problem.New(http.StatusBadRequest,
				"%s stands in the URL, but the target does not; put both in the URL or both in the body", name)
		}
	}
	p.defaults.Event, p.defaults.Key = query.Get("event"), query.Get("key")
	var err error
	if query.Has("retry") {
		p.defaults.HasRetry = true
		if p.defaults.Retry, err = ingest.ParseRetry(query.Get("retry")); err != nil {
			return problem.New(http.StatusBadRequest, "%v", err)
		}
	}
	if query.Has("ephemeral") {
		if p.defaults.Ephemeral, err = ingest.ParseBool(cmp.Or(query.Get("ephemeral"), "true")); err != nil {
			return problem.New(http.StatusBadRequest, "ephemeral in the URL must be empty, true or false")
		}
	}
	return nil
}
