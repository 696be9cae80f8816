package mercure

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/origin"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/internal/token"
)

// maxCookies is how many cookies of one name are tried. Browsers send one for each domain and path that has set it.
const maxCookies = 20

// tokensOf returns the tokens of a request, of which any may be the right one; none if it has none. The first place
// that has one counts: the header, the query, the cookie.
func (h *Handler) tokensOf(r *http.Request, query url.Values) (tokens []string, byCookie bool) {
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if bearer = strings.TrimSpace(bearer); bearer != "" && strings.EqualFold(scheme, "Bearer") {
		return []string{bearer}, false
	}
	if text := query.Get("authorization"); text != "" {
		return []string{text}, false
	}
	for _, cookie := range r.CookiesNamed(h.CookieName) {
		if cookie.Value != "" && len(tokens) < maxCookies {
			tokens = append(tokens, cookie.Value)
		}
	}
	return tokens, len(tokens) > 0
}

// verify returns the claims of the first token that is valid, or what is wrong with the first of all. A key set that
// is slow to come does not delay the exit.
func (h *Handler) verify(r *http.Request, v *verifier, tokens []string) (*token.MercureClaims, error) {
	ctx, cancel := h.live.WhileOpen(r.Context())
	defer cancel()
	var first error
	for _, text := range tokens {
		claims, err := v.VerifyMercure(ctx, text)
		if err == nil {
			return claims, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// subscriber is who subscribes.
type subscriber struct {
	known   bool           // it has a token
	granted *hub.Selectors // of private updates; nil for none
	payload string         // what the token tells of it, as JSON; empty for nothing
	expires time.Time      // when the stream has to end; zero for never
}

// authorizeSubscriber returns who subscribes. Any valid token may subscribe to anything: what it grants limits
// private updates only.
func (h *Handler) authorizeSubscriber(r *http.Request, query url.Values) (subscriber, *problem.Problem) {
	tokens, _ := h.tokensOf(r, query)
	switch {
	case len(tokens) == 0 && h.Anonymous:
		return subscriber{}, nil
	case len(tokens) == 0:
		return subscriber{}, unauthorized("", "subscribing here needs a token: "+
			"in the header Authorization, or in the cookie %s", h.CookieName)
	case !h.subscribers.some():
		return subscriber{}, unauthorized("invalid_token", "the hub has no key for the tokens of subscribers "+
			"(subscriber_jwt); leave the token out")
	}
	claims, err := h.verify(r, &h.subscribers, tokens)
	if err != nil {
		return subscriber{}, unauthorized("invalid_token", "%v", err)
	}
	granted, err := selectorsOf(claims.Subscribe)
	if err != nil {
		return subscriber{}, problem.New(http.StatusForbidden, "the token's mercure.subscribe: %v", err)
	}
	return subscriber{true, granted, string(claims.Payload), claims.Expiry}, nil
}

// selectorsOf reads selectors; nil if there are none.
func selectorsOf(names []string) (*hub.Selectors, error) {
	if len(names) == 0 {
		return nil, nil
	}
	return hub.ParseSelectors(names...)
}

// publisher is who publishes.
type publisher struct {
	name    string // each publisher has its own rate
	claims  *token.MercureClaims
	granted *hub.Selectors
}

// authorizePublisher returns who publishes, or why the request may not.
func (h *Handler) authorizePublisher(r *http.Request, query url.Values) (*publisher, *problem.Problem) {
	if !h.publishers.some() {
		return nil, problem.New(http.StatusForbidden, "nobody may publish here: the hub has no key for the tokens "+
			"of publishers; to enable it, add publisher_jwt")
	}
	tokens, byCookie := h.tokensOf(r, query)
	if len(tokens) == 0 {
		return nil, unauthorized("", "publishing here needs a token; send it as Authorization: Bearer <token>")
	}
	if byCookie {
		if refusal := h.checkOrigin(r); refusal != nil {
			return nil, refusal
		}
	}
	claims, err := h.verify(r, &h.publishers, tokens)
	if err != nil {
		return nil, unauthorized("invalid_token", "%v", err)
	}
	granted, err := selectorsOf(claims.Publish)
	if err != nil {
		return nil, problem.New(http.StatusForbidden, "the token's mercure.publish: %v", err)
	}
	return &publisher{"claims " + claims.Name, claims, granted}, nil
}

// checkOrigin refuses a request with a token in a cookie that the page of another site may have made the browser send.
func (h *Handler) checkOrigin(r *http.Request) *problem.Problem {
	from := r.Header.Get("Origin")
	if from == "" {
		if referer, err := url.Parse(r.Header.Get("Referer")); err == nil && referer.Host != "" {
			from = referer.Scheme + "://" + referer.Host
		}
	}
	origins := origin.List(h.PublishOrigins)
	switch {
	case from == "":
		return problem.New(http.StatusForbidden, "with a token in a cookie, the request needs an Origin or a Referer")
	case origins.Any(), origins.Allows(r, from):
		return nil
	}
	return problem.New(http.StatusForbidden,
		"pages of %s may not publish here with a token in a cookie; to let them, add that origin to publish_origins",
		from)
}

// mayPublish refuses topics that the token does not grant, or that are the hub's own.
func (p *publisher) mayPublish(topics []string) *problem.Problem {
	for _, topic := range topics {
		switch {
		case topic == Path || strings.HasPrefix(topic, Path+"/"):
			return problem.New(http.StatusForbidden, "topic %q is the hub's own; choose another", topic)
		case p.granted.Match(topic):
		case !p.claims.Granted:
			return problem.New(http.StatusForbidden, "the token has no claim mercure, which says what it may publish")
		case p.granted == nil:
			return problem.New(http.StatusForbidden, "the token may publish nothing: its mercure.publish is missing, "+
				"or no list of topic selectors")
		default:
			return problem.New(http.StatusForbidden, "the token does not grant publishing to topic %q; "+
				"its mercure.publish has to match each topic of the update", topic)
		}
	}
	return nil
}

// unauthorized asks for a token, or for another one. (RFC 6750, section 3)
func unauthorized(code, format string, args ...any) *problem.Problem {
	p := problem.New(http.StatusUnauthorized, format, args...)
	p.Challenge = `Bearer realm="mercure"`
	if code != "" {
		p.Challenge += fmt.Sprintf(`, error=%q`, code)
	}
	return p
}
