package sse_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// The secrets of these tests. None of them may come out anywhere.
const (
	tokenSecret   = "hs-secret-0123456789-0123456789-0123456789"
	publishSecret = "publish-secret-0123456789"
)

// setSecrets puts the secrets where configs find them: {env.SSE_TEST_JWT}, {env.SSE_TEST_PUBLISH}.
func setSecrets(t *testing.T) {
	t.Helper()
	t.Setenv("SSE_TEST_JWT", tokenSecret)
	t.Setenv("SSE_TEST_PUBLISH", publishSecret)
}

// hsKey is the line of a jwt block that accepts the tokens that signed makes.
const hsKey = "key HS256 {env.SSE_TEST_JWT}"

// jwtRoute is a route whose listeners and speakers need tokens.
const jwtRoute = `
	sse /events {
		jwt {
			` + hsKey + `
			public public
		}
		publish {
			token {env.SSE_TEST_PUBLISH}
		}
	}`

// compact puts a token together from a header and a payload as they stand.
func compact(header, payload string, sign func(input string) []byte) string {
	encode := base64.RawURLEncoding.EncodeToString
	input := encode([]byte(header)) + "." + encode([]byte(payload))
	return input + "." + encode(sign(input))
}

func withHMAC(secret string) func(string) []byte {
	return func(input string) []byte {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(input))
		return mac.Sum(nil)
	}
}

// signed returns a token with these claims, as they stand.
func signed(claims string) string {
	return compact(`{"alg":"HS256","typ":"JWT"}`, claims, withHMAC(tokenSecret))
}

// granting returns a token of a user, who may be nobody, for an hour.
func granting(user string, subscribe, publish []string) string {
	return grantingUntil(time.Now().Add(time.Hour), user, subscribe, publish)
}

func grantingUntil(until time.Time, user string, subscribe, publish []string) string {
	claims, err := json.Marshal(map[string]any{
		"sub": user, "exp": until.Unix(), "sse": map[string]any{"subscribe": subscribe, "publish": publish},
	})
	if err != nil {
		panic(err)
	}
	return signed(string(claims))
}

func list(words ...string) []string { return words }

// cookie sends a token as a browser does that was given a cookie.
func cookie(token string) e2etest.Option { return e2etest.Header("Cookie", "other=1; session="+token) }

func origin(origin string) e2etest.Option { return e2etest.Header("Origin", origin) }

// rsaKey is made once: it takes a while.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func withRSA(key *rsa.PrivateKey) func(string) []byte {
	return func(input string) []byte {
		hash := sha256.Sum256([]byte(input))
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, hash[:])
		if err != nil {
			panic(err)
		}
		return signature
	}
}

// writePublicKey writes a public key into a file and returns its name.
func writePublicKey(t testing.TB, key crypto.PublicKey) (name string, content []byte) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	content = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	name = filepath.ToSlash(filepath.Join(t.TempDir(), "public.pem"))
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name, content
}

// ecKey is a key for ES256.
func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func withEC(key *ecdsa.PrivateKey) func(string) []byte {
	return func(input string) []byte {
		hash := sha256.Sum256([]byte(input))
		r, s, err := ecdsa.Sign(rand.Reader, key, hash[:])
		if err != nil {
			panic(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
}

// everythingLogged is a site whose log of everything, at debug, a test can read.
type everythingLogged struct {
	*site
	file string
}

func serveLogged(t *testing.T, body string, options ...siteOption) everythingLogged {
	t.Helper()
	file := filepath.ToSlash(filepath.Join(t.TempDir(), "everything"))
	everything := fmt.Sprintf(`
		log everything {
			output file %s {
				roll_disabled
			}
			level DEBUG
		}`, file)
	options = append(options, func(c *siteConfig) { c.globals += everything })
	return everythingLogged{serve(t, body, options...), file}
}

// everything returns all that was logged so far.
func (s everythingLogged) everything() string {
	s.t.Helper()
	log, err := os.ReadFile(s.file)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(log)
}

// wantNowhere fails the test if one of the texts stands in the log so far, or in what `caddy adapt` says.
func (s everythingLogged) wantNowhere(secrets ...string) {
	s.t.Helper()
	log := s.everything()
	if !strings.Contains(log, `"level":"debug"`) {
		s.t.Error("the log has no lines of level debug")
	}
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.conf), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		s.t.Fatal(err)
	}
	for where, text := range map[string]string{"the log": log, "caddy adapt": string(adapted)} {
		for _, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				s.t.Errorf("%s has %.30q: %s", where, secret, text[max(0, i-300):min(len(text), i+300)])
			}
		}
	}
}

// raw sends bytes over a connection of its own and returns all that is answered until it is closed.
func (s *site) raw(request string) string {
	s.t.Helper()
	conn := s.dial()
	if _, err := io.WriteString(conn, request); err != nil {
		s.t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		s.t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil && len(answer) == 0 {
		s.t.Logf("%.60q: %v", request, err)
	}
	return string(answer)
}
