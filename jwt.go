package sse

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/token"
	"github.com/caddy-sse/caddy-sse/topic"
)

// JWTConfig lets JSON Web Tokens (RFC 7519) say who may subscribe to what, and publish. The claim "sse" of a
// token holds its grants, "sub" is the user, and its stream ends at "exp".
type JWTConfig struct {
	// The keys that tokens may be signed with. Default: none; then JWKS is needed.
	Keys []JWTKey `json:"keys,omitempty"`
	// The address of a JSON Web Key Set (RFC 7517) with further keys: https, or http on loopback.
	// Placeholders as in a key. Default: none.
	JWKS string `json:"jwks,omitempty"`
	// The value that a token's "iss" must have. Placeholders as in a key. Default: any.
	Issuer string `json:"issuer,omitempty"`
	// The value that a token's "aud" must hold. Placeholders as in a key. Default: any.
	Audience string `json:"audience,omitempty"`
	// The cookie that may hold a token, beside Authorization: Bearer. Default: none.
	Cookie string `json:"cookie,omitempty"`
	// The query parameter that may hold a token. It is the last resort, since URLs get logged.
	// Default: none.
	Query string `json:"query,omitempty"`
	// The topics and patterns that anybody may subscribe to, without a token. Default: none.
	Public []string `json:"public,omitempty"`

	address  string // JWKS with its placeholders replaced
	verifier token.Verifier
}

// JWTKey is one key that tokens may be signed with.
type JWTKey struct {
	// The only algorithm that the key is used with: HS, RS, PS or ES with 256, 384 or 512, or EdDSA.
	Algorithm string `json:"algorithm,omitempty"`
	// The key. For an HS algorithm it is the secret, at least as long as the hash; for the others it is the
	// public key, or a certificate, in PEM form. Placeholders such as {env.X} and {file.X} are replaced when
	// the config is loaded; a key that comes out empty is an error.
	Key string `json:"key,omitempty"`
	// The key's ID. A token that names one is verified by the keys with that ID, and by those without.
	// Default: none, for any token.
	ID string `json:"id,omitempty"`
}

// validate refuses values that make no sense. Placeholders are not replaced yet.
func (c *JWTConfig) validate() error {
	if len(c.Keys) == 0 && c.JWKS == "" {
		return option.Wrong("jwt", "give it a key or a jwks address, or no token could be accepted")
	}
	for _, k := range c.Keys {
		if err := k.validate(); err != nil {
			return &option.Error{Option: "jwt: key", Err: err}
		}
	}
	for _, name := range c.Public {
		if err := topic.CheckPattern(name); err != nil {
			return &option.Error{Option: "jwt: public", Err: err}
		}
	}
	for _, set := range []struct {
		option, value string
		check         func(string) error
	}{
		{"jwt: jwks", c.JWKS, option.UnlessPlaceholder(token.CheckJWKSAddress)},
		{"jwt: cookie", c.Cookie, checkCookieName},
		{"jwt: query", c.Query, checkTokenParameter},
	} {
		if err := set.check(set.value); set.value != "" && err != nil {
			return &option.Error{Option: set.option, Err: err}
		}
	}
	return nil
}

// provision replaces the placeholders and reads the keys. It touches no network.
func (c *JWTConfig) provision() error {
	if err := c.validate(); err != nil {
		return err
	}
	for _, k := range c.Keys {
		key, err := k.read()
		if err != nil {
			return &option.Error{Option: "jwt: key", Err: err}
		}
		c.verifier.Keys = append(c.verifier.Keys, token.Key{
			ID:        k.ID,
			Algorithm: jose.SignatureAlgorithm(k.Algorithm),
			Public:    key,
		})
	}
	for _, claim := range []struct {
		option, value string
		field         *string
	}{{"issuer", c.Issuer, &c.verifier.Issuer}, {"audience", c.Audience, &c.verifier.Audience}} {
		if claim.value == "" {
			continue
		}
		var err error
		if *claim.field, err = option.Fill(claim.value); err != nil {
			err = fmt.Errorf("%w; leave the option out to take any", err)
			return &option.Error{Option: "jwt: " + claim.option, Err: err}
		}
	}
	if c.JWKS != "" {
		c.address = caddy.NewReplacer().ReplaceAll(c.JWKS, "")
		if err := token.CheckJWKSAddress(c.address); err != nil {
			return &option.Error{Option: "jwt: jwks", Err: err}
		}
	}
	return nil
}

// validate refuses an unknown algorithm, and a key that can't be used with the algorithm.
func (k JWTKey) validate() error {
	if !token.KnownAlgorithm(k.Algorithm) {
		return fmt.Errorf("the algorithm%s is none of HS256, HS384, HS512, RS256, RS384, RS512, "+
			"PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA", quotedIfShort(k.Algorithm))
	}
	return option.UnlessPlaceholder(func(string) error {
		_, err := k.read()
		return err
	})(k.Key)
}

// read replaces the placeholders and reads the key as the algorithm needs it.
func (k JWTKey) read() (any, error) {
	text, err := option.Fill(k.Key)
	if err != nil {
		return nil, fmt.Errorf("the %s key %w", k.Algorithm, err)
	}
	key, err := token.ReadKey(jose.SignatureAlgorithm(k.Algorithm), text)
	if err != nil {
		return nil, fmt.Errorf("the %s key: %w%s", k.Algorithm, err, k.pathAdvice())
	}
	return key, nil
}

// aPath is how the path of a file begins.
var aPath = regexp.MustCompile(`^(/|\./|\.\./|[A-Za-z]:[/\\])[^{}\s]+$`)

// pathAdvice says what to write if the key, which can't be used, looks like the path of a file. What may be a
// secret is not shown.
func (k JWTKey) pathAdvice() string {
	switch {
	case !aPath.MatchString(k.Key):
		return ""
	case strings.HasPrefix(k.Algorithm, "HS"):
		return "; to read it from a file, write {file./path/of/the/file}"
	}
	return fmt.Sprintf("; to read it from that file, write {file.%s}", k.Key)
}

// maxCookies is how many cookies of one name are tried. Browsers send one for each domain and path that has
// set it.
const maxCookies = 20

// tokensOf returns the tokens of a request, any of which may be the right one; none if it has none. byCookie
// warns that the browser may have sent them for the page of another site.
func (c *JWTConfig) tokensOf(r *http.Request) (tokens []string, byCookie bool) {
	if token := bearerToken(r); token != "" {
		return []string{token}, false
	}
	if c.Cookie != "" {
		for _, cookie := range r.CookiesNamed(c.Cookie) {
			if cookie.Value != "" && len(tokens) < maxCookies {
				tokens = append(tokens, cookie.Value)
			}
		}
	}
	if len(tokens) > 0 {
		return tokens, true
	}
	if c.Query != "" {
		if token := r.URL.Query().Get(c.Query); token != "" {
			return []string{token}, false
		}
	}
	return nil, false
}

// bearerToken returns the token of the Authorization header; empty for none.
func bearerToken(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// quotedIfShort quotes a word for an error message. It drops a long one: in a key option it may be the
// secret.
func quotedIfShort(word string) string {
	if len(word) > len("HS256")+3 {
		return ""
	}
	return fmt.Sprintf(" %q", word)
}
