package sse

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/internal/token"
	"github.com/caddy-sse/caddy-sse/topic"
)

// PublishConfig says who may publish on a route, and what.
type PublishConfig struct {
	// Bearer tokens, any of which grants publishing. Placeholders such as {env.X} are replaced when
	// the config is loaded; one that comes out empty is an error.
	Tokens []string `json:"tokens,omitempty"`
	// Leaves the decision to other directives, which already guard the route. Excludes tokens.
	Open bool `json:"open,omitempty"`
	// Topics and patterns that may be published to. Default: any.
	Topics []string `json:"topics,omitempty"`
	// What else may be addressed where topics are restricted: "client", "user", "broadcast".
	Targets []string `json:"targets,omitempty"`
	// Whether unrestricted publishers may address every client of the hub. Default: true.
	Broadcast *bool `json:"broadcast,omitempty"`
	// The largest message, in bytes of data. Default: 1 MiB; at most 256 MiB.
	MaxSize int `json:"max_size,omitempty"`
	// Messages per second that one publisher (token, user or IP address) may publish. Default: 0, no
	// limit.
	Rate float64 `json:"rate,omitempty"`
	// How many messages a publisher may send at once within its rate. Default: the rate, at least 1.
	Burst int `json:"burst,omitempty"`

	secrets [][sha256.Size]byte // the hashes of Tokens
}

// Bytes of one message's data.
const (
	defaultMaxSize = 1 << 20
	largestMaxSize = 256 << 20 // so that a chunk has room for it, be it all empty lines
)

func (p *PublishConfig) provision() error {
	option.Default(&p.MaxSize, defaultMaxSize)
	if p.Rate > 0 && p.Burst == 0 {
		p.Burst = max(1, int(p.Rate))
	}
	return p.readSecrets()
}

// publisher is who publishes.
type publisher struct {
	// name is what rates and idempotency keys are kept apart by.
	name string
	// grants limit what a token may publish to; nil for whoever may publish all that the route allows.
	grants *token.Grants
	until  time.Time // when the token expires; zero never
}

// expired says that a publisher's token has run out, perhaps in the midst of a long body.
func (p publisher) expired() *problem.Problem {
	if !p.until.IsZero() && !time.Now().Before(p.until) {
		return unauthorized("invalid_token", "%v", token.ErrExpired)
	}
	return nil
}

// readSecrets replaces the placeholders in the tokens and keeps their hashes.
func (p *PublishConfig) readSecrets() error {
	for _, token := range p.Tokens {
		secret, err := option.Fill(token)
		if err != nil {
			return fmt.Errorf("the token %w; set it, or nobody could be told from anybody", err)
		}
		if err := checkToken(secret); err != nil {
			return fmt.Errorf("the token %s: %w", option.PlaceholderOnly(token), err)
		}
		p.secrets = append(p.secrets, sha256.Sum256([]byte(secret)))
	}
	return nil
}

// access decides who may subscribe and publish on a route, and whom publishers may address.
type access struct {
	hub     *live.Hub      // which tokens are verified for
	user    string         // a placeholder for who is authenticated
	publish *PublishConfig // nil: nobody may publish
	jwt     *JWTConfig     // nil: there are no tokens but those of publish
	origins origins
	topics  topicRules
}

// authorizeSubscribe says who subscribes and until when, or why they may not subscribe to these.
func (a *access) authorizeSubscribe(r *http.Request, topics, patterns []string) (user string, until time.Time, p *problem.Problem) {
	user = a.userOf(r)
	if a.jwt == nil {
		return user, until, nil
	}
	granted := a.jwt.Public
	token, _ := a.jwt.tokenOf(r)
	if token != "" {
		said, err := a.verify(r, token)
		if err != nil {
			return "", until, unauthorized("invalid_token", "%v", err)
		}
		user = cmp.Or(said.Subject, user)
		until = said.Expiry.Time()
		granted = slices.Concat(granted, said.Grants.Subscribe)
	}
	for _, name := range slices.Concat(topics, patterns) {
		switch {
		case topic.Covered(granted, name):
		case token == "":
			return "", until, unauthorized("", "topic %q needs a token", name)
		default:
			return "", until, problem.New(http.StatusForbidden, "the token does not grant subscribing to %q", name)
		}
	}
	if token == "" && len(topics)+len(patterns) == 0 {
		return "", until, unauthorized("", "subscribing here needs a token, or a topic that is public")
	}
	return user, until, nil
}

