package mercure

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestRule21TokensAreNeeded(t *testing.T) {
	t.Parallel()
	closed, open := serve(t, "transport local"), serve(t, inMemory)
	for _, s := range []*site{closed, open} {
		wantRefusal(t, s.post(form("topic", "a")), http.StatusUnauthorized, "needs a token")
		for reason, token := range map[string]string{
			"has expired":           signed(subscriberKey, `{"exp":1}`),
			"not signed with a key": publishing("*"),
			"not a JWT":             "nonsense",
			"can't be read":         signed(subscriberKey, `[]`),
			"not valid yet":         signed(subscriberKey, `{"nbf":99999999999}`),
		} {
			wantRefusal(t, s.get(s.topics("a"), bearer(token)), http.StatusUnauthorized, reason)
		}
		e2etest.Subscribe(t, s.topics("a"), bearer(signed(subscriberKey, `{}`))).Close()
	}
	wantRefusal(t, closed.get(closed.topics("a")), http.StatusUnauthorized, "needs a token", "mercureAuthorization")
	open.subscribe([]string{"a"}).Close()
}

func TestRule22And23EachTopicNeedsAGrant(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	for claims, reason := range map[string]string{
		`{}`:                                    "no claim mercure",
		`{"mercure":[]}`:                        "no claim mercure",
		`{"mercure":{}}`:                        "may publish nothing",
		`{"mercure":{"publish":null}}`:          "may publish nothing",
		`{"mercure":{"publish":[]}}`:            "may publish nothing",
		`{"mercure":{"publish":"*"}}`:           "may publish nothing",
		`{"mercure":{"subscribe":["*"]}}`:       "may publish nothing",
		`{"mercure":{"publish":["a","b/{x}"]}}`: `"b/1/2"`,
		`{"mercure":{"publish":["b/{+x}"]}}`:    `"a"`,
	} {
		answer := s.post(form("topic", "a", "topic", "b/1/2", "data", "x"), bearer(signed(publisherKey, claims)))
		wantRefusal(t, answer, http.StatusForbidden, reason)
	}
	for _, grants := range [][]string{{"*"}, {"a", "b/{+x}"}, {"{any}", "b/{x}/{y}"}} {
		if answer := s.post(form("topic", "a", "topic", "b/1/2"), bearer(publishing(grants...))); answer.Status != 200 {
			t.Errorf("%v: %d: %s", grants, answer.Status, answer.Body)
		}
	}
}

func TestRule24And25FormsOfClaims(t *testing.T) {
	t.Parallel()
	s := serve(t, "transport local")
	later := time.Now().Add(time.Hour).Unix()
	for _, claims := range []string{
		`{"https://mercure.rocks/":{"publish":["*"]}}`,
		fmt.Sprintf(`{"mercure":{"publish":["*"]},"exp":%d.123456,"iat":1.5,"nbf":1.25}`, later),
		fmt.Sprintf(`{"mercure":{"publish":["*"]},"exp":"%d"}`, later),
		`{"mercure":{"publish":["*"]},"aud":"x","iss":1,"sub":{"a":[]},"iat":99999999999}`,
	} {
		if answer := s.post(form("topic", "a"), bearer(signed(publisherKey, claims))); answer.Status != 200 {
			t.Errorf("%s: %d: %s", claims, answer.Status, answer.Body)
		}
	}
}

func TestRule26EachRoleHasItsKey(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: private.Public(), KeyID: "k", Algorithm: "ES256"}}})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signES := func(claims string) string {
		signature, err := signer.Sign([]byte(claims))
		if err != nil {
			t.Fatal(err)
		}
		text, err := signature.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) }))
	t.Cleanup(web.Close) // after the tests below, which run side by side
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: encoded}))
	for name, options := range map[string]string{
		"PEM":  "publisher_jwt {env.TEST_PEM} {env.TEST_ALG}",
		"JWKS": "publisher_jwks_url " + web.URL,
		"file": "publisher_jwks_url file://{env.TEST_DIR}/jwks.json",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			config := strings.Replace(siteWith("", "transport local"), `publisher_jwt "`+publisherKey+`"`, options, 1)
			if name == "file" {
				if err := os.WriteFile(filepath.Join(dir, "jwks.json"), set, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := &site{e2etest.Start(t, config, e2etest.Env("TEST_PEM="+public, "TEST_ALG=ES256", "TEST_DIR="+dir)), t}
			es, hs := signES(`{"mercure":{"publish":["*"]}}`), publishing("*")
			if answer := s.post(form("topic", "a"), bearer(es)); answer.Status != 200 {
				t.Errorf("%d: %s", answer.Status, answer.Body)
			}
			wantRefusal(t, s.post(form("topic", "a"), bearer(hs)), http.StatusUnauthorized, "not a JWT signed in a way that is accepted")
			wantRefusal(t, s.get(s.topics("a"), bearer(es)), http.StatusUnauthorized, "not a JWT signed in a way that is accepted")
			e2etest.Subscribe(t, s.topics("a"), bearer(subscribing("*"))).Close()
		})
	}
}

