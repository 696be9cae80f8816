package sse

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
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
	for _, topic := range topics {
		switch {
		case topic == queryTopics:
			rules.asked = true
		case isPattern(topic):
			rules.patterns = append(rules.patterns, topic)
		default:
			rules.templates = append(rules.templates, topic)
		}
	}
	return rules
}

// literal returns the route's literal topics for one request. One whose placeholders come out empty
// is left out; a value that holds a "*" is refused, lest room/{query.room} open every room.
func (t topicRules) literal(r *http.Request) ([]string, *problem) {
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

func expandTopic(template string, replacer *caddy.Replacer) (topic string, p *problem) {
	empty := false
	topic, _ = replacer.ReplaceFunc(template, func(_ string, value any) (any, error) {
		text := caddy.ToString(value)
		if strings.Contains(text, "*") {
			p = problemf(http.StatusBadRequest, "%q holds a *; a pattern may come from ?topic= only, and only as a whole topic", text)
		}
		empty = empty || text == ""
		return value, nil
	})
	if empty || p != nil {
		return "", p
	}
	if err := CheckTopic(topic); err != nil {
		return "", problemf(http.StatusBadRequest, "%v", err)
	}
	return topic, nil
}

// subscribed returns what a GET asks for on this route: topics, and patterns.
func (t topicRules) subscribed(r *http.Request, query url.Values, limit int) (topics, patterns []string, p *problem) {
	if topics, p = t.literal(r); p != nil {
		return nil, nil, p
	}
	patterns = slices.Clone(t.patterns)
	if t.asked {
		for _, topic := range query["topic"] {
			if err := CheckPattern(topic); err != nil {
				return nil, nil, problemf(http.StatusBadRequest, "%v", err)
			}
			if isPattern(topic) {
				patterns = append(patterns, topic)
			} else {
				topics = append(topics, topic)
			}
		}
	}
	topics, patterns = distinct(topics), distinct(patterns)
	if n := len(topics) + len(patterns); n > limit {
		return nil, nil, problemf(http.StatusBadRequest, "%d topics are too many for one client; the limit is %d", n, limit)
	}
	return topics, patterns, nil
}

// covers reports whether a topic lies within what may be published on this route.
func (t topicRules) covers(topic string, literal []string) bool {
	return t.asked || slices.Contains(literal, topic) || covered(t.patterns, topic)
}

// covered reports whether one of the patterns, or topics, takes in the topic.
func covered(patterns []string, topic string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, topic) })
}

// distinct sorts names and drops what is there twice.
func distinct(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

func replacerOf(r *http.Request) *caddy.Replacer {
	return r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}
