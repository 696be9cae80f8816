package token

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

// FuzzToken shows that no token gets in that the key has not signed, whatever it looks like.
func FuzzToken(f *testing.F) {
	hs := issuers()[jose.HS256]
	good := hs.token(f, `{"sub":"alice","sse":{"subscribe":["a"]}}`)
	f.Add(good)
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	for _, seed := range []string{
		"", ".", "..", "...", parts[0], parts[0] + "." + parts[1], parts[0] + ".." + parts[2], none + "." + parts[1] + ".",
		`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		issuers()[jose.ES256].token(f, `{}`), good + "=", " " + good, good + "\n", strings.ToUpper(good),
	} {
		f.Add(seed)
	}
	c := accepting(f, hs, issuers()[jose.ES256].named("es"))
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := c.Verify(t.Context(), token)
		if err != nil {
			return
		}
		// The fuzzer has no key: what verifies is one of the seeds, perhaps in another spelling.
		if claims.Subject != "alice" && claims.Subject != "" || len(claims.Grants.Publish) > 0 {
			t.Errorf("%q is accepted, as %+v", token, claims)
		}
	})
}

// FuzzClaims shows that whatever a token says, only what is understood is granted.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{"sub":"alice","exp":99999999999,"sse":{"subscribe":["news","orders/*"],"publish":["orders/42","@client/*","@user/bob","@broadcast"]}}`,
		`{"sse":{"subscribe":["**"],"subscribe":[]}}`, `{"sse":{"publish":["@"]}}`, `{"sse":null,"exp":null}`, `{"aud":["a",1]}`,
		`{"exp":1e400}`, `{"sub":"\u0000"}`, `[]`, `null`, `{"a":[[[[]]]]}`, "{\"sub\":\"\xff\"}", `{"sub":"a"}{"sub":"b"}`,
	} {
		f.Add(seed)
	}
	hs := issuers()[jose.HS256]
	c := accepting(f, hs)
	f.Fuzz(func(t *testing.T, payload string) {
		claims, err := c.Verify(t.Context(), hs.token(t, payload))
		if err != nil {
			return
		}
		if claims.Subject != "" && hub.CheckUser(claims.Subject) != nil {
			t.Errorf("the user %q is taken", claims.Subject)
		}
		for _, grant := range claims.Grants.Subscribe {
			if topic.CheckPattern(grant) != nil || strings.HasPrefix(grant, "@") {
				t.Errorf("the subscribe grant %q is taken", grant)
			}
		}
		for _, grant := range claims.Grants.Publish {
			if !isPublishGrant(grant) {
				t.Errorf("the publish grant %q is taken", grant)
			}
		}
	})
}
