package sse_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// attackedSite is what the attacks of this file are made on: every kind of key, all claims required, a
// cookie, publish tokens beside the JWTs.
type attackedSite struct {
	everythingLogged
	rsaPEM  []byte // the public key, as everybody can know it
	witness *e2etest.Stream
	claims  map[string]any // good ones
}

func serveAttacked(t *testing.T) *attackedSite {
	t.Helper()
	setSecrets(t)
	rsaFile, rsaPEM := writePublicKey(t, rsaKey().Public())
	ecFile, _ := writePublicKey(t, ecKey(t).Public())
	s := &attackedSite{rsaPEM: rsaPEM, claims: map[string]any{
		"iss": "https://id.example", "aud": "sse", "exp": time.Now().Add(time.Hour).Unix(), "sub": "mallory",
		"sse": map[string]any{"subscribe": list("**"), "publish": list("**", "@broadcast", "@client/*", "@user/*")},
	}}
	s.everythingLogged = serveLogged(t, `
		sse /events {
			cors_origins https://listed.example
			jwt {
				`+hsKey+`
				key RS256 {file.`+rsaFile+`} rsa
				key ES256 {file.`+ecFile+`}
				issuer https://id.example
				audience sse
				cookie session
				public public
			}
			publish {
				token {env.SSE_TEST_PUBLISH}
			}
		}`, longHeads)
	s.witness = e2etest.Subscribe(t, s.url("/events?topic=**"), bearer(s.token(nil)))
	s.witness.Connected(t)
	return s
}

// claimsBut returns the good claims with some changed, or taken out where the value is nil.
func (s *attackedSite) claimsBut(changes map[string]any) string {
	claims := maps.Clone(s.claims)
	for name, value := range changes {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	text, err := json.Marshal(claims)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s *attackedSite) token(changes map[string]any) string { return signed(s.claimsBut(changes)) }

// wantNothingGotIn fails the test if anything was published, or anybody listens but the witness.
func (s *attackedSite) wantNothingGotIn(t *testing.T) {
	t.Helper()
	eventually(t, patience, "only the witness listens", func() bool {
		return publish(t, s.url("/events?broadcast&ephemeral"), "", bearer(publishSecret)).Receivers == 1.0
	})
	publish(t, s.url("/events?topic=last"), "sentinel", bearer(publishSecret))
	for {
		event, err := s.witness.Next(patience)
		switch {
		case err != nil:
			t.Fatal(err)
		case string(event.Data) == "sentinel":
			return
		case len(event.Data) > 0:
			t.Errorf("somebody published %q", event.Data)
		}
	}
}

// refusedGet is a GET that is not to be let in.
func refusedGet(t *testing.T, url string, options ...e2etest.Option) e2etest.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := e2etest.Open(ctx, url, options...)
	refused, ok := errors.AsType[*e2etest.Refused](err)
	switch {
	case ok:
		return refused.Answer
	case err != nil:
		t.Fatal(err)
	}
	stream.Close()
	t.Fatalf("GET %s was let in", url)
	return e2etest.Answer{}
}