func TestRule28TheFirstPlaceWithATokenCounts(t *testing.T) {
	t.Parallel()
	s := serve(t, "transport local\ncookie_name session")
	good, bad := subscribing("*"), "bad"
	cookie := func(value string) e2etest.Option { return e2etest.Header("Cookie", "session="+value) }
	for name, c := range map[string]struct {
		query   string
		options []e2etest.Option
		well    bool
	}{
		"header":              {"", []e2etest.Option{bearer(good)}, true},
		"header before query": {"&authorization=" + bad, []e2etest.Option{bearer(good), cookie(bad)}, true},
		"bad header":          {"&authorization=" + good, []e2etest.Option{bearer(bad), cookie(good)}, false},
		"query":               {"&authorization=" + good, nil, true},
		"query before cookie": {"&authorization=" + good, []e2etest.Option{cookie(bad)}, true},
		"bad query":           {"&authorization=" + bad, []e2etest.Option{cookie(good)}, false},
		"cookie":              {"", []e2etest.Option{cookie(good)}, true},
		"beside Basic":        {"", []e2etest.Option{cookie(good), e2etest.Header("Authorization", "Basic YTpi")}, true},
		"another cookie":      {"", []e2etest.Option{e2etest.Header("Cookie", "mercureAuthorization="+good)}, false},
	} {
		if !c.well {
			wantRefusal(t, s.get(s.topics("a")+c.query, c.options...), http.StatusUnauthorized)
			continue
		}
		stream, err := e2etest.Open(t.Context(), s.topics("a")+c.query, c.options...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		stream.Close()
	}
}

func TestRule29ACookiePublishesFromPagesThatMay(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory+"publish_origins https://app.example.com")
	anywhere := serve(t, inMemory+"publish_origins *")
	cookie := e2etest.Header("Cookie", "mercureAuthorization="+publishing("*"))
	own := strings.TrimSuffix(s.URL(""), "/")
	for header, status := range map[string]int{
		"Origin " + own: 200, "Origin https://app.example.com": 200, "Referer https://app.example.com/page?x": 200,
		"Referer " + own + "/page": 200, "Origin https://evil.example": 403, "Referer https://evil.example/app.example.com": 403,
		"Origin null": 403, "X-None 1": 403, "Referer nonsense": 403,
	} {
		name, value, _ := strings.Cut(header, " ")
		answer := s.post(form("topic", "a"), cookie, e2etest.Header(name, value))
		if answer.Status != status {
			t.Errorf("%s: %d, want %d: %s", header, answer.Status, status, answer.Body)
		}
	}
	if answer := anywhere.post(form("topic", "a"), cookie, e2etest.Header("Origin", "https://evil.example")); answer.Status != 200 {
		t.Errorf("publish_origins *: %d", answer.Status)
	}
	if answer := s.post(form("topic", "a"), bearer(publishing("*")), e2etest.Header("Origin", "https://evil.example")); answer.Status != 200 {
		t.Errorf("a header needs no origin: %d", answer.Status)
	}
}

