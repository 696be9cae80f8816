package sse

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/topic"
	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// JWTConfig lets JSON Web Tokens (RFC 7519) say who may subscribe to what, and publish. A token's
// claim "sse" holds its grants; its "sub" is the user, and its stream ends at "exp".
type JWTConfig struct {
	// Keys that tokens may be signed with. Default: none; JWKS is needed then.
	Keys []JWTKey `json:"keys,omitempty"`
	// The address of a JSON Web Key Set (RFC 7517) with further keys: https, or http on loopback; placeholders as
	// in a key. Default: none.
	JWKS string `json:"jwks,omitempty"`
	// What a token's "iss" must be; placeholders as in a key. Default: anything.
	Issuer string `json:"issuer,omitempty"`
	// What a token's "aud" must hold; placeholders as in a key. Default: anything.
	Audience string `json:"audience,omitempty"`
	// The cookie that a token may stand in, beside Authorization: Bearer. Default: none.
	Cookie string `json:"cookie,omitempty"`
	// The query parameter that a token may stand in; the last resort, since URLs get logged.
	// Default: none.
	Query string `json:"query,omitempty"`
	// Topics and patterns that need no token to subscribe to. Default: none.
	Public []string `json:"public,omitempty"`

	keys     []verificationKey
	address  string // JWKS, placeholders replaced, as in the next two
	issuer   string
	audience string
	set      *keySet // nil without JWKS; Handler.Provision sets it
}

// JWTKey is one key that tokens may be signed with.
type JWTKey struct {
	// The only algorithm the key is used with: HS, RS, PS or ES with 256, 384 or 512, or EdDSA.
	Algorithm string `json:"algorithm,omitempty"`
	// The secret of an HS algorithm, at least as long as its hash; of the others the public key or
	// certificate in PEM form. Placeholders such as {env.X} and {file.X} are replaced when the config
	// is loaded; one that comes out empty is an error.
	Key string `json:"key,omitempty"`
	// The key's ID: tokens that name one are held against the keys of that name only. Default: none,
	// for any token.
	ID string `json:"id,omitempty"`
}

// verificationKey is a key and the one algorithm it may be used with, whatever a token says.
type verificationKey struct {
	id        string
	algorithm jose.SignatureAlgorithm
	key       any
}

// hmacSize is how long the secret of an HS algorithm must be. (RFC 7518, section 3.2)
var hmacSize = map[jose.SignatureAlgorithm]int{jose.HS256: 32, jose.HS384: 48, jose.HS512: 64}

// rsaMinBits is how long an RSA key must be. (RFC 7518, section 3.3)
const rsaMinBits = 2048

// publicKeyAlgorithms are those whose keys are not secret.
var publicKeyAlgorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// maxTokenBytes bounds a token before any work is done for it.
const maxTokenBytes = 16 << 10

// clockSkew is how far a token's issuer may be ahead of our clock. Expiry allows for none.
const clockSkew = 30 * time.Second

// provision replaces placeholders and reads the keys. It touches no network.
func (c *JWTConfig) provision() error {
	if err := c.check(); err != nil {
		return err
	}
	for _, k := range c.Keys {
		key, err := k.read()
		if err != nil {
			return &optionError{"jwt: key", err}
		}
		c.keys = append(c.keys, verificationKey{k.ID, jose.SignatureAlgorithm(k.Algorithm), key})
	}
	for _, claim := range []struct {
		option, value string
		known         *string
	}{{"issuer", c.Issuer, &c.issuer}, {"audience", c.Audience, &c.audience}} {
		if claim.value == "" {
			continue
		}
		var err error
		if *claim.known, err = filledIn(claim.value); err != nil {
			return &optionError{"jwt: " + claim.option, fmt.Errorf("%w; leave the option out to take any", err)}
		}
	}
	if c.JWKS != "" {
		c.address = caddy.NewReplacer().ReplaceAll(c.JWKS, "")
		if err := checkJWKSAddress(c.address); err != nil {
			return &optionError{"jwt: jwks", err}
		}
	}
	return nil
}

// check refuses an algorithm that is none, and a key that can't be used with it.
func (k JWTKey) check() error {
	algorithm := jose.SignatureAlgorithm(k.Algorithm)
	if hmacSize[algorithm] == 0 && !slices.Contains(publicKeyAlgorithms, algorithm) {
		return fmt.Errorf("the algorithm%s is none of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA",
			quotedIfShort(k.Algorithm))
	}
	return literally(func(string) error {
		_, err := k.read()
		return err
	})(k.Key)
}

