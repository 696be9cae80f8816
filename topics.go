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

// topicRules is a route's own `topics`: what its clients receive, and what may be published there.
type topicRules struct {
	asked     bool     // {query.topic} stands among them, or there are none: the request chooses
	patterns  []string // with wildcards, as they stand in the config
	templates []string // literal topics, perhaps with placeholders
}

func newTopicRules(topics []string) topicRules {
	rules := topicRules{asked: len(topics) == 0}
	for _, name := range topics {
		switch {
		case name == queryTopics:
			rules.asked = true
		case topic.IsPattern(name):
			rules.patterns = append(rules.patterns, name)
		default:
			rules.templates = append(rules.templates, name)
		}
	}
	return rules
}

// literal returns the route's literal topics for one request. One whose placeholders come out empty
// is left out; a value that holds a "*" is refused, lest room/{query.room} open every room.
func (t topicRules) literal(r *http.Request) ([]string, *problem.Problem) {
	var topics []string
	for _, template := range t.templates {
		topic, p := expandTopic(template, replacerOf(r))
		if p != nil {
			return nil, p
		}
		if topic != "" {
			topics = append(topics, topic)
		}
	}
	return topics, nil
}

func expandTopic(template string, replacer *caddy.Replacer) (name string, p *problem.Problem) {
	empty := false
	name, _ = replacer.ReplaceFunc(template, func(_ string, value any) (any, error) {
		text := caddy.ToString(value)
		if strings.Contains(text, "*") {
			p = problem.New(http.StatusBadRequest, "%q holds a *; a pattern may come from ?topic= only, and only as a whole topic", text)
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

// subscribed returns what a GET asks for on this route: topics, and patterns.
func (t topicRules) subscribed(r *http.Request, query url.Values, limit int) (topics, patterns []string, p *problem.Problem) {
	if topics, p = t.literal(r); p != nil {
		return nil, nil, p
	}
	patterns = slices.Clone(t.patterns)
	if t.asked {
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
		return nil, nil, problem.New(http.StatusBadRequest, "%d topics are too many for one client; the limit is %d", n, limit)
	}
	return topics, patterns, nil
}

// covers reports whether a topic lies within what may be published on this route.
func (t topicRules) covers(name string, literal []string) bool {
	return t.asked || slices.Contains(literal, name) || topic.Covered(t.patterns, name)
}

func replacerOf(r *http.Request) *caddy.Replacer {
	return r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}
