package token

import (
	"context"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MercureClaims are what a verified token says to a hub that speaks the Mercure protocol.
type MercureClaims struct {
	// Subscribe and Publish are topic selectors. A member that is no list of texts grants nothing.
	Subscribe, Publish []string
	// Payload is what the issuer tells of the subscriber, as JSON; nil for nothing.
	Payload []byte
	// Granted tells that the token has the claim at all.
	Granted bool
	// Expiry is when the token ends; the zero Time is never.
	Expiry time.Time
	// Name is a hash of all claims.
	Name string
}

// mercurePayload is what is read of a token's own JSON. Nothing else is checked: "sub", "iss", "aud" and "iat" may be
// whatever the issuer writes.
type mercurePayload struct {
	Expiry    *date          `json:"exp"`
	NotBefore *date          `json:"nbf"`
	Mercure   jsontext.Value `json:"mercure"`
	URL       jsontext.Value `json:"https://mercure.rocks/"` // the claim's other name
}

// VerifyMercure returns the claims of a token if it is valid now. What its selectors match is the caller's to check.
func (v *Verifier) VerifyMercure(ctx context.Context, token string) (*MercureClaims, error) {
	text, err := v.open(ctx, token)
	if err != nil {
		return nil, err
	}
	var p mercurePayload
	if err := json.Unmarshal(text, &p, datesAreNumbers); err != nil || jsontext.Value(text).Kind() != '{' {
		return nil, errors.New("the token's claims can't be read")
	}
	now := time.Now()
	claims := &MercureClaims{Name: HashName(string(text))}
	if p.Expiry != nil {
		if claims.Expiry = (*jwt.NumericDate)(p.Expiry).Time(); !now.Before(claims.Expiry) {
			return nil, ErrExpired
		}
	}
	if p.NotBefore != nil && now.Add(clockSkew).Before((*jwt.NumericDate)(p.NotBefore).Time()) {
		return nil, errNotYet
	}
	claim := p.Mercure
	if claim == nil {
		claim = p.URL
	}
	claims.read(claim)
	return claims, nil
}

// read reads the claim of a token.
func (c *MercureClaims) read(claim jsontext.Value) {
	var members struct {
		Subscribe jsontext.Value `json:"subscribe"`
		Publish   jsontext.Value `json:"publish"`
		Payload   jsontext.Value `json:"payload"`
	}
	if claim.Kind() != '{' || json.Unmarshal(claim, &members) != nil {
		return
	}
	c.Granted = true
	c.Subscribe, c.Publish = selectors(members.Subscribe), selectors(members.Publish)
	if members.Payload.Kind() != 'n' {
		c.Payload = members.Payload
	}
}

// selectors reads a list of topic selectors. Anything else is none.
func selectors(list jsontext.Value) (all []string) {
	if list.Kind() != '[' || json.Unmarshal(list, &all) != nil {
		return nil
	}
	return all
}
