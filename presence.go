package sse

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/topic"
)

// asksWhoIsThere reports whether a GET asks for the presence of a topic instead of its messages. A parameter that the
// route's own config takes from the query is not for us.
func (route *subscribeRoute) asksWhoIsThere(r *http.Request) bool {
	return strings.Contains(r.URL.RawQuery, "presence") && r.URL.Query().Has("presence") &&
		!slices.Contains(route.urls.named, "presence")
}

// servePresence answers who is at a topic.
func (route *subscribeRoute) servePresence(w http.ResponseWriter, r *http.Request) error {
	now, refusal := route.presence(r)
	if refusal != nil {
		route.hub.LogRefusal(route.logger, r, refusal)
		return problem.Write(w, refusal)
	}
	return writeAnswer(w, now)
}

// presence returns who is at the topic that a request names, to whoever may subscribe to it.
func (route *subscribeRoute) presence(r *http.Request) (now hub.Presence, p *problem.Problem) {
	query, p := route.urls.read(r, getParameters)
	if p != nil {
		return now, p
	}
	name, p := presenceTopic(query)
	if p != nil {
		return now, p
	}
	topics, p := route.topics.of(r)
	if p != nil {
		return now, p
	}
	if !topics.covers(name) {
		return now, problem.New(http.StatusForbidden, "topic %q is not among those of this route", name)
	}
	if _, p := route.access.authorizeSubscribe(r, []string{name}, nil); p != nil {
		return now, p
	}
	now, ok := route.hub.Core.PresenceOf(name)
	if !ok {
		return now, problem.New(http.StatusBadRequest,
			"topic %q has no presence; to turn it on, give the hub a block: topic %s { presence on }", name, name)
	}
	return now, nil
}

// presenceTopic returns the topic whose presence a query asks for.
func presenceTopic(query url.Values) (string, *problem.Problem) {
	names := query["presence"]
	if len(names) > 1 {
		return "", problem.New(http.StatusBadRequest, "presence stands in the URL %d times; ask for one topic at a time",
			len(names))
	}
	if topic.IsPattern(names[0]) {
		return "", problem.New(http.StatusBadRequest,
			"%q is a pattern; presence is told of one topic at a time", names[0])
	}
	if err := topic.Check(names[0]); err != nil {
		return "", problem.New(http.StatusBadRequest, "presence: %v", err)
	}
	return names[0], nil
}

// shownInfo returns what others see of a client, cut to what may be shown.
func shownInfo(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= hub.MaxInfoBytes {
		return text
	}
	end := hub.MaxInfoBytes
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