// read reads the key as the algorithm needs it.
func (k JWTKey) read() (any, error) {
	text, err := filledIn(k.Key)
	if err != nil {
		return nil, fmt.Errorf("the %s key %w", k.Algorithm, err)
	}
	key, err := readKey(jose.SignatureAlgorithm(k.Algorithm), text)
	if err != nil {
		return nil, fmt.Errorf("the %s key: %w", k.Algorithm, err)
	}
	return key, nil
}

func readKey(algorithm jose.SignatureAlgorithm, text string) (any, error) {
	if size, ok := hmacSize[algorithm]; ok {
		if len(text) < size {
			return nil, fmt.Errorf("the secret has %d bytes; it needs %d or more (RFC 7518, section 3.2)", len(text), size)
		}
		return []byte(text), nil
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("not a public key in PEM form, -----BEGIN PUBLIC KEY-----")
	}
	var key any
	var err error
	switch block.Type {
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = certificate.PublicKey
		}
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block %q; give the public key, -----BEGIN PUBLIC KEY-----", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("not readable: %w", err)
	}
	if key, ok := key.(*rsa.PublicKey); ok && key.N.BitLen() < rsaMinBits {
		return nil, fmt.Errorf("the RSA key has %d bits; it needs %d or more (RFC 7518, section 3.3)", key.N.BitLen(), rsaMinBits)
	}
	if !slices.Contains(algorithmsOf(key), algorithm) {
		return nil, fmt.Errorf("it is a %T, which %s can't be used with", key, algorithm)
	}
	return key, nil
}

// claims are what a token says, verified.
type claims struct {
	jwt.Claims
	SSE    jsontext.Value `json:"sse"`
	grants grants
	name   string // tells these claims from others; a token has many spellings, its payload one
}

// grants are what a token allows: topics and patterns, and for publishing the other targets.
type grants struct {
	Subscribe []string `json:"subscribe"`
	Publish   []string `json:"publish"`
}

// datesAreNumbers refuses null for a date: whoever writes that does not mean for ever.
var datesAreNumbers = json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, _ **jwt.NumericDate) error {
	if d.PeekKind() == 'n' {
		return jwt.ErrUnmarshalNumericDate
	}
	return errors.ErrUnsupported // as usual
}))

// verify reads a token and checks all but its grants against a request.
func (c *JWTConfig) verify(ctx context.Context, token string) (*claims, error) {
	if len(token) > maxTokenBytes {
		return nil, fmt.Errorf("the token has more than %d bytes", maxTokenBytes)
	}
	signed, err := jose.ParseSignedCompact(token, c.algorithms())
	if err != nil || len(signed.Signatures) != 1 {
		return nil, errors.New("the token is not a JWT signed in a way that is accepted here")
	}
	payload, err := c.verifySignature(ctx, signed)
	if err != nil {
		return nil, err
	}
	var said claims
	if err := json.Unmarshal(payload, &said, datesAreNumbers); err != nil || jsontext.Value(payload).Kind() != '{' {
		return nil, errors.New("the token's claims can't be read")
	}
	if err := c.checkClaims(said.Claims, time.Now()); err != nil {
		return nil, err
	}
	if said.SSE != nil {
		if err := json.Unmarshal(said.SSE, &said.grants, json.RejectUnknownMembers(true)); err != nil {
			return nil, errors.New(`the token's claim "sse" can't be read; it should be {"subscribe":[...],"publish":[...]}`)
		}
	}
	said.name = hashName(string(payload))
	return &said, said.grants.check()
}

// algorithms returns those of the configured keys.
func (c *JWTConfig) algorithms() (all []jose.SignatureAlgorithm) {
	for _, k := range c.keys {
		all = append(all, k.algorithm)
	}
	if c.set != nil {
		all = append(all, publicKeyAlgorithms...)
	}
	return all
}

// verifySignature tries the keys that the token may be signed with: those of the config first, so
// that a key set out of reach delays only its own tokens.
func (c *JWTConfig) verifySignature(ctx context.Context, signed *jose.JSONWebSignature) ([]byte, error) {
	header := signed.Signatures[0].Protected
	payload, err := tryKeys(c.keys, header, signed)
	if err == nil || c.set == nil {
		return payload, err
	}
	return c.set.verify(ctx, header, signed)
}

var errExpired = errors.New("the token has expired; get a new one")

var errNoKey = errors.New("the token is not signed with a key that is accepted here")

func tryKeys(keys []verificationKey, header jose.Header, signed *jose.JSONWebSignature) ([]byte, error) {
	for _, k := range keys {
		if string(k.algorithm) != header.Algorithm || k.id != "" && header.KeyID != "" && k.id != header.KeyID {
			continue
		}
		if payload, err := signed.Verify(k.key); err == nil {
			return payload, nil
		}
	}
	return nil, errNoKey
}

