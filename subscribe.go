package sse

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// subscribeRoute answers GET and HEAD on a route.
type subscribeRoute struct {
	hub            *live.Hub
	access         *access
	topics         topicRules
	urls           urlRules
	maxTopics      int    // topics and patterns of a client
	clientID       string // the placeholder for the client's ID
	info           string // the placeholder for what others see of a client
	options        *hub.ClientOptions
	polling        *hub.ClientOptions // of clients that get one answer
	since          *since             // nil if the route does not say
	connectedEvent bool
	directWrites   bool
	compress       bool
	logger         *zap.Logger
}

// serve answers GET with a stream, or with what there is by now, and HEAD with the headers of that.
func (route *subscribeRoute) serve(w http.ResponseWriter, r *http.Request) error {
	if route.asksWhoIsThere(r) {
		return route.servePresence(w, r)
	}
	if route.hub.WaitReady(r.Context()) != nil {
		panic(http.ErrAbortHandler) // EventSource reconnects after a cut, but not after an answer
	}
	defer live.IgnoreBody(w, r)()
	s, p := route.subscription(r)
	if p != nil {
		return route.hub.Refuse(w, r, route.logger, p)
	}
	freeBackend(r)
	err := route.hub.Serve(w, r, s, live.StreamOptions{Hello: route.hello, Direct: route.directWrites})
	if err != nil {
		return route.hub.TurnAway(w, r, route.logger, err)
	}
	return nil
}

// subscription reads what a client asks for.
func (route *subscribeRoute) subscription(r *http.Request) (hub.Subscription, *problem.Problem) {
	query, p := route.urls.read(r, getParameters)
	if p != nil {
		return hub.Subscription{}, p
	}
	s := hub.Subscription{
		Subscriber:  hub.Subscriber{Source: live.SourceOf(r), ClientOptions: route.options},
		LastEventID: r.Header.Get("Last-Event-ID"),
	}
	if s.LastEventID == "" {
		s.LastEventID = lastEventIDIn(r.URL.RawQuery)
	}
	wants, p := route.wishes(r, query)
	if p != nil {
		return s, p
	}
	s.Form, s.Since, s.Limit, s.Wait = wants.form, wants.since, wants.limit, wants.wait
	if s.Form == hub.Answer {
		s.ClientOptions, s.Unseen = route.polling, true
	}
	s.Gzip = route.compress && s.Form != hub.Answer && live.AcceptsGzip(r)
	if s.Topics, s.Patterns, p = route.topics.subscribed(r, query, route.maxTopics); p != nil {
		return s, p
	}
	who, p := route.access.authorizeSubscribe(r, s.Topics, s.Patterns)
	if p != nil {
		return s, p
	}
	s.User, s.Expires = who.user, who.until
	if s.User != "" && hub.CheckUser(s.User) != nil {
		return s, problem.New(http.StatusBadRequest, "%v", hub.CheckUser(s.User))
	}
	if s.ClientID = replacerOf(r).ReplaceAll(route.clientID, ""); s.ClientID == "" {
		s.ClientID, s.Generated = rand.Text(), true
	}
	if err := hub.CheckClientID(s.ClientID); err != nil {
		return s, problem.New(http.StatusBadRequest, "%v", err)
	}
	if who.foreign && !s.Generated {
		return s, problem.New(http.StatusForbidden,
			"with a token in a cookie, pages of %s may not choose a client_id; leave it out to get one, "+
				"or add that origin to cors_origins", r.Header.Get("Origin"))
	}
	if route.info != "" {
		s.Info = shownInfo(replacerOf(r).ReplaceAll(route.info, ""))
	}
	cloneStrings(&s.Subscriber)
	return s, nil
}

// lastEventIDIn returns the ID that a query brings under any of the names in use: of several the last.
func lastEventIDIn(query string) (id string) {
	for field := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(field, "=")
		if name, _ = url.QueryUnescape(name); name != "last_event_id" && !strings.EqualFold(name, "lastEventId") {
			continue
		}
		id, _ = url.QueryUnescape(value)
	}
	return id
}

// cloneStrings copies the strings that a hub keeps as long as the client is connected. They may be parts of
// the request's head, which must not be kept for them.
func cloneStrings(s *hub.Subscriber) {
	s.ClientID, s.User, s.Info = strings.Clone(s.ClientID), strings.Clone(s.User), strings.Clone(s.Info)
	for _, names := range [][]string{s.Topics, s.Patterns} {
		for i, name := range names {
			names[i] = strings.Clone(name)
		}
	}
}

// hello returns what a stream begins with: how long to wait before reconnecting, and the client's position in
// the log. An answer in JSON begins with its first message.
func (route *subscribeRoute) hello(c *hub.Client, welcome hub.Welcome) []byte {
	if c.Form == hub.Answer {
		return nil
	}
	e := eventstream.Event{ID: welcome.ID, Retry: c.Retry.Milliseconds(), HasRetry: true}
	switch {
	case route.connectedEvent:
		e.Name, e.HasData = "connected", true
		e.Data, _ = json.Marshal(struct { // strings always encode
			Status    string     `json:"status"`
			ClientID  string     `json:"client_id"`
			Generated bool       `json:"generated"`
			Topics    []string   `json:"topics"`
			Resume    hub.Resume `json:"resume"`
		}{"connected", c.ClientID, c.Generated, slices.Concat([]string{}, c.Topics, c.Patterns), welcome.Resume})
	case welcome.Resume == hub.ResumeGap:
		e.Name, e.HasData = "gap", true
		e.Data = []byte(`{"reason":"unknown_id"}`)
	}
	return c.Form.Encode(e)
}
