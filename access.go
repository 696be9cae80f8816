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
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/origin"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/internal/token"
	"github.com/caddy-sse/caddy-sse/topic"
)

// PublishConfig says who may publish on a route, and what.
type PublishConfig struct {
	// The bearer tokens. Each of them allows publishing. Placeholders such as {env.X} are replaced when the
	// config is loaded; a token that comes out empty is an error.
	Tokens []string `json:"tokens,omitempty"`
	// Whether anybody may publish, because other directives guard the route. Excludes tokens. Default: false.
	Open bool `json:"open,omitempty"`
	// The topics and patterns that may be published to. Default: any.
	Topics []string `json:"topics,omitempty"`
	// The other targets that may be addressed where topics are restricted: "client", "user", "broadcast".
	// Default: none.
	Targets []string `json:"targets,omitempty"`
	// Whether unrestricted publishers may address every client of the hub. Default: true.
	Broadcast *bool `json:"broadcast,omitempty"`
	// The size limit of a message, in bytes of data. Default: 1 MiB; at most 256 MiB.
	MaxSize int `json:"max_size,omitempty"`
	// The messages that one publisher (token, user or IP address) may publish per second. Default: 0, no
	// limit.
	Rate float64 `json:"rate,omitempty"`
	// The number of messages a publisher may send at once within its rate. Default: the rate, at least 1.
	Burst int `json:"burst,omitempty"`

	secrets [][sha256.Size]byte // the hashes of Tokens
}

// Limits of a message's data, in bytes.
const (
	defaultMaxSize = 1 << 20
	largestMaxSize = 256 << 20 // a chunk has room for it, even if every line is empty
)

// validate refuses values and combinations that make no sense. routeRestricted tells that the route has
// topics.
func (p *PublishConfig) validate(routeRestricted bool) error {
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
		return option.Wrong("publish: open",
			"open and token exclude each other; keep token unless other directives guard this route")
	case len(p.Targets) > 0 && !restricted:
		return option.Wrong("publish: targets",
			"they are for routes restricted by topics; without topics all targets are allowed")
	case p.Broadcast != nil && *p.Broadcast && restricted && !broadcasts:
		return option.Wrong("publish: broadcast",
			"broadcast on a route restricted by topics is allowed by: targets broadcast")
	case p.Broadcast != nil && !*p.Broadcast && broadcasts:
		return option.Wrong("publish: targets", "broadcast off and targets broadcast contradict each other")
	case p.MaxSize > largestMaxSize:
		return option.Wrong("publish: max_size", "it can be 256MiB at most")
	case p.MaxSize < 0 || p.Rate < 0 || p.Burst < 0:
		return errors.New("publish: max_size and rate can't be negative")
	}
	return nil
}

// provision fills in the defaults and reads the tokens.
func (p *PublishConfig) provision() error {
	option.Default(&p.MaxSize, defaultMaxSize)
	if p.Rate > 0 && p.Burst == 0 {
		p.Burst = max(1, int(p.Rate))
	}
	return p.readSecrets()
}

// readSecrets replaces the placeholders in the tokens and keeps the hashes.
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

// hasToken reports whether a token is one of the config's. It takes the same time for any token.
func (p *PublishConfig) hasToken(token string) bool {
	hash := sha256.Sum256([]byte(token))
	known := 0
	for _, secret := range p.secrets {
		known |= subtle.ConstantTimeCompare(hash[:], secret[:])
	}
	return known == 1
}

// access decides who may subscribe to a route, who may publish to it, and whom a publisher may address.
type access struct {
	hub     *live.Hub      // verifying a token ends when the hub ends
	user    string         // the placeholder for the authenticated user
	publish *PublishConfig // nil if nobody may publish
	jwt     *JWTConfig     // nil if there are no tokens but those of publish
	origins origin.List
	topics  topicRules
}

// subscriber is who subscribes.
type subscriber struct {
	user    string    // empty for nobody in particular
	until   time.Time // when the stream has to end; zero for never
	foreign bool      // whether another site's page may have the browser make the request for this user
}

// authorizeSubscribe returns who subscribes. The problem is why the client may not subscribe to these topics
// and patterns.
func (a *access) authorizeSubscribe(
	r *http.Request, topics, patterns []string,
) (who subscriber, p *problem.Problem) {
	who.user = a.userOf(r)
	if a.jwt == nil {
		return who, nil
	}
	granted := a.jwt.Public
	tokens, byCookie := a.jwt.tokensOf(r)
	if len(tokens) > 0 {
		claims, err := a.verify(r, tokens)
		if err != nil {
			return who, unauthorized("invalid_token", "%v", err)
		}
		who = subscriber{
			user:    cmp.Or(claims.Subject, who.user),
			until:   claims.Expiry.Time(),
			foreign: byCookie && r.Header.Get("Origin") != "" && !a.origins.Own(r),
		}
		granted = slices.Concat(granted, claims.Grants.Subscribe)
	}
	for _, name := range slices.Concat(topics, patterns) {
		switch {
		case topic.Covered(granted, name):
		case len(tokens) == 0:
			return who, unauthorized("", "topic %q needs a token", name)
		default:
			return who, problem.New(http.StatusForbidden, "the token does not grant subscribing to %q", name)
		}
	}
	if len(tokens) == 0 && len(topics)+len(patterns) == 0 {
		return who, unauthorized("", "subscribing here needs a token, or a topic that is public")
	}
	return who, nil
}