func TestRule30AStreamEndsWhenItsTokenDoes(t *testing.T) {
	t.Parallel()
	s := serve(t, "transport local")
	ends := time.Now().Add(2 * time.Second).Truncate(time.Second).Add(time.Second)
	claims := fmt.Sprintf(`{"mercure":{"subscribe":["*"]},"exp":%d}`, ends.Unix())
	stream := s.subscribe([]string{"a"}, bearer(signed(subscriberKey, claims)))
	if err := stream.Ended(patience); err != io.EOF {
		t.Fatalf("it ended with %v", err)
	}
	if early := time.Until(ends); early > 0 {
		t.Errorf("it ended %v early", early)
	}
	if raw := strings.ReplaceAll(stream.Raw(), ":\n", ""); raw != "" {
		t.Errorf("besides comments it had %q", raw)
	}
}

func TestRule31And32PrivateUpdatesNeedAGrant(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	alice := s.subscribe([]string{"books/{id}"}, bearer(subscribing("users/alice/{?topic}")))
	admin := s.subscribe([]string{"*"}, bearer(subscribing("*")))
	claimless := s.subscribe([]string{"*"}, bearer(signed(subscriberKey, `{}`)))
	other := s.subscribe([]string{"*"}, bearer(subscribing("users/bob/{?topic}", "books/2")))
	s.publish("topic", "books/1", "topic", "users/alice/?topic=books%2F1", "private", "on", "data", "for alice")
	s.publish("topic", "books/1", "topic", "users/bob/?topic=books%2F1", "private", "on", "data", "for bob")
	s.publish("topic", "books/2", "private", "on", "data", "of book 2")
	s.publish("topic", "users/alice/?topic=x", "private", "on", "data", "of x, for alice")
	s.publish("topic", "books/3", "data", "public")
	wantTexts(t, alice, "for alice", "public")
	wantTexts(t, admin, "for alice", "for bob", "of book 2", "of x, for alice", "public")
	wantTexts(t, claimless, "public")
	wantTexts(t, other, "for bob", "of book 2", "public")
}

func TestRule50PagesOfOtherOrigins(t *testing.T) {
	t.Parallel()
	s, any := serve(t, inMemory+"cors_origins https://app.example.com"), serve(t, inMemory+"cors_origins *")
	const app, evil = "https://app.example.com", "https://evil.example"
	preflight := func(s *site, origin string) http.Header {
		answer := e2etest.Send(t, http.MethodOptions, s.hub(), "", e2etest.Header("Origin", origin),
			e2etest.Header("Access-Control-Request-Method", "GET"),
			e2etest.Header("Access-Control-Request-Headers", "authorization,cache-control,last-event-id"))
		if answer.Status != http.StatusNoContent {
			t.Errorf("a preflight is answered %d", answer.Status)
		}
		return answer.Header
	}
	header := preflight(s, app)
	for name, words := range map[string][]string{
		"Access-Control-Allow-Origin": {app}, "Access-Control-Allow-Credentials": {"true"},
		"Access-Control-Allow-Methods": {"GET", "POST"},
		"Access-Control-Allow-Headers": {"authorization", "cache-control", "last-event-id", "content-type"},
	} {
		for _, word := range words {
			if !strings.Contains(strings.ToLower(header.Get(name)), strings.ToLower(word)) {
				t.Errorf("%s is %q", name, header.Get(name))
			}
		}
	}
	if header := preflight(s, evil); header.Get("Access-Control-Allow-Origin")+header.Get("Access-Control-Allow-Headers") != "" {
		t.Errorf("another origin may: %v", header)
	}
	if header := preflight(any, evil); header.Get("Access-Control-Allow-Origin") != "*" || header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("with *: %v", header)
	}
	for _, answer := range []e2etest.Answer{
		s.get(s.hub(), e2etest.Header("Origin", app)),
		s.get(s.hub("topic", "a", "authorization", "bad"), e2etest.Header("Origin", app)),
		s.get(s.URL(Path+"/x"), e2etest.Header("Origin", app)),
		s.post("", e2etest.Header("Origin", app)),
	} {
		if answer.Status < 400 || answer.Header.Get("Access-Control-Allow-Origin") != app {
			t.Errorf("the error %d can't be read by a page: %v", answer.Status, answer.Header)
		}
	}
	stream := s.subscribe([]string{"a"}, e2etest.Header("Origin", app))
	if exposed := stream.Response.Header.Get("Access-Control-Expose-Headers"); exposed != "Last-Event-ID" {
		t.Errorf("exposed are %q", exposed)
	}
}
