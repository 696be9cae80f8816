package token

import (
	"errors"
	"regexp"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Claims are what a verified token says.
type Claims struct {
	jwt.Claims // those of RFC 7519
	// Grants are the claim "sse".
	Grants Grants
	// Name is a hash of all claims. A token has many spellings, but its claims have one.
	Name string
}

// payload is what is read of a token's own JSON. Claims is never decoded itself: a token could set its
// Grants and Name.
type payload struct {
	jwt.Claims                // but for the next four, which issuers write in several ways
	Subject    subject        `json:"sub"`
	Expiry     *date          `json:"exp"`
	NotBefore  *date          `json:"nbf"`
	IssuedAt   *date          `json:"iat"`
	SSE        jsontext.Value `json:"sse"`
}

// subject is a "sub". Issuers whose users have numbers write it as one.
type subject string

var wholeNumber = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)

// UnmarshalJSON implements json.Unmarshaler.
func (s *subject) UnmarshalJSON(text []byte) error {
	if wholeNumber.Match(text) {
		*s = subject(text)
		return nil
	}
	return json.Unmarshal(text, (*string)(s))
}

// date is a date in seconds, perhaps with a fraction, perhaps as a string.
type date jwt.NumericDate

var dateAsString = regexp.MustCompile(`^"[0-9]{1,18}(\.[0-9]+)?"$`)

// UnmarshalJSON implements json.Unmarshaler.
func (d *date) UnmarshalJSON(text []byte) error {
	if dateAsString.Match(text) {
		text = text[1 : len(text)-1]
	}
	return (*jwt.NumericDate)(d).UnmarshalJSON(text)
}

// readPayload reads the claims of a token, but for its grants.
func readPayload(text []byte) (*payload, error) {
	var p payload
	if err := json.Unmarshal(text, &p, datesAreNumbers); err != nil || jsontext.Value(text).Kind() != '{' {
		return nil, errors.New("the token's claims can't be read")
	}
	p.Claims.Subject = string(p.Subject)
	p.Claims.Expiry = (*jwt.NumericDate)(p.Expiry)
	p.Claims.NotBefore = (*jwt.NumericDate)(p.NotBefore)
	p.Claims.IssuedAt = (*jwt.NumericDate)(p.IssuedAt)
	return &p, nil
}

// datesAreNumbers refuses null as a date. A date that is left out never comes; null may mean anything.
var datesAreNumbers = json.WithUnmarshalers(json.UnmarshalFromFunc(
	func(d *jsontext.Decoder, _ **date) error {
		if d.PeekKind() == 'n' {
			return jwt.ErrUnmarshalNumericDate
		}
		return errors.ErrUnsupported // read it as usual
	}))

// grants reads the claim "sse".
func (p *payload) grants() (Grants, error) {
	var g Grants
	if p.SSE != nil {
		if err := json.Unmarshal(p.SSE, &g, json.RejectUnknownMembers(true)); err != nil {
			return g, errors.New(`the token's claim "sse" can't be read; ` +
				`it should be {"subscribe":[...],"publish":[...]}`)
		}
	}
	return g, g.Check()
}

// ErrExpired is the error for a token after its "exp".
var ErrExpired = errors.New("the token has expired; get a new one")

var errNotYet = errors.New("the token is not valid yet")

// clockSkew is how far an issuer's clock may be ahead of ours. Expiry allows for none.
const clockSkew = 30 * time.Second

// checkClaims checks all claims but the grants.
func (v *Verifier) checkClaims(claims jwt.Claims, now time.Time) error {
	if claims.Expiry != nil && !now.Before(claims.Expiry.Time()) {
		return ErrExpired
	}
	expected := jwt.Expected{Issuer: v.Issuer, Time: now}
	if v.Audience != "" {
		expected.AnyAudience = jwt.Audience{v.Audience}
	}
	switch err := claims.ValidateWithLeeway(expected, clockSkew); {
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return errors.New("the token comes from another issuer")
	case errors.Is(err, jwt.ErrInvalidAudience):
		return errors.New("the token is meant for another audience")
	case err != nil:
		return errNotYet
	}
	if claims.Subject != "" && hub.CheckUser(claims.Subject) != nil {
		return errors.New(`the token's "sub" is no user: 1 to 256 bytes without control characters`)
	}
	return nil
}
