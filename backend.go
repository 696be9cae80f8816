package sse

import (
	"errors"
	"net/http"
	"net/textproto"
	"regexp"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// This file is for routes to which a backend hands requests, by a header of its answer and handle_response of
// reverse_proxy.

// backendPlaceholder is a header of the backend's answer, {rp.header.*} in a Caddyfile.
var backendPlaceholder = regexp.MustCompile(`\{http\.reverse_proxy\.header\.([^{}]+)\}`)

// backendHeader returns the name of the header that a value takes from the backend, if that is all of the value.
func backendHeader(value string) (name string, ok bool) {
	match := backendPlaceholder.FindStringSubmatch(value)
	if match == nil || match[0] != value {
		return "", false
	}
	return match[1], true
}

// spellBackendHeaders spells the headers in the route's options as net/http does, which is the only spelling that
// Caddy has a placeholder for.
func (h *Handler) spellBackendHeaders() {
	for i := range h.Topics {
		h.Topics[i] = spellBackendHeader(h.Topics[i])
	}
	for _, value := range []*string{&h.ClientID, &h.User, &h.Info} {
		*value = spellBackendHeader(*value)
	}
}

func spellBackendHeader(value string) string {
	return backendPlaceholder.ReplaceAllStringFunc(value, func(placeholder string) string {
		name := backendPlaceholder.FindStringSubmatch(placeholder)[1]
		return "{http.reverse_proxy.header." + textproto.CanonicalMIMEHeaderKey(name) + "}"
	})
}

// handleResponseKey is where reverse_proxy leaves the backend's answer for what stands in handle_response.
const handleResponseKey caddy.CtxKey = "reverse_proxy_handle_response_context"

// freeBackend lets go of the backend whose answer handed the request to this route, if one did. Caddy holds that
// answer until the stream ends, and with it the backend's connection if the answer has a body. Reading the body
// gives the connection back. A body that stalls is waited for beside the stream, until the request ends; one that
// is too long is cut.
func freeBackend(r *http.Request) {
	if r.Context().Value(handleResponseKey) == nil {
		return
	}
	rest := &discarder{header: make(http.Header), begun: make(chan struct{})}
	go func() {
		defer rest.begin()
		defer func() { _ = recover() }() // http.ErrAbortHandler, if the body broke off or was cut
		_ = reverseproxy.CopyResponseHandler{}.ServeHTTP(rest, r, nil)
	}()
	<-rest.begun // what follows does not touch the request
}

// maxDiscarded bounds the body of a backend's answer that is read for nothing.
const maxDiscarded = 1 << 20

// discarder is a response that nobody gets.
type discarder struct {
	header http.Header
	bytes  int
	once   sync.Once
	begun  chan struct{} // closed when the body begins
}

func (d *discarder) begin() { d.once.Do(func() { close(d.begun) }) }

// Header implements http.ResponseWriter.
func (d *discarder) Header() http.Header { return d.header }

// WriteHeader implements http.ResponseWriter.
func (d *discarder) WriteHeader(int) { d.begin() }

// Write implements http.ResponseWriter.
func (d *discarder) Write(b []byte) (int, error) {
	if d.bytes += len(b); d.bytes > maxDiscarded {
		return 0, errors.New("the backend's answer is not needed, and longer than 1 MiB")
	}
	return len(b), nil
}
