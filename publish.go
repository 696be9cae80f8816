package sse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// publishRoute answers POST on a route.
type publishRoute struct {
	hub    *live.Hub
	access *access
	topics topicRules
	config *PublishConfig // nil: nobody may publish
	logger *zap.Logger
}

// post is one publishing request.
type post struct {
	*publishRoute
	w       http.ResponseWriter
	request *http.Request
	body    *countedBody
	who     publisher
	key     string   // Idempotency-Key
	literal []string // the route's own topics, for this request
	// to is whom the URL names, or else the route: then the body is data (form A). Otherwise the body
	// says so itself (form B).
	to []hub.Address
	// defaults are event, retry and ephemeral of form A, from the query.
	defaults hub.Message
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

// prepare reads all but the body.
func (p *post) prepare() (refusal *problem.Problem) {
	if p.who, refusal = p.access.authorizePublish(p.request); refusal != nil {
		return refusal
	}
	query, err := url.ParseQuery(p.request.URL.RawQuery)
	if err != nil {
		return problem.New(http.StatusBadRequest, "the query can't be Read: %v", err)
	}
	if p.key = p.request.Header.Get("Idempotency-Key"); len(p.key) > ingest.MaxKeyBytes {
		return problem.New(http.StatusBadRequest, "the Idempotency-Key has %d bytes; the limit is %d", len(p.key), ingest.MaxKeyBytes)
	}
	if p.literal, refusal = p.topics.literal(p.request); refusal != nil {
		return refusal
	}
	if p.to, refusal = urlTarget(query); refusal != nil {
		return refusal
	}
	if p.to == nil && len(p.literal) > 0 {
		p.to = hub.Topics(p.literal...)
	}
	return p.readDefaults(query)
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

// check says what keeps a message from being published here by this publisher.
func (p *post) check(m *hub.Message) *problem.Problem {
	if len(m.Data) > p.config.MaxSize {
		return problem.New(http.StatusRequestEntityTooLarge, "the message has %d bytes of data; the limit is %d", len(m.Data), p.config.MaxSize)
	}
	if err := m.Check(); err != nil {
		return problem.New(http.StatusBadRequest, "%v", err)
	}
	if refusal := p.who.expired(); refusal != nil {
		return refusal
	}
	if len(m.To) > ingest.MaxTargets { // as many as the route has topics
		return problem.New(http.StatusBadRequest, "a message for %d topics; name %d or fewer in the URL", len(m.To), ingest.MaxTargets)
	}
	return p.access.mayAddress(p.who, m.To, p.literal)
}

// publication prepares a draft for the broker. nth counts the messages of the request from 1; extent is
// what all of them together are told from another request by, where that has to be.
func (p *post) publication(d ingest.Draft, nth int, extent []byte) *broker.Publication {
	b := &broker.Publication{Message: d.Message}
	key := p.key
	if d.Key != "" {
		key, nth, extent = d.Key, 1, nil
	}
	if key != "" {
		scoped := sha256.Sum256([]byte(p.who.name + "\x00" + key + "/" + strconv.Itoa(nth)))
		b.Key = hex.EncodeToString(scoped[:])
		b.Fingerprint = d.Fingerprint(extent)
	}
	return b
}

// allow takes n messages from what the publisher may send at its rate, or says when to come back.
func (p *post) allow(n int) *problem.Problem {
	return p.hub.Allow(p.who.name, p.config.Rate, p.config.Burst, n)
}

// failed turns what the broker said into an answer, and tells the operator, who hears of an outage once a
// second however many publish.
func (p *post) failed(err error) *problem.Problem {
	refusal := problem.Of(err)
	if refusal.Status == http.StatusServiceUnavailable {
		p.hub.Failures.Do(func() {
			p.logger.Warn("publishing failed", zap.String("hub", p.hub.Name), zap.Error(err))
		})
	}
	return refusal
}

// unreadable says what became of a body that could not be read to its end. If nobody is there to be
// told, it ends the request.
func (p *post) unreadable(err error) *problem.Problem {
	var refusal *problem.Problem
	var limit *http.MaxBytesError // of the site, by request_body
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
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problem.New(http.StatusRequestTimeout, "the body stalled for too long")
	}
	panic(http.ErrAbortHandler)
}

func malformedBody(err *ingest.Error) *problem.Problem {
	if err.TooLarge {
		return problem.New(http.StatusRequestEntityTooLarge, "%v", err)
	}
	return problem.New(http.StatusBadRequest, "%v", err)
}

// refuse answers with a problem. An HTTP/1 connection whose body was not read to its end is closed
// then: the rest is nobody's. It is taken for a while all the same, because closing on what a
// publisher still sends would destroy the answer before it is read. (RFC 9112, section 9.6)
func (p *post) refuse(refusal *problem.Problem) error {
	if p.request.ProtoMajor != 1 || p.body.ended || p.request.ContentLength == 0 {
		return problem.Write(p.w, refusal)
	}
	controller := http.NewResponseController(p.w)
	_ = controller.SetReadDeadline(time.Now().Add(lingerTime))
	p.w.Header().Set("Connection", "close")
	err := problem.Write(p.w, refusal)
	_ = controller.Flush()
	_, _ = io.Copy(io.Discard, p.body)
	return err
}

// lingerTime is how long a publisher that was refused early may go on sending, so that it gets to
// read the answer.
const lingerTime = 500 * time.Millisecond

// liftWriteDeadline lets a request be answered that took longer than the server's write timeout, because
// its messages came one by one or waited for the machine to catch up. Caddy's idle timeout bounds how
// long the answer itself may take.
func (p *post) liftWriteDeadline() {
	if _, w := caddyhttp.IdleTimeoutsFromContext(p.request.Context()); w != nil {
		w.Deadline.HardDeadline = time.Time{}
	}
	_ = http.NewResponseController(p.w).SetWriteDeadline(time.Time{})
}

// stopReadingAtTheEnd makes reads of the body fail when the hub ends: an endless publisher does not
// hold up the exit. The returned function undoes that.
func (p *post) stopReadingAtTheEnd() (undo func()) {
	var mu sync.Mutex
	over := false
	stop := context.AfterFunc(p.hub.Core.Context(), func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			_ = http.NewResponseController(p.w).SetReadDeadline(time.Unix(1, 0))
		}
	})
	return func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		over = true
	}
}

// countedBody notes whether the body was read to its end.
type countedBody struct {
	io.ReadCloser
	ended bool
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err == io.EOF
	return n, err
}

func mediaType(r *http.Request) string {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return media
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
