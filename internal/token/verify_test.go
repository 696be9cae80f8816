package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-sse/caddy-sse/hub"
)

func TestTokensOfEveryAlgorithmAreAcceptedBesideEachOther(t *testing.T) {
	var all []issuer
	for _, algorithm := range allAlgorithms {
		all = append(all, issuers()[algorithm])
	}
	c := accepting(t, all...)
	for _, i := range all {
		t.Run(string(i.algorithm), func(t *testing.T) {
			token := i.token(t, `{"sub":"alice"}`)
			if claims := wantVerified(t, c, token); claims.Subject != "alice" {
				t.Errorf("the subject is %q", claims.Subject)
			}
			header, rest, _ := strings.Cut(token, ".")
			_, signature, _ := strings.Cut(rest, ".")
			payload := strings.Split(i.token(t, `{"sub":"mallory"}`), ".")[1]
			wantRefused(t, c, header+"."+payload+"."+signature, "not signed with a key")
			wantRefused(t, c, header+"."+payload+".", "")
		})
	}
}

func TestKeyIsUsedWithItsOwnAlgorithmOnly(t *testing.T) {
	for _, algorithm := range allAlgorithms {
		trusted := issuers()[algorithm]
		c := accepting(t, trusted)
		for _, other := range allAlgorithms {
			stranger := issuers()[other]
			if sameKind(trusted, stranger) {
				stranger = trusted.as(other)
			}
			if other != algorithm {
				wantRefused(t, c, stranger.token(t, `{}`), "not a JWT signed in a way that is accepted here")
			}
		}
	}
}

// sameKind reports whether one's key can be used with the other's algorithm.
func sameKind(one, other issuer) bool {
	if _, ok := one.public.([]byte); ok { // any secret that is long enough
		_, ok := other.public.([]byte)
		return ok && len(one.public.([]byte)) >= hmacSize[other.algorithm]
	}
	return slices.Contains(algorithmsOf(one.public), other.algorithm)
}

// The oldest trick: the public key, which everybody has, as the secret of an HS algorithm.
func TestPublicKeyIsNoSecret(t *testing.T) {
	for _, algorithm := range []jose.SignatureAlgorithm{jose.RS256, jose.PS512, jose.ES256, jose.EdDSA} {
		trusted := issuers()[algorithm]
		text := pemOf(t, trusted.public)
		block, _ := pem.Decode([]byte(text))
		with, without := accepting(t, trusted, issuers()[jose.HS256]), accepting(t, trusted)
		for _, secret := range [][]byte{[]byte(text), []byte(strings.TrimSpace(text)), block.Bytes} {
			if len(secret) < 32 {
				continue
			}
			forged := issuer{algorithm: jose.HS256, private: secret}.token(t, `{"sub":"mallory"}`)
			wantRefused(t, with, forged, "not signed with a key")
			wantRefused(t, without, forged, "not a JWT signed in a way")
		}
	}
}

func TestKeyIDChoosesTheKey(t *testing.T) {
	a := issuers()[jose.ES256].named("a")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := issuer{algorithm: jose.ES256, private: private, public: private.Public(), id: "b"}
	nameless := issuers()[jose.HS256]
	c := accepting(t, a, b, nameless)

	wantVerified(t, c, a.token(t, `{}`))
	wantVerified(t, c, b.token(t, `{}`))
	wantVerified(t, c, a.named("").token(t, `{}`)) // a token that names none may be of any key
	wantVerified(t, c, b.named("").token(t, `{}`))
	wantVerified(t, c, nameless.named("whatever").token(t, `{}`)) // a key without a name is for any token

	wantRefused(t, c, a.named("b").token(t, `{}`), "not signed with a key")
	wantRefused(t, c, b.named("a").token(t, `{}`), "not signed with a key")
	for _, id := range []string{"c", "A", "../a", "a' OR '1'='1", "/dev/null", "a\x00"} {
		wantRefused(t, c, a.named(id).token(t, `{}`), "not signed with a key")
	}
}

func TestSeveralKeysMayHaveOneName(t *testing.T) {
	a, b := issuers()[jose.ES256].named("x"), issuers()[jose.RS256].named("x")
	c := accepting(t, a, b)
	wantVerified(t, c, a.token(t, `{}`))
	wantVerified(t, c, b.token(t, `{}`))
}

