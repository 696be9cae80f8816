package sse

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/topic"
	"github.com/caddyserver/caddy/v2"
)

// publisher is who publishes.
type publisher struct {
	// name is what rates and idempotency keys are kept apart by.
	name string
	// grants limit what a token may publish to; nil for whoever may publish all that the route allows.
	grants *grants
	until  time.Time // when the token expires; zero never
}

// expired says that a publisher's token has run out, perhaps in the midst of a long body.
func (p publisher) expired() *problem {
	if !p.until.IsZero() && !time.Now().Before(p.until) {
		return unauthorized("invalid_token", "%v", errExpired)
	}
	return nil
}

// readSecrets replaces the placeholders in the tokens and keeps their hashes.
func (p *PublishConfig) readSecrets() error {
	for _, token := range p.Tokens {
		secret, err := filledIn(token)
		if err != nil {
			return fmt.Errorf("the token %w; set it, or nobody could be told from anybody", err)
		}
		if err := checkToken(secret); err != nil {
			return fmt.Errorf("the token %s: %w", placeholderOnly(token), err)
		}
		p.secrets = append(p.secrets, sha256.Sum256([]byte(secret)))
	}
	return nil
}

// filledIn returns a config value with its placeholders replaced, each of which must be set. No error holds a secret.
func filledIn(value string) (string, error) {
	text, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil || text == "" {
		return "", fmt.Errorf("%s is empty or not set", placeholderOnly(value))
	}
	return text, nil
}

// secretPlaceholder is what a secret is mostly given as. Anything else in braces may be the secret.
var secretPlaceholder = regexp.MustCompile(`^\{(env|file)\.[^{}]+\}$`)

// placeholderOnly returns a config value for an error message: its placeholder, never a secret.
func placeholderOnly(value string) string {
	if secretPlaceholder.MatchString(value) {
		return value
	}
	return "(not shown)"
}

// authorizeSubscribe says who subscribes and until when, or why they may not subscribe to these.
func (h *Handler) authorizeSubscribe(r *http.Request, topics, patterns []string) (user string, until time.Time, p *problem) {
	user = h.userOf(r)
	if h.JWT == nil {
		return user, until, nil
	}
	granted := h.JWT.Public
	token, _ := h.JWT.tokenOf(r)
	if token != "" {
		said, err := h.verify(r, token)
		if err != nil {
			return "", until, unauthorized("invalid_token", "%v", err)
		}
		user = cmp.Or(said.Subject, user)
		until = said.Expiry.Time()
		granted = slices.Concat(granted, said.grants.Subscribe)
	}
	for _, name := range slices.Concat(topics, patterns) {
		switch {
		case topic.Covered(granted, name):
		case token == "":
			return "", until, unauthorized("", "topic %q needs a token", name)
		default:
			return "", until, problemf(http.StatusForbidden, "the token does not grant subscribing to %q", name)
		}
	}
	if token == "" && len(topics)+len(patterns) == 0 {
		return "", until, unauthorized("", "subscribing here needs a token, or a topic that is public")
	}
	return user, until, nil
}

// authorizePublish says who publishes, or why nobody may.
func (h *Handler) authorizePublish(r *http.Request) (publisher, *problem) {
	switch {
	case h.Publish == nil:
		return publisher{}, problemf(http.StatusForbidden,
			"publishing is not enabled on this route; to enable it, add a publish block with a token to its sse directive")
	case h.Publish.Open && h.foreignOrigin(r):
		return publisher{}, problemf(http.StatusForbidden,
			"pages of %s may not publish here; to let them, add that origin to cors_origins", r.Header.Get("Origin"))
	case h.Publish.Open:
		if user := h.userOf(r); user != "" {
			return publisher{name: "user " + user}, nil
		}
		return publisher{name: "address " + sourceOf(r).String()}, nil
	}
	token := bearerToken(r)
	if h.Publish.hasToken(token) {
		return publisher{name: "token " + hashName(token)}, nil
	}
	if h.JWT != nil {
		return h.authorizeJWTPublish(r)
	}
	if token == "" {
		return publisher{}, unauthorized("", "publishing here needs a token; send it as Authorization: Bearer <token>")
	}
	return publisher{}, unauthorized("invalid_token", "the token is not one that may publish here")
}

