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

// This file says what is wrong with single values of a config: of a Caddyfile when it is read, of JSON when
// it is loaded.

// checkRouteTopic refuses what can't stand among a route's topics.
func checkRouteTopic(name string) error {
	if err := topic.CheckPattern(name); err != nil {
		return err
	}
	if err := option.CheckPlaceholders(name); err != nil {
		return err
	}
	if topic.IsPattern(name) && strings.Contains(name, "{") {
		return fmt.Errorf("%q has a wildcard and a placeholder; a topic may have one of them", name)
	}
	return nil
}

// checkClientID refuses what no client can have as its client_id.
func checkClientID(id string) error {
	return cmp.Or(option.CheckPlaceholders(id), option.UnlessPlaceholder(hub.CheckClientID)(id))
}

// checkUser refuses what can't be a user.
func checkUser(user string) error {
	return cmp.Or(option.CheckPlaceholders(user), option.UnlessPlaceholder(hub.CheckUser)(user))
}

func checkSlowClient(policy string) error {
	switch hub.SlowClient(policy) {
	case hub.CatchUp, hub.Disconnect, hub.DropOldest:
		return nil
	}
	return fmt.Errorf("%q is none of catch_up, disconnect and drop_oldest", policy)
}

func checkTarget(target string) error {
	if target != "client" && target != "user" && target != "broadcast" {
		return fmt.Errorf("%q is none of client, user and broadcast", target)
	}
	return nil
}

// checkPublishTopic refuses what can't stand among the topics of a publish block.
func checkPublishTopic(name string) error {
	if _, rest, opened := strings.Cut(name, "{"); opened && strings.Contains(rest, "}") {
		return fmt.Errorf("%s has a placeholder, which is for the topics of the route; "+
			"here topics and patterns stand as they are", name)
	}
	return topic.CheckPattern(name)
}

// checkHubName refuses what is no name of a hub. Names stand in addresses of the admin endpoint, in keys of
// Redis and in metrics.
func checkHubName(name string) error {
	if name == "" || name == "." || name == ".." || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, notHubNameRune) {
		return fmt.Errorf("%q is not a hub's name, which has 1 or more characters and none of spaces, /, { and }",
			name)
	}
	return nil
}

func notHubNameRune(r rune) bool {
	return isBlank(r) || strings.ContainsRune("/{}", r)
}

func isBlank(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// checkToken refuses what can't be sent as a bearer token. The error does not show it. (RFC 6750, section
// 2.1)
func checkToken(token string) error {
	switch {
	case token == "":
		return errors.New("a token is empty; give it a value, or nobody could be told from anybody")
	case strings.ContainsFunc(token, isBlank):
		return errors.New(
			"a token has spaces or control characters, which can't be sent in a header; leave them out")
	}
	return nil
}

func checkCookieName(name string) error {
	if (&http.Cookie{Name: name}).Valid() != nil {
		return fmt.Errorf("%q can't be the name of a cookie; give it letters and digits, such as session", name)
	}
	return nil
}

// checkTokenParameter refuses a name for the query parameter of tokens.
func checkTokenParameter(name string) error {
	switch {
	case name == "":
		return option.CheckNotEmpty(name)
	case slices.Contains(ownParameters, name):
		return fmt.Errorf("%q means something else in the query; give it a name such as token, other than %s",
			name, strings.Join(ownParameters, ", "))
	}
	return nil
}