func TestPublicKeyMayBeACertificateOrPKCS1(t *testing.T) {
	rs := issuers()[jose.RS256]
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, rs.public, rs.private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"certificate": {Type: "CERTIFICATE", Bytes: der},
		"PKCS 1":      {Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(rs.public.(*rsa.PublicKey))},
	} {
		key, err := ReadKey(jose.RS256, string(pem.EncodeToMemory(block)))
		c := &Verifier{Keys: []Key{{Algorithm: jose.RS256, Public: key}}}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wantVerified(t, c, rs.token(t, `{}`))
	}
}

func TestClaimsAreReadStrictly(t *testing.T) {
	const unreadable, unreadableGrants = "claims can't be read", `claim "sse" can't be read`
	hs := issuers()[jose.HS256]
	c := accepting(t, hs)
	for payload, reason := range map[string]string{
		// well
		`{}`:                               "",
		` { "sub" : "alice" } `:            "",
		`{"sub":"jürgen ☃ @ example.org"}`: "",
		`{"exp":99999999999}`:              "",
		`{"exp":99999999999.75,"nbf":1,"iat":1.5e3}`: "",
		`{"exp":1e15}`: "",
		`{"sse":null}`: "",
		`{"sse":{}}`:   "",
		`{"sse":{"subscribe":null,"publish":[]}}`:                      "",
		`{"iss":"x","aud":"y","jti":"z","scope":[{}],"Sub":1,"SSE":1}`: "",
		`{"aud":["a","b"]}`: "",
		`{"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`: "",

		// not an object, or not JSON
		``: unreadable, `null`: unreadable, `[]`: unreadable, `"sub"`: unreadable, `{`: unreadable, `{}{}`: unreadable,
		`{"sub":"alice"} x`: unreadable, `{'sub':'alice'}`: unreadable, `{"sub":"a",}`: unreadable,
		"{\"sub\":\"a\xff\"}": unreadable, `{"sub":"\ud800"}`: unreadable, "\ufeff{}": unreadable,
		`{"x":` + strings.Repeat("[", 6000) + `}`: unreadable,

		// twice the same name, anywhere
		`{"sub":"alice","sub":"bob"}`:                     unreadable,
		`{"exp":99999999999,"exp":1}`:                     unreadable,
		`{"sse":{},"sse":{"subscribe":["**"]}}`:           unreadable,
		`{"sub":"alice","\u0073ub":"bob"}`:                unreadable,
		`{"x":{"y":1,"y":2}}`:                             unreadable,
		`{"sse":{"subscribe":["a"],"subscribe":["**"]}}`:  unreadable,
		`{"sse":{"publish":["a"],"\u0070ublish":["**"]}}`: unreadable,

		// of a type that issuers use, too
		`{"sub":1}`: "", `{"exp":"99999999999"}`: "", `{"exp":99999999999.5}`: "", `{"nbf":"1.5"}`: "", `{"iat":"0"}`: "",

		// of the wrong type
		`{"exp":"0x1"}`: unreadable, `{"exp":""}`: unreadable, `{"sub":-1}`: unreadable, `{"sub":01}`: unreadable,
		`{"sub":1.5}`: unreadable, `{"sub":["alice"]}`: unreadable, `{"iss":{}}`: unreadable, `{"aud":1}`: unreadable,
		`{"aud":[1]}`: unreadable, `{"exp":"soon"}`: unreadable, `{"exp":null}`: unreadable,
		`{"exp":true}`: unreadable, `{"exp":1e400}`: unreadable, `{"exp":9e18}`: unreadable, `{"nbf":null}`: unreadable,
		`{"nbf":-1e19}`: unreadable, `{"iat":[]}`: unreadable,

		// grants
		`{"sse":[]}`: unreadableGrants, `{"sse":"**"}`: unreadableGrants, `{"sse":true}`: unreadableGrants,
		`{"sse":{"subscribe":"news"}}`:                               unreadableGrants,
		`{"sse":{"subscribe":[1]}}`:                                  unreadableGrants,
		`{"sse":{"subscribe":{"news":true}}}`:                        unreadableGrants,
		`{"sse":{"Subscribe":["news"]}}`:                             unreadableGrants,
		`{"sse":{"subscribes":["news"]}}`:                            unreadableGrants,
		`{"sse":{"admin":true}}`:                                     unreadableGrants,
		`{"sse":{"subscribe":["news",null]}}`:                        "subscribe grant",
		`{"sse":{"subscribe":[""]}}`:                                 "subscribe grant",
		`{"sse":{"subscribe":["a/**/b"]}}`:                           "subscribe grant",
		`{"sse":{"subscribe":["a\nb"]}}`:                             "subscribe grant",
		`{"sse":{"subscribe":["a\u0000"]}}`:                          "subscribe grant",
		`{"sse":{"subscribe":["@user/alice"]}}`:                      "subscribe grant",
		`{"sse":{"subscribe":["@"]}}`:                                "subscribe grant",
		`{"sse":{"subscribe":["` + strings.Repeat("a", 257) + `"]}}`: "subscribe grant",
		`{"sse":{"publish":[""]}}`:                                   "publish grant",
		`{"sse":{"publish":["**/a"]}}`:                               "publish grant",
		`{"sse":{"publish":["@"]}}`:                                  "publish grant",
		`{"sse":{"publish":["@everybody"]}}`:                         "publish grant",
		`{"sse":{"publish":["@Broadcast"]}}`:                         "publish grant",
		`{"sse":{"publish":["@broadcast/x"]}}`:                       "publish grant",
		`{"sse":{"publish":["@client"]}}`:                            "publish grant",
		`{"sse":{"publish":["@client/"]}}`:                           "publish grant",
		`{"sse":{"publish":["@client/a b"]}}`:                        "publish grant",
		`{"sse":{"publish":["@client/dev-*"]}}`:                      "publish grant",
		`{"sse":{"publish":["@client/**"]}}`:                         "publish grant",
		`{"sse":{"publish":["@user/"]}}`:                             "publish grant",
		`{"sse":{"publish":["@user/a\u0000"]}}`:                      "publish grant",
		`{"sse":{"publish":["news","@users/*"]}}`:                    "publish grant",

		// a user that nobody could be
		`{"sub":"a\u0000"}`:                          "sub",
		`{"sub":"a\r\nb"}`:                           "sub",
		`{"sub":"` + strings.Repeat("a", 257) + `"}`: "sub",
	} {
		name := payload[:min(len(payload), 60)]
		t.Run(name, func(t *testing.T) {
			token := hs.token(t, payload)
			if reason == "" {
				wantVerified(t, c, token)
			} else {
				wantRefused(t, c, token, reason)
			}
		})
	}
}