// authorizePublish says who publishes, or why nobody may.
func (a *access) authorizePublish(r *http.Request) (publisher, *problem.Problem) {
	switch {
	case a.publish == nil:
		return publisher{}, problem.New(http.StatusForbidden,
			"publishing is not enabled on this route; to enable it, add a publish block with a token to its sse directive")
	case a.publish.Open && a.origins.foreign(r):
		return publisher{}, problem.New(http.StatusForbidden,
			"pages of %s may not publish here; to let them, add that origin to cors_origins", r.Header.Get("Origin"))
	case a.publish.Open:
		if user := a.userOf(r); user != "" {
			return publisher{name: "user " + user}, nil
		}
		return publisher{name: "address " + sourceOf(r).String()}, nil
	}
	text := bearerToken(r)
	if a.publish.hasToken(text) {
		return publisher{name: "token " + token.HashName(text)}, nil
	}
	if a.jwt != nil {
		return a.authorizeJWTPublish(r)
	}
	if text == "" {
		return publisher{}, unauthorized("", "publishing here needs a token; send it as Authorization: Bearer <token>")
	}
	return publisher{}, unauthorized("invalid_token", "the token is not one that may publish here")
}

func (a *access) authorizeJWTPublish(r *http.Request) (publisher, *problem.Problem) {
	token, byCookie := a.jwt.tokenOf(r)
	switch {
	case token == "":
		return publisher{}, unauthorized("", "publishing here needs a token; send it as Authorization: Bearer <token>")
	case byCookie && !a.origins.own(r):
		return publisher{}, problem.New(http.StatusForbidden,
			"with a token in a cookie, the Origin header must be that of this site or of cors_origins")
	}
	said, err := a.verify(r, token)
	if err != nil {
		return publisher{}, unauthorized("invalid_token", "%v", err)
	}
	who := publisher{name: "claims " + said.Name, grants: &said.Grants, until: said.Expiry.Time()}
	if said.Subject != "" {
		who.name = "user " + said.Subject
	}
	return who, nil
}

// verify reads a token, for as long as the hub takes anybody: a key set may be slow to come.
func (a *access) verify(r *http.Request, token string) (*token.Claims, error) {
	ctx, cancel := a.hub.WhileOpen(r.Context(), 0)
	defer cancel()
	return a.jwt.verifier.Verify(ctx, token)
}

// unauthorized asks for a token, or for another one. (RFC 6750, section 3)
func unauthorized(code, format string, args ...any) *problem.Problem {
	p := problem.New(http.StatusUnauthorized, format, args...)
	p.Challenge = `Bearer realm="sse"`
	if code != "" {
		p.Challenge += `, error="` + code + `"`
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
func (a *access) mayAddress(who publisher, to []hub.Address, literal []string) *problem.Problem {
	for _, target := range to {
		if who.grants != nil && !who.grants.MayPublish(target) {
			return problem.New(http.StatusForbidden, "the token does not grant publishing to %s", target)
		}
		var err error
		switch target.Kind {
		case hub.ToTopic:
			err = a.mayAddressTopic(target.Name, literal)
		case hub.ToClient:
			err = a.mayAddressTarget("client")
		case hub.ToUser:
			err = a.mayAddressTarget("user")
		case hub.ToBroadcast:
			err = a.mayAddressTarget("broadcast")
		}
		if err != nil {
			return problem.New(http.StatusForbidden, "%v", err)
		}
	}
	return nil
}

func (a *access) mayAddressTopic(name string, literal []string) error {
	if !a.topics.covers(name, literal) || len(a.publish.Topics) > 0 && !topic.Covered(a.publish.Topics, name) {
		return fmt.Errorf("topic %q is not among those that may be published to here", name)
	}
	return nil
}

func (a *access) mayAddressTarget(target string) error {
	restricted := !a.topics.asked || len(a.publish.Topics) > 0
	switch {
	case restricted && !slices.Contains(a.publish.Targets, target):
		return fmt.Errorf("this route is restricted to topics; a %s may be addressed where publish has: targets %s", target, target)
	case !restricted && target == "broadcast" && a.publish.Broadcast != nil && !*a.publish.Broadcast:
		return errors.New("broadcast is off on this route; address a topic, client_id or user")
	}
	return nil
}

// userOf returns the user that Caddy's own authentication vouches for; empty for nobody.
func (a *access) userOf(r *http.Request) string {
	return replacerOf(r).ReplaceAll(a.user, "")
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
