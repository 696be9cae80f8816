package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxTokenBytes bounds a token before any work is done for it.
const maxTokenBytes = 16 << 10

// clockSkew is how far a token's issuer may be ahead of our clock. Expiry allows for none.
const clockSkew = 30 * time.Second

// Verifier checks tokens against keys and claims. It knows nothing of requests and routes.
type Verifier struct {
	Keys     []Key   // those of the config, which are tried first
	Set      *keySet // further keys; nil for none
	Issuer   string  // what "iss" has to be; empty for anything
	Audience string  // what "aud" has to hold; empty for anything
}

// Verify reads a token and checks all but its grants against a request.
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	if len(token) > maxTokenBytes {
		return nil, fmt.Errorf("the token has more than %d bytes", maxTokenBytes)
	}
	signed, err := jose.ParseSignedCompact(token, v.algorithms())
	if err != nil || len(signed.Signatures) != 1 {
		return nil, errors.New("the token is not a JWT signed in a way that is accepted here")
	}
	payload, err := v.verifySignature(ctx, signed)
	if err != nil {
		return nil, err
	}
	var said Claims
	if err := json.Unmarshal(payload, &said, datesAreNumbers); err != nil || jsontext.Value(payload).Kind() != '{' {
		return nil, errors.New("the token's claims can't be read")
	}
	if err := v.checkClaims(said.Claims, time.Now()); err != nil {
		return nil, err
	}
	if said.SSE != nil {
		if err := json.Unmarshal(said.SSE, &said.Grants, json.RejectUnknownMembers(true)); err != nil {
			return nil, errors.New(`the token's claim "sse" can't be read; it should be {"subscribe":[...],"publish":[...]}`)
		}
	}
	said.Name = HashName(string(payload))
	return &said, said.Grants.Check()
}

// algorithms returns those of the configured keys.
func (v *Verifier) algorithms() (all []jose.SignatureAlgorithm) {
	for _, k := range v.Keys {
		all = append(all, k.Algorithm)
	}
	if v.Set != nil {
		all = append(all, publicKeyAlgorithms...)
	}
	return all
}

// verifySignature tries the keys that the token may be signed with: those of the config first, so
// that a key set out of reach delays only its own tokens.
func (v *Verifier) verifySignature(ctx context.Context, signed *jose.JSONWebSignature) ([]byte, error) {
	header := signed.Signatures[0].Protected
	payload, err := tryKeys(v.Keys, header, signed)
	if err == nil || v.Set == nil {
		return payload, err
	}
	return v.Set.verify(ctx, header, signed)
}

var ErrExpired = errors.New("the token has expired; get a new one")

var errNoKey = errors.New("the token is not signed with a key that is accepted here")

func tryKeys(keys []Key, header jose.Header, signed *jose.JSONWebSignature) ([]byte, error) {
	for _, k := range keys {
		if string(k.Algorithm) != header.Algorithm || k.ID != "" && header.KeyID != "" && k.ID != header.KeyID {
			continue
		}
		if payload, err := signed.Verify(k.Public); err == nil {
			return payload, nil
		}
	}
	return nil, errNoKey
}

func (v *Verifier) checkClaims(said jwt.Claims, now time.Time) error {
	if said.Expiry != nil && !now.Before(said.Expiry.Time()) {
		return ErrExpired
	}
	expected := jwt.Expected{Issuer: v.Issuer, Time: now}
	if v.Audience != "" {
		expected.AnyAudience = jwt.Audience{v.Audience}
	}
	switch err := said.ValidateWithLeeway(expected, clockSkew); {
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return errors.New("the token comes from another issuer")
	case errors.Is(err, jwt.ErrInvalidAudience):
		return errors.New("the token is meant for another audience")
	case err != nil:
		return errors.New("the token is not valid yet")
	}
	if said.Subject != "" && hub.CheckUser(said.Subject) != nil {
		return errors.New(`the token's "sub" is no user: 1 to 256 bytes without control characters`)
	}
	return nil
}
