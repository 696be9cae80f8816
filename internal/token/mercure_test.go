package token

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestMercureClaimsGrantWhatTheyList(t *testing.T) {
	hs := issuers()[jose.HS256]
	v := accepting(t, hs)
	for payload, want := range map[string]MercureClaims{
		`{}`:                           {},
		`{"mercure":null}`:             {},
		`{"mercure":[]}`:               {},
		`{"mercure":"*"}`:              {},
		`{"mercure":{}}`:               {Granted: true},
		`{"mercure":{"publish":null}}`: {Granted: true},
		`{"mercure":{"publish":[]}}`:   {Granted: true},
		`{"mercure":{"publish":"*"}}`:  {Granted: true},
		`{"mercure":{"publish":[1]}}`:  {Granted: true},
		`{"mercure":{"subscribe":{}}}`: {Granted: true},
		`{"mercure":{"payload":null}}`: {Granted: true},
		`{"mercure":{"unknown":1}}`:    {Granted: true},
		`{"mercure":{"publish":["*"],"subscribe":["a","b/{x}"],"payload":{"n":[1]}}}`: {
			Granted: true, Publish: []string{"*"}, Subscribe: []string{"a", "b/{x}"}, Payload: []byte(`{"n":[1]}`),
		},
		`{"https://mercure.rocks/":{"publish":["a"]}}`:                               {Granted: true, Publish: []string{"a"}},
		`{"https://mercure.rocks/":{"publish":["a"]},"mercure":{"publish":["b"]}}`:   {Granted: true, Publish: []string{"b"}},
		`{"mercure":{"publish":["a"]},"sub":{"any":1},"iss":[],"aud":5,"iat":"now"}`: {Granted: true, Publish: []string{"a"}},
	} {
		claims, err := v.VerifyMercure(t.Context(), hs.token(t, payload))
		if err != nil {
			t.Errorf("%s: %v", payload, err)
			continue
		}
		if claims.Granted != want.Granted || !slices.Equal(claims.Publish, want.Publish) ||
			!slices.Equal(claims.Subscribe, want.Subscribe) || string(claims.Payload) != string(want.Payload) {
			t.Errorf("%s grants %+v", payload, claims)
		}
	}
}

// Issuers such as lcobucci/jwt write dates with fractions, others as strings. Of a fraction nothing is left.
func TestMercureClaimsEndInEveryForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is 2000-01-01
		hs := issuers()[jose.HS256]
		v := accepting(t, hs)
		for payload, ends := range map[string]float64{
			`{"exp":946684860}`:       60,
			`{"exp":946684860.5}`:     60,
			`{"exp":"946684860"}`:     60,
			`{"exp":"946684860.25"}`:  60,
			`{"nbf":946684830}`:       0,
			`{"nbf":"946684830"}`:     0,
			`{"nbf":1,"iat":9999999}`: 0,
		} {
			claims, err := v.VerifyMercure(t.Context(), hs.token(t, payload))
			if err != nil {
				t.Errorf("%s: %v", payload, err)
				continue
			}
			left := 0.0
			if !claims.Expiry.IsZero() {
				left = time.Until(claims.Expiry).Seconds()
			}
			if left < ends-0.001 || left > ends+0.001 {
				t.Errorf("%s ends in %v s", payload, left)
			}
		}
		for payload, reason := range map[string]string{
			`{"exp":946684800}`:    "has expired",
			`{"exp":"946684799"}`:  "has expired",
			`{"exp":1}`:            "has expired",
			`{"nbf":946684831}`:    "not valid yet",
			`{"nbf":"946684831"}`:  "not valid yet",
			`{"exp":"tomorrow"}`:   "can't be read",
			`{"exp":null}`:         "can't be read",
			`[]`:                   "can't be read",
			`{"exp":1,"exp":2e10}`: "can't be read",
		} {
			if _, err := v.VerifyMercure(t.Context(), hs.token(t, payload)); err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("%s: %v", payload, err)
			}
		}
	})
}

func TestMercureTokensAreSignedWithTheKey(t *testing.T) {
	hs, es := issuers()[jose.HS256], issuers()[jose.ES256]
	v := accepting(t, hs)
	other := issuer{algorithm: jose.HS256, private: []byte(strings.Repeat("x", 32))}
	for reason, token := range map[string]string{
		"not signed with a key":                    other.token(t, `{}`),
		"not a JWT signed in a way that is":        es.token(t, `{}`),
		"not a JWT signed in a way that is accept": "a.b.c",
	} {
		if _, err := v.VerifyMercure(t.Context(), token); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%v, want %s", err, reason)
		}
	}
}
