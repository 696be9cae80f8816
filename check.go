package sse

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/topic"
)

// check refuses values and combinations that make no sense.
func (h *Handler) check() error {
	for _, topic := range h.Topics {
		if err := checkRouteTopic(topic); err != nil {
			return &option.Error{Option: "topics", Err: err}
		}
	}
	for _, origin := range h.CORSOrigins {
		if err := checkCORSOrigin(origin); err != nil {
			return &option.Error{Option: "cors_origins", Err: err}
		}
	}
	if err := option.UnlessPlaceholder(hub.CheckClientID)(h.ClientID); h.ClientID != "" && err != nil {
		return &option.Error{Option: "client_id", Err: err}
	}
	if err := option.UnlessPlaceholder(hub.CheckUser)(h.User); h.User != "" && err != nil {
		return &option.Error{Option: "user", Err: err}
	}
	if err := checkSlowClient(cmp.Or(string(h.SlowClient), string(hub.Disconnect))); err != nil {
		return &option.Error{Option: "slow_client", Err: err}
	}
	switch {
	case len(h.CORSOrigins) > 1 && slices.Contains(h.CORSOrigins, "*"):
		return option.Wrong("cors_origins", "* stands alone; list origins to allow credentials, or use * for all without them")
	case h.QueueMessages < 0 || h.QueueBytes < 0:
		return errors.New("queue: give it 1 or more messages and bytes")
	case h.MaxTopics < 0 || h.MaxClientsPerIP < 0:
		return errors.New("max_topics and max_clients_per_ip can't be negative")
	case h.IdleTimeout < 0 || h.MaxAge < 0 || h.WriteTimeout < 0:
		return errors.New("idle_timeout, max_age and write_timeout can't be negative")
	}
	if h.JWT != nil {
		if err := h.JWT.check(); err != nil {
			return err
		}
	}
	if h.Publish == nil {
		return nil
	}
	if !h.Publish.Open && len(h.Publish.Tokens) == 0 && h.JWT == nil {
		return option.Wrong("publish", "give it a token, or a jwt block beside it, or open if other directives guard this route")
	}
	return h.Publish.check(!newTopicRules(h.Topics).asked)
}

func checkRouteTopic(name string) error {
	if err := topic.CheckPattern(name); err != nil {
		return err
	}
	if topic.IsPattern(name) && strings.Contains(name, "{") {
		return fmt.Errorf("%q has a wildcard and a placeholder; a topic may have one of them", name)
	}
	return nil
}

func checkCORSOrigin(origin string) error {
	if origin != "*" && !checkOrigin(origin) {
		return fmt.Errorf("%q is not an origin as browsers send it, such as https://app.example.com (no wildcard, no default port, nothing behind it), nor *", origin)
	}
	return nil
}

func checkSlowClient(policy string) error {
	if policy != string(hub.Disconnect) && policy != string(hub.DropOldest) {
		return fmt.Errorf("%q is neither disconnect nor drop_oldest", policy)
	}
	return nil
}

func checkTarget(target string) error {
	if target != "client" && target != "user" && target != "broadcast" {
		return fmt.Errorf("%q is none of client, user and broadcast", target)
	}
	return nil
}

// checkPublishTopic refuses placeholders beside what is no topic or pattern.
func checkPublishTopic(name string) error {
	if _, rest, opened := strings.Cut(name, "{"); opened && strings.Contains(rest, "}") {
		return fmt.Errorf("%s has a placeholder, which is for the topics of the route; here topics and patterns stand as they are", name)
	}
	return topic.CheckPattern(name)
}

func (p *PublishConfig) check(routeRestricted bool) error {
	for _, topic := range p.Topics {
		if err := checkPublishTopic(topic); err != nil {
			return &option.Error{Option: "publish: topics", Err: err}
		}
	}
	for _, target := range p.Targets {
		if err := checkTarget(target); err != nil {
			return &option.Error{Option: "publish: targets", Err: err}
		}
	}
	restricted := routeRestricted || len(p.Topics) > 0
	broadcasts := slices.Contains(p.Targets, "broadcast")
	switch {
	case p.Open && len(p.Tokens) > 0:
		return option.Wrong("publish: open", "open and token exclude each other; keep token unless other directives guard this route")
	case len(p.Targets) > 0 && !restricted:
		return option.Wrong("publish: targets", "they are for routes restricted by topics; without topics all targets are allowed")
	case p.Broadcast != nil && *p.Broadcast && restricted && !broadcasts:
		return option.Wrong("publish: broadcast", "broadcast on a route restricted by topics is allowed by: targets broadcast")
	case p.Broadcast != nil && !*p.Broadcast && broadcasts:
		return option.Wrong("publish: targets", "broadcast off and targets broadcast contradict each other")
	case p.MaxSize > largestMaxSize:
		return option.Wrong("publish: max_size", "it can be 256MiB at most")
	case p.MaxSize < 0 || p.Rate < 0 || p.Burst < 0:
		return errors.New("publish: max_size and rate can't be negative")
	}
	return nil
}

// checkHubName says what is wrong with a hub's name, which stands in addresses of the admin endpoint, in
// keys of Redis and in metrics.
func checkHubName(name string) error {
	if name == "" || name == "." || name == ".." || !utf8.ValidString(name) || strings.ContainsFunc(name, notHubNameRune) {
		return fmt.Errorf("%q is not a hub's name, which has 1 or more characters and none of spaces, /, { and }", name)
	}
	return nil
}

func notHubNameRune(r rune) bool {
	return isBlank(r) || strings.ContainsRune("/{}", r)
}

func isBlank(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// checkToken says what is wrong with a token, without showing it. (RFC 6750, section 2.1)
func checkToken(token string) error {
	switch {
	case token == "":
		return errors.New("a token is empty; give it a value, or nobody could be told from anybody")
	case strings.ContainsFunc(token, isBlank):
		return errors.New("a token has spaces or control characters, which can't be sent in a header; leave them out")
	}
	return nil
}

func checkCookieName(name string) error {
	if (&http.Cookie{Name: name}).Valid() != nil {
		return fmt.Errorf("%q can't be the name of a cookie; give it letters and digits, such as session", name)
	}
	return nil
}

// ownParameters are what a query may hold for the hub itself.
var ownParameters = []string{"topic", "client_id", "user", "last_event_id", "event", "retry", "ephemeral", "broadcast"}

// checkTokenParameter says what is wrong with the name of a query parameter for tokens.
func checkTokenParameter(name string) error {
	switch {
	case name == "":
		return option.CheckNotEmpty(name)
	case slices.Contains(ownParameters, name):
		return fmt.Errorf("%q means something else in the query; give it a name such as token, other than %s", name, strings.Join(ownParameters, ", "))
	}
	return nil
}