func TestTokensAreBounded(t *testing.T) {
	hs := issuers()[jose.HS256]
	c := accepting(t, hs)
	sized := func(size int) string {
		return hs.token(t, `{"x":"`+strings.Repeat("x", (size-len(hs.token(t, `{"x":""}`)))*3/4)+`"}`)
	}
	wantVerified(t, c, sized(maxTokenBytes-8))
	wantRefused(t, c, sized(maxTokenBytes+8), "more than 16384 bytes")
	wantRefused(t, c, strings.Repeat("a", 1<<20), "more than 16384 bytes")
}

func TestExpiryIsExactAndBeginningsHaveSomeLeeway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hs := issuers()[jose.HS256]
		c := accepting(t, hs)
		now := time.Now().Unix() // a whole second, in a bubble
		expiring := hs.token(t, fmt.Sprintf(`{"exp":%d}`, now+10))
		time.Sleep(10*time.Second - 1)
		wantVerified(t, c, expiring)
		time.Sleep(time.Nanosecond)
		wantRefused(t, c, expiring, "expired")

		now += 10
		for _, claim := range []string{"nbf", "iat"} {
			wantVerified(t, c, hs.token(t, fmt.Sprintf(`{%q:%d}`, claim, now+30)))
			early := hs.token(t, fmt.Sprintf(`{%q:%d}`, claim, now+31))
			wantRefused(t, c, early, "not valid yet")
		}
	})
}

func TestIssuerAndAudienceAreRequiredIfConfigured(t *testing.T) {
	hs := issuers()[jose.HS256]
	c := accepting(t, hs)
	c.Issuer, c.Audience = "https://id.example", "sse"
	wantVerified(t, c, hs.token(t, `{"iss":"https://id.example","aud":"sse"}`))
	wantVerified(t, c, hs.token(t, `{"iss":"https://id.example","aud":["other","sse"]}`))
	for _, payload := range []string{
		`{"aud":"sse"}`, `{"iss":"","aud":"sse"}`, `{"iss":null,"aud":"sse"}`, `{"iss":"https://id.example/","aud":"sse"}`,
		`{"iss":"HTTPS://id.example","aud":"sse"}`, `{"iss":"https://id.example.evil","aud":"sse"}`,
	} {
		wantRefused(t, c, hs.token(t, payload), "another issuer")
	}
	for _, payload := range []string{
		`{"iss":"https://id.example"}`, `{"iss":"https://id.example","aud":[]}`, `{"iss":"https://id.example","aud":"SSE"}`,
		`{"iss":"https://id.example","aud":["sse2","",""]}`, `{"iss":"https://id.example","aud":"sse sse"}`,
	} {
		wantRefused(t, c, hs.token(t, payload), "another audience")
	}
}

