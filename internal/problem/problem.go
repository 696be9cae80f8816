// Package problem answers requests that are refused, in the form of RFC 9457. It is the one place that
// says which status an error of the hub or its broker has.
package problem

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Problem is the answer to a request that is refused. It is an error, too: functions return it where
// nothing but a refusal can go wrong.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail says what to change.
	Detail string `json:"detail"`
	// Published is how many messages of the body were published before this went wrong: lines, events, or
	// messages of an array. It is nil where none of them can have been.
	Published *int `json:"published,omitempty"`
	// Line is the line of the body that is wrong, from 1; 0 for a body that is not read line by line.
	Line int `json:"line,omitempty"`
	// Oldest is the number of the oldest event that can still be had, or that comes next; 0 where it was not
	// asked for.
	Oldest uint64 `json:"oldest,omitempty"`

	// What follows goes into headers, never into the body.

	// Challenge is the WWW-Authenticate header of a 401.
	Challenge string `json:"-"`
	// AcceptEncoding is the Accept-Encoding header of a 415: the codings that a body may have.
	AcceptEncoding string `json:"-"`
	// RetryAfter is the Retry-After header of a 429 or 503, in seconds; 0 for none.
	RetryAfter int `json:"-"`
}

// New makes a problem. One that may go away by itself asks to be tried again after a second.
func New(status int, format string, args ...any) *Problem {
	p := &Problem{
		Type:   "about:blank",
		Title:  http.StatusText(status),
		Status: status,
		Detail: fmt.Sprintf(format, args...),
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		p.RetryAfter = 1
	}
	return p
}

// Error implements error.
func (p *Problem) Error() string { return p.Detail }

// Of turns an error of the hub or its broker into the answer for the client or publisher.
func Of(err error) *Problem {
	var p *Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, hub.ErrClientIDOwned):
		return New(http.StatusForbidden,
			"this client_id belongs to another user; choose another, or leave it out to get one")
	case errors.Is(err, hub.ErrClientIDBarred):
		return New(http.StatusForbidden,
			"this client_id was closed by an operator; come back in a minute or with another")
	case errors.Is(err, hub.ErrTooManyFromHere):
		p = New(http.StatusTooManyRequests,
			"your address has as many connections as it may; close some, or share one between tabs")
		p.Title = "Too many connections"
		return p
	case errors.Is(err, hub.ErrHubFull):
		p = New(http.StatusServiceUnavailable, "the hub has as many clients as it may; try again later")
		p.RetryAfter = 5
		return p
	case errors.Is(err, hub.ErrTooManyOpen):
		return New(http.StatusServiceUnavailable,
			"the hub has as many URI templates as it may that have an expression behind another; "+
				"name topics, or use templates with one expression")
	case errors.Is(err, hub.ErrDraining), errors.Is(err, hub.ErrHubClosed):
		return New(http.StatusServiceUnavailable,
			"the server is going down; the message was not published, try again")
	case errors.Is(err, broker.ErrUnknownOutcome):
		return New(http.StatusServiceUnavailable,
			"the outcome is unknown: the broker went away before it answered; "+
				"repeat the request with the same Idempotency-Key, which publishes once")
	case errors.Is(err, broker.ErrUnavailable),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return New(http.StatusServiceUnavailable,
			"the broker can't be reached, or takes no messages now; the message was not published, try again")
	case errors.Is(err, broker.ErrKeyReused):
		return New(http.StatusUnprocessableEntity,
			"this Idempotency-Key was used for another message within the last 10 minutes; "+
				"use a new key for a new message")
	case errors.Is(err, broker.ErrKeysFull):
		p = New(http.StatusServiceUnavailable,
			"the hub remembers as many Idempotency-Keys as it may, each for 10 minutes; the message was not "+
				"published, try again later, or publish without a key")
		p.RetryAfter = 30
		return p
	}
	return New(http.StatusServiceUnavailable, "publishing failed; the message was not published, try again")
}

// OfPurge turns an error of a purge into the answer for whoever asked for it.
func OfPurge(err error) *Problem {
	switch {
	case errors.Is(err, broker.ErrCannotPurge):
		return New(http.StatusNotImplemented, "the broker of this hub can't remove messages; they go by its history")
	case errors.Is(err, hub.ErrDraining), errors.Is(err, hub.ErrHubClosed):
		return New(http.StatusServiceUnavailable, "the server is going down; nothing was removed, try again")
	case errors.Is(err, broker.ErrUnknownOutcome):
		return New(http.StatusServiceUnavailable,
			"the outcome is unknown: the broker went away before all was removed; repeat the request")
	}
	return New(http.StatusServiceUnavailable,
		"the broker can't be reached, or removes nothing now; nothing was removed, try again")
}

// Write answers with a problem.
func Write(w http.ResponseWriter, p *Problem) error {
	header := w.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	if p.Challenge != "" {
		header.Set("WWW-Authenticate", p.Challenge)
	}
	if p.AcceptEncoding != "" {
		header.Set("Accept-Encoding", p.AcceptEncoding)
	}
	if p.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	return WriteJSON(w, p.Status, p)
}

// WriteJSON answers with JSON and its length. The caller sets the other headers first.
func WriteJSON(w http.ResponseWriter, status int, body any) error {
	var encoded bytes.Buffer
	encoder := json.NewEncoder(&encoded) // it writes the line end, too
	encoder.SetEscapeHTML(false)         // people read this, not browsers
	if err := encoder.Encode(body); err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	w.Header().Set("Content-Length", strconv.Itoa(encoded.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(encoded.Bytes()) // the client may have gone
	return nil
}