func TestForgedAndUnfitTokensAreRefused(t *testing.T) {
	s := serveAttacked(t)
	good := s.token(nil)
	parts := strings.Split(good, ".")
	claims := s.claimsBut(nil)
	const hsHeader = `{"alg":"HS256"}`
	unsigned := func(string) []byte { return nil }
	ours, theirs := withHMAC(tokenSecret), withHMAC("guessed-secret-0123456789-0123456789")
	attacker := ecKey(t)
	var called atomic.Int64
	theirJWKS := countedServer(t, &called, `{"keys":[]}`)
	embedded, err := json.Marshal(map[string]string{
		"kty": "EC", "crv": "P-256",
		"x": base64.RawURLEncoding.EncodeToString(attacker.X.FillBytes(make([]byte, 32))),
		"y": base64.RawURLEncoding.EncodeToString(attacker.Y.FillBytes(make([]byte, 32))),
	})
	if err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat("[", 4000) + strings.Repeat("]", 4000)
	withClaim := func(member string) string { return signed(strings.TrimSuffix(claims, "}") + "," + member + "}") }
	withGrants := func(sse string) string {
		return signed(strings.TrimSuffix(s.claimsBut(map[string]any{"sse": nil}), "}") + `,"sse":` + sse + `}`)
	}
	jsonForm := func(object string) string {
		return strings.NewReplacer("HEADER", parts[0], "PAYLOAD", parts[1], "SIGNATURE", parts[2]).Replace(object)
	}

	const notAccepted, noKey, unreadable, unreadableGrants = "not a JWT signed in a way", "not signed with a key", "claims can't be read", `claim "sse" can't be read`
	for name, attack := range map[string]struct{ token, detail string }{
		// the algorithm
		"alg none":                       {compact(`{"alg":"none"}`, claims, unsigned), notAccepted},
		"alg None":                       {compact(`{"alg":"None"}`, claims, unsigned), notAccepted},
		"alg NONE with a signature":      {compact(`{"alg":"NONE"}`, claims, ours), notAccepted},
		"alg empty":                      {compact(`{"alg":""}`, claims, ours), notAccepted},
		"alg missing":                    {compact(`{}`, claims, ours), notAccepted},
		"alg no string":                  {compact(`{"alg":["HS256","none"]}`, claims, ours), notAccepted},
		"alg twice":                      {compact(`{"alg":"HS256","alg":"none"}`, claims, ours), notAccepted},
		"alg in small letters":           {compact(`{"alg":"hs256"}`, claims, ours), notAccepted},
		"alg of no key here":             {compact(`{"alg":"HS512"}`, claims, ours), notAccepted},
		"public key as HMAC secret":      {compact(hsHeader, claims, withHMAC(string(s.rsaPEM))), noKey},
		"the same with its key ID":       {compact(`{"alg":"HS256","kid":"rsa"}`, claims, withHMAC(string(s.rsaPEM))), noKey},
		"the same without the last line": {compact(hsHeader, claims, withHMAC(strings.TrimSpace(string(s.rsaPEM)))), noKey},
		"RS256 with the HMAC secret":     {compact(`{"alg":"RS256"}`, claims, ours), noKey},
		"empty HMAC secret":              {compact(hsHeader, claims, withHMAC("")), noKey},
		"publish token as HMAC secret":   {compact(hsHeader, claims, withHMAC(publishSecret)), noKey},

		// the key
		"guessed secret":       {compact(hsHeader, claims, theirs), noKey},
		"key in the header":    {compact(`{"alg":"ES256","jwk":`+string(embedded)+`}`, claims, withEC(attacker)), noKey},
		"key from their jku":   {compact(`{"alg":"ES256","jku":"`+theirJWKS+`","kid":"x"}`, claims, withEC(attacker)), noKey},
		"key from their x5u":   {compact(`{"alg":"ES256","x5u":"`+theirJWKS+`"}`, claims, withEC(attacker)), noKey},
		"kid is a path":        {compact(`{"alg":"HS256","kid":"../../../../dev/null"}`, claims, withHMAC("")), noKey},
		"kid is SQL":           {compact(`{"alg":"HS256","kid":"x' UNION SELECT 'AAAA"}`, claims, withHMAC("AAAA")), noKey},
		"kid is a command":     {compact(`{"alg":"HS256","kid":"|/bin/sh"}`, claims, theirs), noKey},
		"kid of another key":   {compact(`{"alg":"RS256","kid":"other"}`, claims, withRSA(rsaKey())), noKey},
		"kid no string":        {compact(`{"alg":"HS256","kid":{}}`, claims, ours), notAccepted},
		"unknown crit":         {compact(`{"alg":"HS256","crit":["x"],"x":1}`, claims, ours), `"crit"`},
		"empty crit":           {compact(`{"alg":"HS256","crit":[]}`, claims, ours), `"crit"`},
		"null crit":            {compact(`{"alg":"HS256","crit":null}`, claims, ours), `"crit"`},
		"crit of b64":          {compact(`{"alg":"HS256","crit":["b64"],"b64":true}`, claims, ours), `"crit"`},
		"payload not encoded":  {compact(`{"alg":"HS256","b64":false}`, claims, ours), `"b64"`},
		"payload perhaps":      {compact(`{"alg":"HS256","b64":null}`, claims, ours), `"b64"`},
		"ES256 signature of 0": {compact(`{"alg":"ES256"}`, claims, func(string) []byte { return make([]byte, 64) }), noKey},

		// the form
		"empty signature":      {parts[0] + "." + parts[1] + ".", noKey},
		"signature missing":    {parts[0] + "." + parts[1], notAccepted},
		"signature cut":        {good[:len(good)-4], noKey},
		"signature of another": {parts[0] + "." + parts[1] + "." + strings.Split(s.token(map[string]any{"sub": "x"}), ".")[2], noKey},
		"payload tampered":     {parts[0] + "." + strings.Split(s.token(map[string]any{"sub": "alice"}), ".")[1] + "." + parts[2], noKey},
		"payload empty":        {parts[0] + ".." + parts[2], noKey},
		"a part too many":      {good + ".x", notAccepted},
		"five parts (JWE)":     {good + ".x.x", notAccepted},
		"garbage":              {"garbage", notAccepted},
		"dots":                 {"..", notAccepted},
		"not base64url":        {good + "=", notAccepted},
		"JSON, flattened":      {jsonForm(`{"payload":"PAYLOAD","protected":"HEADER","signature":"SIGNATURE"}`), notAccepted},
		"JSON, general":        {jsonForm(`{"payload":"PAYLOAD","signatures":[{"protected":"HEADER","signature":"SIGNATURE"}]}`), notAccepted},
		"several signatures": {
			jsonForm(`{"payload":"PAYLOAD","signatures":[{"protected":"HEADER","signature":"AAAA"},{"protected":"HEADER","signature":"SIGNATURE"}]}`),
			notAccepted,
		},
		"huge":           {strings.Repeat("A", 500_000), "more than 16384 bytes"},
		"huge claims":    {withClaim(`"x":"` + strings.Repeat("A", 20_000) + `"`), "more than 16384 bytes"},
		"deep header":    {compact(`{"alg":"HS256","x":`+deep+`}`, claims, theirs), noKey},
		"deep grants":    {withGrants(`{"subscribe":` + deep + `}`), unreadableGrants},
		"deep, unfit":    {withClaim(`"x":` + deep[:6000]), unreadable},
		"NUL in alg":     {compact("{\"alg\":\"HS256\\u0000\"}", claims, ours), notAccepted},
		"claims no JSON": {signed("exp=99999999999&sub=admin"), unreadable},

		// the claims
		"expired":                       {s.token(map[string]any{"exp": time.Now().Unix() - 1}), "expired"},
		"expired long ago":              {s.token(map[string]any{"exp": 0}), "expired"},
		"expired before time":           {s.token(map[string]any{"exp": -1e17}), "expired"},
		"exp beyond time":               {s.token(map[string]any{"exp": 1e300}), unreadable},
		"exp a text":                    {s.token(map[string]any{"exp": "never"}), unreadable},
		"exp in another notation":       {s.token(map[string]any{"exp": "0x7fffffffff"}), unreadable},
		"exp an empty string":           {s.token(map[string]any{"exp": ""}), unreadable},
		"exp a string of the past":      {s.token(map[string]any{"exp": "1000000000"}), "expired"},
		"nbf a string of the future":    {s.token(map[string]any{"nbf": "99999999999"}), "not valid yet"},
		"sub a fraction":                {s.token(map[string]any{"sub": 1.5}), unreadable},
		"sub negative":                  {s.token(map[string]any{"sub": -1}), unreadable},
		"sub an object":                 {s.token(map[string]any{"sub": map[string]any{}}), unreadable},
		"not yet valid":                 {s.token(map[string]any{"nbf": time.Now().Unix() + 3600}), "not valid yet"},
		"issued in the future":          {s.token(map[string]any{"iat": time.Now().Unix() + 3600}), "not valid yet"},
		"wrong issuer":                  {s.token(map[string]any{"iss": "https://evil.example"}), "another issuer"},
		"no issuer":                     {s.token(map[string]any{"iss": nil}), "another issuer"},
		"wrong audience":                {s.token(map[string]any{"aud": list("shop", "sse2")}), "another audience"},
		"no audience":                   {s.token(map[string]any{"aud": nil}), "another audience"},
		"sub twice":                     {withClaim(`"sub":"alice"`), unreadable},
		"exp twice":                     {withClaim(`"exp":99999999999`), unreadable},
		"sse twice":                     {withClaim(`"sse":{"subscribe":["x"]}`), unreadable},
		"sse escaped, and so twice":     {withClaim(`"\u0073se":{"subscribe":["x"]}`), unreadable},
		"subscribe twice":               {withGrants(`{"subscribe":["x"],"subscribe":["**"]}`), unreadable},
		"unknown member in sse":         {withGrants(`{"subscribe":["**"],"admin":true}`), unreadableGrants},
		"member in capitals":            {withGrants(`{"Subscribe":["**"]}`), unreadableGrants},
		"unknown @grant":                {withGrants(`{"publish":["@everything"]}`), "publish grant"},
		"@grant to subscribe":           {withGrants(`{"subscribe":["@user/alice"]}`), "subscribe grant"},
		"control characters in a grant": {withGrants(`{"subscribe":["a\r\nb"]}`), "subscribe grant"},
		"control characters in sub":     {s.token(map[string]any{"sub": "alice\x00"}), `"sub"`},
	} {
		t.Run(name, func(t *testing.T) {
			for how, answer := range map[string]e2etest.Answer{
				"GET":           refusedGet(t, s.url("/events?topic=public"), bearer(attack.token)),
				"GET by cookie": refusedGet(t, s.url("/events?topic=public"), cookie(strings.NewReplacer(`"`, "", ",", "").Replace(attack.token))),
				"HEAD":          e2etest.Send(t, http.MethodHead, s.url("/events?topic=public"), "", bearer(attack.token)),
				"POST":          post(t, s.url("/events?topic=x"), "", "got in", bearer(attack.token)),
				"POST by cookie": post(t, s.url("/events?topic=x"), "", "got in", origin("https://listed.example"),
					cookie(strings.NewReplacer(`"`, "", ",", "").Replace(attack.token))),
			} {
				if answer.Status != http.StatusUnauthorized {
					t.Errorf("%s: answered %d: %s", how, answer.Status, answer.Body)
					continue
				}
				if challenge := answer.Header.Get("WWW-Authenticate"); challenge != `Bearer realm="sse", error="invalid_token"` {
					t.Errorf("%s: WWW-Authenticate is %q", how, challenge)
				}
				detail := attack.detail
				if strings.HasSuffix(how, "by cookie") && strings.HasPrefix(name, "JSON") || how == "HEAD" {
					detail = ""
				}
				if !strings.Contains(answer.Body, escaped(detail)) {
					t.Errorf("%s: the answer does not speak of %q: %s", how, detail, answer.Body)
				}
				wantNoSecretIn(t, answer, attack.token, tokenSecret, publishSecret)
			}
		})
	}
	if called.Load() > 0 {
		t.Error("a token's own address of keys was asked")
	}
	s.wantNothingGotIn(t)
	s.wantNowhere(tokenSecret, publishSecret, good, parts[1], parts[2], "got in", "sentinel", "guessed-secret")
}

// escaped returns text as it stands in a JSON string.
func escaped(text string) string { return strings.ReplaceAll(text, `"`, `\"`) }

func wantNoSecretIn(t *testing.T, answer e2etest.Answer, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if len(secret) > 10 && strings.Contains(answer.Body, secret) {
			t.Errorf("the answer tells %.40q: %s", secret, answer.Body)
		}
		for name := range answer.Header {
			if len(secret) > 10 && strings.Contains(answer.Header.Get(name), secret) {
				t.Errorf("the header %s tells %.40q", name, secret)
			}
		}
	}
}
