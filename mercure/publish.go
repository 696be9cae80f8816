package mercure

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/internal/token"
)

// publish answers POST: it publishes one update, and answers with its ID.
func (h *Handler) publish(w http.ResponseWriter, r *http.Request) error {
	id, refusal := h.publishForm(w, r)
	if refusal != nil {
		h.live.CountRefusedPublish(refusal.Status)
		h.live.LogRefusal(h.logger, r, refusal)
		return problem.Write(w, refusal)
	}
	live.Answer(w, "text/plain; charset=utf-8", []byte(id))
	return nil
}

// publishForm publishes the update in a request's form. It returns the update's ID, or why there is none.
func (h *Handler) publishForm(w http.ResponseWriter, r *http.Request) (id string, refusal *problem.Problem) {
	if err := h.live.WaitReady(r.Context()); err != nil {
		return "", problem.Of(err)
	}
	live.LiftWriteDeadline(w, r)
	var reading live.Reading
	reading.Begin(h.live, w)
	defer reading.End()
	defer h.live.CloseAtExit(r)()
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", problem.New(http.StatusBadRequest, "the query can't be read: %v", err)
	}
	who, refusal := h.authorizePublisher(r, query)
	if refusal != nil {
		return "", refusal
	}
	form, refusal := h.readForm(w, r)
	if refusal != nil {
		return "", refusal
	}
	if expiry := who.claims.Expiry; !expiry.IsZero() && !time.Now().Before(expiry) { // while the form came
		return "", unauthorized("invalid_token", "%v", token.ErrExpired)
	}
	m, refusal := updateOf(form)
	if refusal != nil {
		return "", refusal
	}
	if refusal := who.mayPublish(form["topic"]); refusal != nil {
		return "", refusal
	}
	if h.Hub != "" && hub.IsReservedEvent(m.Event) {
		return "", problem.New(http.StatusBadRequest,
			"type %q is reserved on this hub, which routes of the directive sse share; choose another", m.Event)
	}
	if err := h.live.Core.CheckMessage(m); err != nil {
		return "", problem.New(http.StatusBadRequest, "%v", err)
	}
	if refusal := h.live.Allow(who.name, h.Rate, h.Burst, 1); refusal != nil {
		return "", refusal
	}
	p := &broker.Publication{Message: m}
	if _, err := h.live.Publish(r.Context(), []*broker.Publication{p}); err != nil {
		return "", h.failed(err)
	}
	if m.ChosenID != "" {
		return m.ChosenID, nil
	}
	given, _ := hub.ParseID(p.Receipt.ID) // the hub's own always is one
	return given.URN(), nil
}

// formType is the media type that updates are published in.
const formType = "application/x-www-form-urlencoded"

// readForm reads the body of a request.
func (h *Handler) readForm(w http.ResponseWriter, r *http.Request) (url.Values, *problem.Problem) {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if media = strings.TrimSpace(media); !strings.EqualFold(media, formType) {
		return nil, problem.New(http.StatusBadRequest,
			"an update is published as a form; send it as Content-Type: %s, not %q", formType, media)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(h.PublishMaxSize)))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, problem.New(http.StatusRequestEntityTooLarge,
			"the form has more than %d bytes; publish less, or raise publish_max_size", tooLarge.Limit)
	case err != nil && h.live.Core.Context().Err() != nil:
		return nil, problem.Of(hub.ErrDraining)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, problem.New(http.StatusRequestTimeout, "the body stalled for too long")
	case err != nil:
		panic(http.ErrAbortHandler) // the publisher has gone
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "the form can't be read: %v", err)
	}
	return form, nil
}

var digits = regexp.MustCompile(`^[0-9]+$`)

// updateOf returns the update that a form stands for. Fields that the protocol does not know mean nothing.
func updateOf(form url.Values) (*hub.Message, *problem.Problem) {
	topics := form["topic"]
	switch {
	case len(topics) == 0:
		return nil, problem.New(http.StatusBadRequest,
			"the form has no field topic; name what the update is of, as topic=https://example.com/books/1")
	case slices.Contains(topics, ""):
		return nil, problem.New(http.StatusBadRequest, "a topic is empty; name what the update is of")
	}
	m := &hub.Message{
		AnyTopic: true,
		Event:    form.Get("type"),
		Data:     []byte(form.Get("data")),
		ChosenID: strings.Trim(form.Get("id"), " "),
	}
	if m.To = hub.Topics(topics...); form.Has("private") {
		m.To = hub.PrivateTopics(topics...)
	}
	if text := form.Get("retry"); text != "" {
		after, err := strconv.ParseInt(text, 10, 64)
		if err != nil || !digits.MatchString(text) {
			return nil, problem.New(http.StatusBadRequest,
				"retry must be a whole number of milliseconds, in digits; leave it out for none")
		}
		m.Retry, m.HasRetry = after, true
	}
	return m, nil
}

// failed turns an error of the broker into an answer, and logs an outage. The log has one line a second, however many
// publish.
func (h *Handler) failed(err error) *problem.Problem {
	refusal := problem.Of(err)
	if errors.Is(err, broker.ErrUnknownOutcome) {
		refusal.Detail = "the outcome is unknown: the broker went away before it answered; " +
			"if you publish again, subscribers may get the update twice"
	}
	if refusal.Status == http.StatusServiceUnavailable {
		h.live.Failures.Do(func() {
			h.logger.Warn("publishing failed", zap.String("hub", h.live.Name), zap.Error(err))
		})
	}
	return refusal
}