func (h *Handler) authorizeJWTPublish(r *http.Request) (publisher, *problem) {
	token, byCookie := h.JWT.tokenOf(r)
	switch {
	case token == "":
		return publisher{}, unauthorized("", "publishing here needs a token; send it as Authorization: Bearer <token>")
	case byCookie && !h.ownOrigin(r):
		return publisher{}, problemf(http.StatusForbidden,
			"with a token in a cookie, the Origin header must be that of this site or of cors_origins")
	}
	said, err := h.verify(r, token)
	if err != nil {
		return publisher{}, unauthorized("invalid_token", "%v", err)
	}
	who := publisher{name: "claims " + said.name, grants: &said.grants, until: said.Expiry.Time()}
	if said.Subject != "" {
		who.name = "user " + said.Subject
	}
	return who, nil
}

// verify reads a token, for as long as the hub takes anybody: a key set may be slow to come.
func (h *Handler) verify(r *http.Request, token string) (*claims, error) {
	ctx, cancel := h.hub.whileOpen(r.Context(), 0)
	defer cancel()
	return h.JWT.verifier.verify(ctx, token)
}

// unauthorized asks for a token, or for another one. (RFC 6750, section 3)
func unauthorized(code, format string, args ...any) *problem {
	p := problemf(http.StatusUnauthorized, format, args...)
	p.challenge = `Bearer realm="sse"`
	if code != "" {
		p.challenge += `, error="` + code + `"`
	}
	return p
}

// hasToken reports whether a token is one of the config's, taking the same time whichever it is.
func (p *PublishConfig) hasToken(token string) bool {
	hash := sha256.Sum256([]byte(token))
	known := 0
	for _, secret := range p.secrets {
		known |= subtle.ConstantTimeCompare(hash[:], secret[:])
	}
	return known == 1
}

func bearerToken(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// mayAddress says why a publisher on this route may not address these: the route and, where there is
// one, the token must allow it.
func (h *Handler) mayAddress(who publisher, to []Address, literal []string) *problem {
	for _, a := range to {
		if who.grants != nil && !who.grants.mayPublish(a) {
			return problemf(http.StatusForbidden, "the token does not grant publishing to %s", a)
		}
		var err error
		switch a.Kind {
		case ToTopic:
			err = h.mayAddressTopic(a.Name, literal)
		case ToClient:
			err = h.mayAddressTarget("client")
		case ToUser:
			err = h.mayAddressTarget("user")
		case ToBroadcast:
			err = h.mayAddressTarget("broadcast")
		}
		if err != nil {
			return problemf(http.StatusForbidden, "%v", err)
		}
	}
	return nil
}

func (h *Handler) mayAddressTopic(name string, literal []string) error {
	if !h.topics.covers(name, literal) || len(h.Publish.Topics) > 0 && !topic.Covered(h.Publish.Topics, name) {
		return fmt.Errorf("topic %q is not among those that may be published to here", name)
	}
	return nil
}

func (h *Handler) mayAddressTarget(target string) error {
	restricted := !h.topics.asked || len(h.Publish.Topics) > 0
	switch {
	case restricted && !slices.Contains(h.Publish.Targets, target):
		return fmt.Errorf("this route is restricted to topics; a %s may be addressed where publish has: targets %s", target, target)
	case !restricted && target == "broadcast" && h.Publish.Broadcast != nil && !*h.Publish.Broadcast:
		return errors.New("broadcast is off on this route; address a topic, client_id or user")
	}
	return nil
}
