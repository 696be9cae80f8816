package sse

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const longSecret = "a-long-secret-that-nobody-is-to-see-anywhere-at-all-be-it-in-an-error"

func TestWrongKeysAreConfigErrors(t *testing.T) {
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	es, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	der, err := x509.MarshalPKCS8PrivateKey(rs)
	privatePKCS8 := block("PRIVATE KEY", der, err)
	privatePKCS1 := block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rs), nil)
	der, err = x509.MarshalECPrivateKey(es)
	privateEC := block("EC PRIVATE KEY", der, err)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSE_TEST_EMPTY", "")
	t.Setenv("SSE_TEST_SECRET", longSecret)
	file := func(content string) string {
		name := filepath.ToSlash(filepath.Join(t.TempDir(), "secret"))
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return "{file." + name + "}"
	}
	missing := "{file." + filepath.ToSlash(filepath.Join(t.TempDir(), "missing")) + "}"

	for _, c := range []struct{ algorithm, key, reason string }{
		{"HS256", "", "empty or not set"},
		{"HS256", "{env.SSE_TEST_EMPTY}", "{env.SSE_TEST_EMPTY} is empty or not set"},
		{"HS256", "{env.SSE_TEST_UNSET}", "{env.SSE_TEST_UNSET} is empty or not set"},
		{"HS256", "{env.SSE_TEST_EMPTY}{env.SSE_TEST_EMPTY}", "empty or not set"},
		{"HS256", missing, "is empty or not set"},
		{"HS256", file(""), "is empty or not set"},
		{"HS256", file("\n"), "is empty or not set"},
		{"HS256", "{nonsense.SECRET}" + longSecret, "empty or not set"},
		{"HS256", "{" + longSecret + "}", "empty or not set"},
		{"HS256", `{"kty":"oct","k":"` + longSecret + `"}`, "empty or not set"},
		{"HS256", "{env.SSE_TEST_UNSET}" + longSecret + "{env.SSE_TEST_UNSET}", "empty or not set"},
		{"HS256", longSecret[:31], "31 bytes; it needs 32"},
		{"HS384", longSecret[:47], "47 bytes; it needs 48"},
		{"HS512", longSecret[:63], "63 bytes; it needs 64"},
		{"HS512", file(longSecret[:63] + "\n"), "63 bytes; it needs 64"},
		{"RS256", longSecret, "PEM form"},
		{"RS256", "{env.SSE_TEST_SECRET}", "PEM form"},
		{"RS256", "{env.SSE_TEST_UNSET}", "{env.SSE_TEST_UNSET} is empty or not set"},
		{"RS256", privatePKCS8, `"PRIVATE KEY"; give the public key`},
		{"PS256", privatePKCS1, `"RSA PRIVATE KEY"; give the public key`},
		{"ES256", privateEC, `"EC PRIVATE KEY"; give the public key`},
		{"RS256", block("PUBLIC KEY", []byte("garbage"), nil), "not readable"},
		{"RS256", block("PUBLIC KEY", x509.MarshalPKCS1PrivateKey(rs), nil), "not readable"},
		{"RS256", block("CERTIFICATE", []byte("garbage"), nil), "not readable"},
		{"RS256", publicPEM(t, &small.PublicKey), "1024 bits; it needs 2048"},
		{"RS256", publicPEM(t, &es.PublicKey), "can't be used with"},
		{"ES256", publicPEM(t, &rs.PublicKey), "can't be used with"},
		{"ES384", publicPEM(t, &es.PublicKey), "can't be used with"},
		{"ES256", publicPEM(t, &p224.PublicKey), "can't be used with"},
		{"EdDSA", publicPEM(t, &es.PublicKey), "can't be used with"},
		{"none", longSecret, `"none" is none of HS256`},
		{"", longSecret, `"" is none of HS256`},
		{"hs256", longSecret, `"hs256" is none of HS256`},
		{"HS1024", longSecret, `"HS1024" is none of HS256`},
		{"ES256K", longSecret, `"ES256K" is none of HS256`},
		{longSecret, "HS256", "is none of HS256"},
	} {
		config := JWTConfig{Keys: []JWTKey{{Algorithm: c.algorithm, Key: c.key}}}
		wantConfigError(t, config.provision(), c.reason)
	}
	for address, reason := range map[string]string{
		"":                                   "key or a jwks address",
		"id.example.com/jwks":                "https",
		"https://":                           "https",
		"ftp://id.example.com/jwks":          "https",
		"file:///etc/jwks":                   "https",
		"http://id.example.com/jwks":         "loopback only",
		"http://192.168.0.1/jwks":            "loopback only",
		"http://127.0.0.1.example.com/":      "loopback only",
		"http://localhost.example.com/":      "loopback only",
		"http://127.0.0.1@id.example.com/":   "loopback only",
		"http://[::2]/":                      "loopback only",
		"{env.SSE_TEST_UNSET}":               "https",
		"http://{env.SSE_TEST_UNSET}:8080/x": "loopback only",
		"http://id.{env.SSE_TEST_SECRET}/":   "loopback only",
	} {
		wantConfigError(t, (&JWTConfig{JWKS: address}).provision(), reason)
	}
}