// Nobody may believe what is not signed, not even for the words of a refusal.
func TestSignatureIsCheckedBeforeAnythingElse(t *testing.T) {
	c := accepting(t, issuers()[jose.HS256])
	stranger := issuer{algorithm: jose.HS256, private: []byte(strings.Repeat("x", 32))}
	for _, payload := range []string{`{"exp":1}`, `{"nbf":99999999999}`, `{"sub":1}`, `{"sse":{"x":1}}`, `garbage`} {
		wantRefused(t, c, stranger.token(t, payload), "not signed with a key")
	}
}

// A token has many spellings. What a publisher is known by is not the spelling.
func TestOneTokenIsOnePublisherHoweverItIsSpelt(t *testing.T) {
	hs := issuers()[jose.HS256]
	c := accepting(t, hs)
	token := hs.token(t, `{"sse":{"publish":["a"]}}`)
	name := wantVerified(t, c, token).Name
	last := token[len(token)-1]
	respelt := 0
	for _, other := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_\n" {
		spelling := token[:len(token)-1] + string(other)
		if other == '\n' {
			spelling = token[:10] + "\n" + token[10:]
		}
		if claims, err := c.Verify(t.Context(), spelling); err == nil && byte(other) != last {
			respelt++
			if claims.Name != name {
				t.Errorf("%q makes another publisher", spelling)
			}
		}
	}
	if respelt == 0 {
		t.Skip("tokens have one spelling only")
	}
	if other := wantVerified(t, c, hs.token(t, `{"sse":{"publish":["a"]},"jti":"2"}`)); other.Name == name {
		t.Error("two tokens are one publisher")
	}
}

// A token's payload must set nothing that the verifier sets itself. Members are known by their exact names.
func TestATokenGrantsNothingByOtherMembersThanSSE(t *testing.T) {
	const everything = `{"subscribe":["**"],"publish":["**","@client/*","@user/*","@broadcast"]}`
	hs := issuers()[jose.HS256]
	v := accepting(t, hs)
	members := []string{
		"Grants", "grants", "GRANTS", "SSE", "Sse", "sSe", "Claims", "claims", "subscribe", "publish", "Subscribe",
		"Publish", "payload", "",
	}
	for _, member := range members {
		claims := wantVerified(t, v, hs.token(t, fmt.Sprintf(`{"sub":"alice",%q:%s}`, member, everything)))
		wantNothingGranted(t, member, claims)
	}
	for _, member := range []string{"Name", "name", "Sub", "SUB", "Subject", "subject"} {
		payload := fmt.Sprintf(`{"sub":"alice",%q:"mallory"}`, member)
		claims := wantVerified(t, v, hs.token(t, payload))
		wantNothingGranted(t, member, claims)
		if claims.Name != HashName(payload) || claims.Subject != "alice" {
			t.Errorf("%q makes the publisher %q, the user %q", member, claims.Name, claims.Subject)
		}
	}
	for _, date := range []string{"Exp", "EXP", "Expiry", "expiry"} {
		claims := wantVerified(t, v, hs.token(t, fmt.Sprintf(`{"sub":"alice",%q:1}`, date)))
		if claims.Expiry != nil {
			t.Errorf("%q makes the token expire", date)
		}
	}
}

func wantNothingGranted(t *testing.T, member string, claims *Claims) {
	t.Helper()
	if len(claims.Grants.Subscribe) > 0 || len(claims.Grants.Publish) > 0 {
		t.Errorf("%q grants %+v", member, claims.Grants)
	}
	for _, to := range []hub.Address{
		{Kind: hub.ToTopic, Name: "news"},
		{Kind: hub.ToClient, Name: "c"},
		{Kind: hub.ToUser, Name: "bob"},
		{Kind: hub.ToBroadcast},
	} {
		if claims.Grants.MayPublish(to) {
			t.Errorf("%q lets publish to %v", member, to)
		}
	}
}
