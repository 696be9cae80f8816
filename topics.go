package sse

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/topic"
)

// queryTopics is the placeholder that stands for every ?topic= of the request.
const queryTopics = "{http.request.uri.query.topic}"

// topicRules are the option `topics` of a route: what its clients receive, and what may be published there.
type topicRules struct {
	fromQuery bool     // the request chooses by ?topic=: there is no option, or queryTopics is in it
	patterns  []string // those with wildcards
	templates []string // literal topics, perhaps with placeholders
}

func newTopicRules(topics []string) topicRules {
	rules := topicRules{fromQuery: len(topics) == 0}
	for _, name := range topics {
		switch {
		case name == queryTopics:
			rules.fromQuery = true
		case topic.IsPattern(name):
			rules.patterns = append(rules.patterns, name)
		default:
			rules.templates = append(rules.templates, name)
		}
	}
	return rules
}

// routeTopics are what a route's option names for one request.
type routeTopics struct {
	fromQuery bool
	topics    []string // literal ones
	patterns  []string
}

// of returns the route's topics and patterns for one request. A topic whose placeholders come out empty is
// left out. A value with a "*" is refused, unless it comes from the site's backend: room/{query.room} must not
// open every room.
func (t topicRules) of(r *http.Request) (named routeTopics, p *problem.Problem) {
	named = routeTopics{fromQuery: t.fromQuery, patterns: slices.Clone(t.patterns)}
	for _, template := range t.templates {
		if header, ok := backendHeader(template); ok {
			err := named.add(replacerOf(r).ReplaceAll(template, ""))
			if err != nil {
				return named, problem.New(http.StatusBadRequest, "the header %s of the backend: %v", header, err)
			}
			continue
		}
		name, p := expandTopic(template, replacerOf(r))
		if p != nil {
			return named, p
		}
		if name != "" {
			named.topics = append(named.topics, name)
		}
	}
	return named, nil
}

// add adds the topics and patterns of a list with commas.
func (n *routeTopics) add(list string) error {
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if err := topic.CheckPattern(name); err != nil {
			return err
		}
		if topic.IsPattern(name) {
			n.patterns = append(n.patterns, name)
		} else {
			n.topics = append(n.topics, name)
		}
	}
	return nil
}

// covers reports whether a topic is among those of the route, so that it may be published here.
func (n routeTopics) covers(name string) bool {
	return n.fromQuery || slices.Contains(n.topics, name) || topic.Covered(n.patterns, name)
}

// expandTopic replaces the placeholders of a topic. It returns "" if one of them is empty. One that is only a
// part of the topic stands for one segment.
func expandTopic(template string, replacer *caddy.Replacer) (name string, p *problem.Problem) {
	empty := false
	name, _ = replacer.ReplaceFunc(template, func(key string, value any) (any, error) {
		text := caddy.ToString(value)
		if strings.Contains(text, "/") && template != "{"+key+"}" {
			p = problem.New(http.StatusBadRequest, "%q holds a /, but stands for one segment of a topic", text)
		}
		if strings.Contains(text, "*") {
			p = problem.New(http.StatusBadRequest,
				"%q holds a *; a pattern may come from ?topic= only, and only as a whole topic", text)
		}
		empty = empty || text == ""
		return value, nil
	})
	if empty || p != nil {
		return "", p
	}
	if err := topic.Check(name); err != nil {
		return "", problem.New(http.StatusBadRequest, "%v", err)
	}
	return name, nil
}

// subscribed returns the topics and patterns that a GET subscribes to on this route.
func (t topicRules) subscribed(
	r *http.Request, query url.Values, limit int,
) (topics, patterns []string, p *problem.Problem) {
	named, p := t.of(r)
	if p != nil {
		return nil, nil, p
	}
	topics, patterns = named.topics, named.patterns
	if t.fromQuery {
		for _, name := range query["topic"] {
			if err := topic.CheckPattern(name); err != nil {
				return nil, nil, problem.New(http.StatusBadRequest, "%v", err)
			}
			if topic.IsPattern(name) {
				patterns = append(patterns, name)
			} else {
				topics = append(topics, name)
			}
		}
	}
	topics, patterns = topic.Distinct(topics), topic.Distinct(patterns)
	if n := len(topics) + len(patterns); n > limit {
		return nil, nil, problem.New(http.StatusBadRequest,
			"%d topics are too many for one client; the limit is %d", n, limit)
	}
	return topics, patterns, nil
}

// replacerOf returns what replaces placeholders for a request.
func replacerOf(r *http.Request) *caddy.Replacer {
	return r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}