// wantConfigError fails the test unless there is an error that says why, and no secret.
func wantConfigError(t testing.TB, err error, reason string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("no error; it should speak of %q", reason)
	case !strings.Contains(err.Error(), reason):
		t.Errorf("the error %q does not speak of %q", err, reason)
	case strings.Contains(err.Error(), longSecret[:31]):
		t.Errorf("the error tells the secret: %v", err)
	}
}

// publicPEM returns a public key as it stands in a config.
func publicPEM(t testing.TB, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestKeysAndAddressesMayBePlaceholders(t *testing.T) {
	secret := longSecret
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(secret)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(jwt.Claims{Issuer: "https://localhost:8080", Audience: jwt.Audience{"localhost:8080"}}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSE_TEST_SECRET", secret)
	t.Setenv("SSE_TEST_HOST", "localhost:8080")
	name := filepath.ToSlash(filepath.Join(t.TempDir(), "secret"))
	if err := os.WriteFile(name, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"{env.SSE_TEST_SECRET}", "{file." + name + "}"} {
		c := &JWTConfig{Keys: []JWTKey{{Algorithm: "HS256", Key: key}}, Issuer: "https://{env.SSE_TEST_HOST}", Audience: "{env.SSE_TEST_HOST}"}
		if err := c.provision(); err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if _, err := c.verifier.Verify(t.Context(), token); err != nil {
			t.Errorf("%s: the token is refused: %v", key, err)
		}
	}
	for address, want := range map[string]string{
		"http://{env.SSE_TEST_HOST}/jwks": "http://localhost:8080/jwks",
		"https://id.example.com/jwks":     "https://id.example.com/jwks",
		"http://127.9.9.9/jwks":           "http://127.9.9.9/jwks",
		"http://[::1]:8080/jwks":          "http://[::1]:8080/jwks",
	} {
		c := &JWTConfig{JWKS: address}
		if err := c.provision(); err != nil || c.address != want {
			t.Errorf("%s: %q, %v", address, c.address, err)
		}
	}
}

func TestWrongJWTBlocksAreErrorsThatNameTheLine(t *testing.T) {
	const long = "key HS256 " + longSecret
	for body, reason := range map[string]string{
		"":                                     "key or a jwks address",
		"issuer x":                             "key or a jwks address",
		"key":                                  "write: key <algorithm> <secret",
		"key " + longSecret:                    "write: key <algorithm> <secret",
		"key HS256 " + longSecret + " id more": "write: key <algorithm> <secret",
		"key HS256 " + longSecret + " id " + longSecret: "write: key <algorithm> <secret",
		"key " + longSecret + " HS256":                  "is none of HS256",
		"key none x":                                    `"none" is none of HS256`,
		"jwks":                                          "it is empty",
		"jwks http://id.example.com/x":                  "loopback only",
		"jwks https://a https://b":                      "too few arguments, or too many",
		long + "\nissuer":                               "it is empty",
		long + "\naudience a b":                         "too few arguments, or too many",
		long + "\ncookie":                               "it is empty",
		long + "\nquery a b":                            "too few arguments, or too many",
		long + "\npublic":                               "it is empty",
		long + "\npublic a/**/b":                        "**",
		long + "\nissuer a\nissuer b":                   `"issuer" is there twice`,
		long + "\nalgorithm HS256":                      `unknown option "algorithm"; the options here are audience, cookie, issuer, jwks, key, public, query`,
	} {
		err := new(Handler).UnmarshalCaddyfile(caddyfile.NewTestDispenser("sse {\njwt {\n" + body + "\n}\n}"))
		wantConfigError(t, err, reason)
		if err != nil && !strings.Contains(err.Error(), "Testfile:") {
			t.Errorf("the error does not name the line: %v", err)
		}
	}
	err := new(Handler).UnmarshalCaddyfile(caddyfile.NewTestDispenser("sse {\njwt {\n" + long + "\n}\njwt {\n" + long + "\n}\n}"))
	wantConfigError(t, err, `"jwt" is there twice`)
	err = new(Handler).UnmarshalCaddyfile(caddyfile.NewTestDispenser("sse {\njwt HS256 {\n" + long + "\n}\n}"))
	wantConfigError(t, err, "too few arguments, or too many")
}

func TestJWTBlockBecomesJSONWithItsPlaceholders(t *testing.T) {
	h := new(Handler)
	err := h.UnmarshalCaddyfile(caddyfile.NewTestDispenser(`sse {
		jwt {
			key HS256 {env.SSE_TEST_SECRET}
			key RS256 {file./etc/keys/pub.pem} my-key
			jwks https://id.example.com/jwks
			issuer https://id.example.com
			audience sse
			cookie session
			query token
			public news status/*
			public more
		}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"jwt":{"keys":[{"algorithm":"HS256","key":"{env.SSE_TEST_SECRET}"},` +
		`{"algorithm":"RS256","key":"{file./etc/keys/pub.pem}","id":"my-key"}],"jwks":"https://id.example.com/jwks",` +
		`"issuer":"https://id.example.com","audience":"sse","cookie":"session","query":"token","public":["news","status/*","more"]}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
