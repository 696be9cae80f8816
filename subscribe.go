package sse

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// subscribe answers GET with a stream that lasts, and HEAD with its headers.
func (h *Handler) subscribe(w http.ResponseWriter, r *http.Request) error {
	if h.hub.wait(r.Context()) != nil {
		panic(http.ErrAbortHandler) // EventSource comes back after a cut, but not after an answer
	}
	if r.ProtoMajor == 1 && r.ContentLength != 0 { // of a body that may not come the HTTP server is to read nothing
		w.Header().Set("Connection", "close")
		defer func() { _ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) }()
	}
	s, p := h.subscription(r)
	if p != nil && h.hub.Core.Context().Err() != nil {
		panic(http.ErrAbortHandler) // as above: the exit may be why
	}
	if p != nil {
		h.hub.Core.CountRefused()
		return writeProblem(w, p)
	}
	if r.Method == http.MethodHead {
		if err := h.hub.Core.Admits(s); err != nil {
			return h.turnAway(w, r, err)
		}
		SetHeaders(w)
		_ = http.NewResponseController(w).Flush() // before anybody adds a Content-Length of 0
		return nil
	}
	err := h.hub.Serve(w, r, s, streamOptions{Hello: h.hello, Direct: *h.DirectWrites})
	if err != nil {
		return h.turnAway(w, r, err)
	}
	return nil
}

// turnAway answers a client that the hub does not admit.
func (h *Handler) turnAway(w http.ResponseWriter, r *http.Request, cause error) error {
	if cause == ErrDraining || cause == ErrHubClosed {
		panic(http.ErrAbortHandler)
	}
	h.hub.refusals.Do(func() {
		h.logger.Warn("client refused; others within a second are not logged",
			zap.String("hub", h.Hub), zap.String("remote", r.RemoteAddr), zap.Error(cause))
	})
	if r.ProtoMajor == 1 { // whoever is refused keeps no connection either
		w.Header().Set("Connection", "close")
	}
	return writeProblem(w, problemOf(cause))
}

// subscription reads from a request what its client asks for.
func (h *Handler) subscription(r *http.Request) (Subscription, *problem) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Subscription{}, problemf(http.StatusBadRequest, "the query can't be read: %v", err)
	}
	s := Subscription{
		Subscriber:  Subscriber{Source: sourceOf(r), ClientOptions: h.options},
		LastEventID: r.Header.Get("Last-Event-ID"),
	}
	if s.LastEventID == "" {
		s.LastEventID = query.Get("last_event_id")
	}
	var p *problem
	if s.Topics, s.Patterns, p = h.topics.subscribed(r, query, h.MaxTopics); p != nil {
		return s, p
	}
	if s.User, s.Expires, p = h.authorizeSubscribe(r, s.Topics, s.Patterns); p != nil {
		return s, p
	}
	if s.User != "" && CheckUser(s.User) != nil {
		return s, problemf(http.StatusBadRequest, "%v", CheckUser(s.User))
	}
	if s.ClientID = replacerOf(r).ReplaceAll(h.ClientID, ""); s.ClientID == "" {
		s.ClientID, s.Generated = rand.Text(), true
	}
	if err := CheckClientID(s.ClientID); err != nil {
		return s, problemf(http.StatusBadRequest, "%v", err)
	}
	s.detach()
	return s, nil
}

// detach copies what a client is known by for as long as it is there. As it came it may be a part of the request's head,
// of which nothing is to be kept.
func (s *Subscriber) detach() {
	s.ClientID, s.User = strings.Clone(s.ClientID), strings.Clone(s.User)
	for _, names := range [][]string{s.Topics, s.Patterns} {
		for i, name := range names {
			names[i] = strings.Clone(name)
		}
	}
}

func (h *Handler) clientOptions() *ClientOptions {
	return &ClientOptions{
		Queue:        h.QueueMessages,
		QueueBytes:   h.QueueBytes,
		SlowClient:   h.SlowClient,
		Retry:        max(0, time.Duration(h.Retry)),
		Heartbeat:    max(0, time.Duration(h.Heartbeat)),
		IdleTimeout:  time.Duration(h.IdleTimeout),
		MaxAge:       time.Duration(h.MaxAge),
		MaxPerSource: h.MaxClientsPerIP,
		WriteTimeout: time.Duration(h.WriteTimeout),
	}
}

// userOf returns the user that Caddy's own authentication vouches for; empty for nobody.
func (h *Handler) userOf(r *http.Request) string {
	return replacerOf(r).ReplaceAll(h.User, "")
}

// sourceOf returns where a request comes from, as far as limits count: an IPv4 address, or an IPv6
// /64, which is what one host commands. It is the zero Prefix where there is none, as on a Unix socket.
func sourceOf(r *http.Request) netip.Prefix {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	address, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.Prefix{}
	}
	address = address.Unmap().WithZone("")
	bits := 64
	if address.Is4() {
		bits = 32
	}
	source, _ := address.Prefix(bits) // the bits are right for the address
	return source
}

// hello is what every stream begins with: how long to wait before reconnecting, and where the client
// stands in the log.
func (h *Handler) hello(c *Client, welcome Welcome) []byte {
	e := eventstream.Event{ID: welcome.ID, Retry: c.Retry.Milliseconds(), HasRetry: true}
	switch {
	case *h.ConnectedEvent:
		e.Name, e.HasData = "connected", true
		e.Data, _ = json.Marshal(struct { // strings always encode
			Status   string `json:"status"`
			ClientID string `json:"client_id"`
			Resume   Resume `json:"resume"`
		}{"connected", c.ClientID, welcome.Resume})
	case welcome.Resume == ResumeGap:
		e.Name, e.HasData = "gap", true
		e.Data = []byte(`{"reason":"unknown_id"}`)
	}
	return e.Append(nil)
}
