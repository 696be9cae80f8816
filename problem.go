package sse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// problem is an answer that refuses a request, in the form of RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail says what to change.
	Detail string `json:"detail"`
	// Published and Line tell how far a body that is published line by line had come. An array that broke
	// off after its first message has Published too, but no lines.
	Published *int `json:"published,omitempty"`
	Line      int  `json:"line,omitempty"`

	challenge  string `json:"-"` // WWW-Authenticate, with a 401
	retryAfter int    `json:"-"` // seconds, with a 429 or 503
}

func problemf(status int, format string, args ...any) *problem {
	p := &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		p.retryAfter = 1
	}
	return p
}

func (p *problem) Error() string { return p.Detail }

// problemOf says what a refusal by the hub or its broker means to whoever asked. It is the only
// place that maps errors to statuses.
func problemOf(err error) *problem {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, hub.ErrClientIDOwned):
		return problemf(http.StatusForbidden, "this client_id belongs to another user; choose another, or leave it out to get one")
	case errors.Is(err, hub.ErrClientIDBarred):
		return problemf(http.StatusForbidden, "this client_id was closed by an operator; come back in a minute or with another")
	case errors.Is(err, hub.ErrTooManyFromHere):
		p = problemf(http.StatusTooManyRequests, "your address has as many connections as it may; close some, or share one between tabs")
		p.Title = "Too many connections"
		return p
	case errors.Is(err, hub.ErrHubFull):
		p = problemf(http.StatusServiceUnavailable, "the hub has as many clients as it may; try again later")
		p.retryAfter = 5
		return p
	case errors.Is(err, hub.ErrDraining), errors.Is(err, hub.ErrHubClosed):
		return problemf(http.StatusServiceUnavailable, "the server is going down; the message was not published, try again")
	case errors.Is(err, broker.ErrUnknownOutcome):
		return problemf(http.StatusServiceUnavailable,
			"the outcome is unknown: the broker went away before it answered; repeat the request with the same Idempotency-Key, which publishes once")
	case errors.Is(err, broker.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problemf(http.StatusServiceUnavailable, "the broker can't be reached, or takes no messages now; the message was not published, try again")
	case errors.Is(err, broker.ErrKeyReused):
		return problemf(http.StatusUnprocessableEntity,
			"this Idempotency-Key was used for another message within the last 10 minutes; use a new key for a new message")
	}
	return problemf(http.StatusServiceUnavailable, "publishing failed; the message was not published, try again")
}

func writeProblem(w http.ResponseWriter, p *problem) error {
	header := w.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	if p.challenge != "" {
		header.Set("WWW-Authenticate", p.challenge)
	}
	if p.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	return writeJSON(w, p.Status, p)
}

func writeJSON(w http.ResponseWriter, status int, body any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	encoded = append(encoded, '\n')
	w.Header().Set("Content-Length", strconv.Itoa(len(encoded)))
	w.WriteHeader(status)
	_, _ = w.Write(encoded) // whoever asked may have gone
	return nil
}