// publisher is who publishes.
type publisher struct {
	known  string        // the publisher as its token or user tells it; empty for one known by its address alone
	source netip.Prefix  // that address
	grants *token.Grants // of the token; nil if all that the route allows may be published
	until  time.Time     // when the token expires; zero for never
}

// name is what tells a publisher from others: each has its own rate and its own idempotency keys.
func (p publisher) name() string {
	if p.known == "" {
		return "address " + p.source.String()
	}
	return p.known
}

// checkExpiry refuses a publisher whose token has expired, perhaps in the middle of a long body.
func (p publisher) checkExpiry() *problem.Problem {
	if !p.until.IsZero() && !time.Now().Before(p.until) {
		return unauthorized("invalid_token", "%v", token.ErrExpired)
	}
	return nil
}

// authorizePublish returns who publishes, or why the request may not publish.
func (a *access) authorizePublish(r *http.Request) (publisher, *problem.Problem) {
	switch {
	case a.publish == nil:
		return publisher{}, problem.New(http.StatusForbidden,
			"publishing is not enabled on this route; to enable it, "+
				"add a publish block with a token to its sse directive")
	case a.publish.Open && a.origins.Foreign(r):
		return publisher{}, problem.New(http.StatusForbidden,
			"pages of %s may not publish here; to let them, add that origin to cors_origins", r.Header.Get("Origin"))
	case a.publish.Open:
		if user := a.userOf(r); user != "" {
			return publisher{known: "user " + user}, nil
		}
		return publisher{source: live.SourceOf(r)}, nil
	}
	bearer := bearerToken(r)
	if a.publish.hasToken(bearer) {
		return publisher{known: "token " + token.HashName(bearer)}, nil
	}
	if a.jwt != nil {
		return a.authorizeJWTPublish(r)
	}
	if bearer == "" {
		return publisher{}, tokenNeeded()
	}
	return publisher{}, unauthorized("invalid_token", "the token is not one that may publish here")
}

// authorizeJWTPublish is authorizePublish for a request that has none of the route's own tokens.
func (a *access) authorizeJWTPublish(r *http.Request) (publisher, *problem.Problem) {
	tokens, byCookie := a.jwt.tokensOf(r)
	switch {
	case len(tokens) == 0:
		return publisher{}, tokenNeeded()
	case byCookie && !a.origins.Own(r):
		return publisher{}, problem.New(http.StatusForbidden,
			"with a token in a cookie, the Origin header must be that of this site or of cors_origins")
	}
	claims, err := a.verify(r, tokens)
	if err != nil {
		return publisher{}, unauthorized("invalid_token", "%v", err)
	}
	who := publisher{known: "claims " + claims.Name, grants: &claims.Grants, until: claims.Expiry.Time()}
	if claims.Subject != "" {
		who.known = "user " + claims.Subject
	}
	return who, nil
}

// verify returns the claims of the first token that is valid, or what is wrong with the first of all. A key
// set that is slow to come does not delay the exit.
func (a *access) verify(r *http.Request, tokens []string) (claims *token.Claims, err error) {
	ctx, cancel := a.hub.WhileOpen(r.Context())
	defer cancel()
	for _, token := range tokens {
		claims, wrong := a.jwt.verifier.Verify(ctx, token)
		if wrong == nil {
			return claims, nil
		}
		err = cmp.Or(err, wrong)
	}
	return nil, err
}

// tokenNeeded asks a publisher for a token.
func tokenNeeded() *problem.Problem {
	return unauthorized("", "publishing here needs a token; send it as Authorization: Bearer <token>")
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

// checkAddresses refuses addresses that a publisher may not use. The route must allow them and, if there is a
// token, its grants. The topics are those of the route for this request.
func (a *access) checkAddresses(who publisher, to []hub.Address, topics routeTopics) *problem.Problem {
	for _, target := range to {
		if who.grants != nil && !who.grants.MayPublish(target) {
			return problem.New(http.StatusForbidden, "the token does not grant publishing to %s", target)
		}
		var err error
		switch target.Kind {
		case hub.ToTopic:
			err = a.allowTopic(target.Name, topics)
		case hub.ToClient:
			err = a.allowTarget("client")
		case hub.ToUser:
			err = a.allowTarget("user")
		case hub.ToBroadcast:
			err = a.allowTarget("broadcast")
		}
		if err != nil {
			return problem.New(http.StatusForbidden, "%v", err)
		}
	}
	return nil
}

func (a *access) allowTopic(name string, topics routeTopics) error {
	if !topics.covers(name) || len(a.publish.Topics) > 0 && !topic.Covered(a.publish.Topics, name) {
		return fmt.Errorf("topic %q is not among those that may be published to here", name)
	}
	return nil
}

func (a *access) allowTarget(target string) error {
	restricted := !a.topics.fromQuery || len(a.publish.Topics) > 0
	switch {
	case restricted && !slices.Contains(a.publish.Targets, target):
		return fmt.Errorf("this route is restricted to topics; a %s may be addressed where publish has: targets %s",
			target, target)
	case !restricted && target == "broadcast" && a.publish.Broadcast != nil && !*a.publish.Broadcast:
		return errors.New("broadcast is off on this route; address a topic, client_id or user")
	}
	return nil
}

// userOf returns the user that Caddy has authenticated; empty for nobody.
func (a *access) userOf(r *http.Request) string {
	return replacerOf(r).ReplaceAll(a.user, "")
}