func (c *JWTConfig) checkClaims(said jwt.Claims, now time.Time) error {
	if said.Expiry != nil && !now.Before(said.Expiry.Time()) {
		return errExpired
	}
	expected := jwt.Expected{Issuer: c.issuer, Time: now}
	if c.audience != "" {
		expected.AnyAudience = jwt.Audience{c.audience}
	}
	switch err := said.ValidateWithLeeway(expected, clockSkew); {
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return errors.New("the token comes from another issuer")
	case errors.Is(err, jwt.ErrInvalidAudience):
		return errors.New("the token is meant for another audience")
	case err != nil:
		return errors.New("the token is not valid yet")
	}
	if said.Subject != "" && CheckUser(said.Subject) != nil {
		return errors.New(`the token's "sub" is no user: 1 to 256 bytes without control characters`)
	}
	return nil
}

// The grants for what is not a topic. A topic can't be granted by a name that begins with "@".
const (
	grantClient    = "@client/"
	grantUser      = "@user/"
	grantBroadcast = "@broadcast"
)

// check refuses a token whose grants are not all understood, lest one be taken for less or more.
func (g grants) check() error {
	for _, grant := range g.Subscribe {
		if strings.HasPrefix(grant, "@") || topic.CheckPattern(grant) != nil {
			return fmt.Errorf("the token's subscribe grant %q is not a topic or pattern", grant)
		}
	}
	for _, grant := range g.Publish {
		if !knownPublishGrant(grant) {
			return fmt.Errorf("the token's publish grant %q is none of a topic, a pattern, %s<id or *>, %s<name or *> and %s",
				grant, grantClient, grantUser, grantBroadcast)
		}
	}
	return nil
}

func knownPublishGrant(grant string) bool {
	if id, ok := strings.CutPrefix(grant, grantClient); ok {
		return id == "*" || CheckClientID(id) == nil
	}
	if name, ok := strings.CutPrefix(grant, grantUser); ok {
		return CheckUser(name) == nil
	}
	return grant == grantBroadcast || !strings.HasPrefix(grant, "@") && topic.CheckPattern(grant) == nil
}

// mayPublish reports whether the grants cover an address.
func (g grants) mayPublish(to Address) bool {
	switch to.Kind {
	case ToClient:
		return g.grantsName(grantClient, to.Name)
	case ToUser:
		return g.grantsName(grantUser, to.Name)
	case ToBroadcast:
		return slices.Contains(g.Publish, grantBroadcast)
	}
	return !strings.HasPrefix(to.Name, "@") && topic.Covered(g.Publish, to.Name)
}

func (g grants) grantsName(prefix, name string) bool {
	return slices.Contains(g.Publish, prefix+"*") || slices.Contains(g.Publish, prefix+name)
}

// tokenOf returns the token of a request, and whether it came by cookie, which browsers send unasked.
func (c *JWTConfig) tokenOf(r *http.Request) (token string, byCookie bool) {
	if token := bearerToken(r); token != "" {
		return token, false
	}
	if c.Cookie != "" {
		if cookie, err := r.Cookie(c.Cookie); err == nil && cookie.Value != "" {
			return cookie.Value, true
		}
	}
	if c.Query != "" {
		return r.URL.Query().Get(c.Query), false
	}
	return "", false
}

// check refuses settings that make no sense, before placeholders are replaced.
func (c *JWTConfig) check() error {
	if len(c.Keys) == 0 && c.JWKS == "" {
		return wrongOption("jwt", "give it a key or a jwks address, or no token could be accepted")
	}
	for _, k := range c.Keys {
		if err := k.check(); err != nil {
			return &optionError{"jwt: key", err}
		}
	}
	for _, name := range c.Public {
		if err := topic.CheckPattern(name); err != nil {
			return &optionError{"jwt: public", err}
		}
	}
	for _, set := range []struct {
		option, value string
		check         func(string) error
	}{
		{"jwt: jwks", c.JWKS, literally(checkJWKSAddress)},
		{"jwt: cookie", c.Cookie, checkCookieName},
		{"jwt: query", c.Query, checkTokenParameter},
	} {
		if err := set.check(set.value); set.value != "" && err != nil {
			return &optionError{set.option, err}
		}
	}
	return nil
}

// quotedIfShort quotes a word for an error message. A long one in a key option may be the secret.
func quotedIfShort(word string) string {
	if len(word) > len("HS256")+3 {
		return ""
	}
	return fmt.Sprintf(" %q", word)
}
