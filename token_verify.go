package sse

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

// verifier checks tokens against keys and claims. It knows nothing of requests and routes.
type verifier struct {
	keys     []verificationKey // those of the config, which are tried first
	set      *keySet           // further keys; nil for none
	issuer   string            // what "iss" has to be; empty for anything
	audience string            // what "aud" has to hold; empty for anything
}

// verify reads a token and checks all but its grants against a request.
func (v *verifier) verify(ctx context.Context, token string) (*claims, error) {
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
	var said claims
	if err := json.Unmarshal(payload, &said, datesAreNumbers); err != nil || jsontext.Value(payload).Kind() != '{' {
		return nil, errors.New("the token's claims can't be read")
	}
	if err := v.checkClaims(said.Claims, time.Now()); err != nil {
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
func (v *verifier) algorithms() (all []jose.SignatureAlgorithm) {
	for _, k := range v.keys {
		all = append(all, k.algorithm)
	}
	if v.set != nil {
		all = append(all, publicKeyAlgorithms...)
	}
	return all
}

// verifySignature tries the keys that the token may be signed with: those of the config first, so
// that a key set out of reach delays only its own tokens.
func (v *verifier) verifySignature(ctx context.Context, signed *jose.JSONWebSignature) ([]byte, error) {
	header := signed.Signatures[0].Protected
	payload, err := tryKeys(v.keys, header, signed)
	if err == nil || v.set == nil {
		return payload, err
	}
	return v.set.verify(ctx, header, signed)
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

func (v *verifier) checkClaims(said jwt.Claims, now time.Time) error {
	if said.Expiry != nil && !now.Before(said.Expiry.Time()) {
		return errExpired
	}
	expected := jwt.Expected{Issuer: v.issuer, Time: now}
	if v.audience != "" {
		expected.AnyAudience = jwt.Audience{v.audience}
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
