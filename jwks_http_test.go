package sse_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// countedServer answers every request with the body, and counts.
func countedServer(t testing.TB, requests *atomic.Int64, body string) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// rsaJWKS is a key set with the public key of rsaKey.
func rsaJWKS(t testing.TB, id string) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	set, err := json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "kid": id, "alg": "RS256", "use": "sig", "n": encode(rsaKey().N.Bytes()), "e": "AQAB",
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(set)
}

// rsaToken is a token that names a key of a key set.
func rsaToken(id string) string {
	return compact(`{"alg":"RS256","kid":"`+id+`"}`, `{"sub":"alice","sse":{"subscribe":["a"]}}`, withRSA(rsaKey()))
}

func jwksRoutes(address string) string {
	route := func(path string) string {
		return `
		sse ` + path + ` {
			jwt {
				` + hsKey + `
				jwks ` + address + `
			}
		}`
	}
	return route("/events") + route("/more")
}

func TestKeySetIsNotAskedForBeforeATokenNeedsIt(t *testing.T) {
	setSecrets(t)
	var requests atomic.Int64
	routes := jwksRoutes(countedServer(t, &requests, rsaJWKS(t, "one")))
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte("{\nadmin off\n}\nhttp://127.0.0.1:1 {\n"+routes+"\n}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var parsed caddy.Config
	if err := json.Unmarshal(config, &parsed); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&parsed); err != nil {
		t.Fatal(err)
	}
	s := serveOnce(t, routes)
	static := e2etest.Subscribe(t, s.url("/events?topic=a"), bearer(granting("", list("a"), nil)))
	static.Connected(t)
	if n := requests.Load(); n != 0 {
		t.Errorf("it was asked for %d times", n)
	}
	// One fetch serves all routes, and the next config.
	for range 2 {
		for _, path := range []string{"/events", "/more"} {
			e2etest.Subscribe(t, s.url(path+"?topic=a"), bearer(rsaToken("one"))).Connected(t)
		}
		if err := s.load(); err != nil {
			t.Fatal(err)
		}
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("it was fetched %d times", n)
	}
}

func TestInventedKeyIDsCauseFewFetches(t *testing.T) {
	setSecrets(t)
	var requests atomic.Int64
	s := serveOnce(t, jwksRoutes(countedServer(t, &requests, rsaJWKS(t, "one"))))
	e2etest.Subscribe(t, s.url("/events?topic=a"), bearer(rsaToken("one"))).Connected(t)
	token := rsaToken("other")
	begin := time.Now()
	var all sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		all.Go(func() {
			for {
				n := next.Add(1)
				if n > 1000 {
					return
				}
				kid := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":"RS256","kid":"invented-%d"}`, n))
				answer, err := e2etest.Do(t.Context(), http.MethodHead, s.url([]string{"/events", "/more"}[n%2]+"?topic=a"), "",
					bearer(kid+token[strings.Index(token, "."):]))
				if err != nil || answer.Status != http.StatusUnauthorized {
					t.Errorf("answered %d: %v", answer.Status, err)
				}
			}
		})
	}
	all.Wait()
	if most := int64(2 + time.Since(begin)/(5*time.Second)); requests.Load() > most {
		t.Errorf("%d fetches, want %d at most", requests.Load(), most)
	}
}

func TestUnreachableKeySetDelaysNoOtherTokensAndItsAddressIsNotLogged(t *testing.T) {
	e2etest.NotAboutStreams(t)
	setSecrets(t)
	t.Setenv("SSE_TEST_JWKS_KEY", "api-key-of-the-jwks")
	hang := make(chan struct{})
	var trouble atomic.Bool
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if trouble.Load() {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
			return
		}
		_, _ = io.WriteString(w, rsaJWKS(t, "one"))
	}))
	t.Cleanup(server.Close)
	defer close(hang)
	s := serveLogged(t, jwksRoutes(strings.Replace(server.URL, "http://", "http://user:{env.SSE_TEST_JWKS_KEY}@", 1)+"/jwks?key={env.SSE_TEST_JWKS_KEY}"))
	e2etest.Subscribe(t, s.url("/events?topic=a"), bearer(rsaToken("one"))).Connected(t)
	trouble.Store(true)
	if err := s.load(); err != nil { // the keys are still known
		t.Fatal(err)
	}
	unknown := make(chan struct{})
	go func() {
		defer close(unknown)
		begin := time.Now()
		for requests.Load() == 1 { // the first fetch was a moment ago
			refusedGet(t, s.url("/events?topic=a"), bearer(rsaToken("two")))
		}
		if waited := time.Since(begin); waited > patience {
			t.Errorf("the unknown key was refused after %v", waited)
		}
	}()
	eventually(t, patience, "a fetch hangs", func() bool { return requests.Load() > 1 })
	begin := time.Now()
	for range 3 {
		e2etest.Subscribe(t, s.url("/events?topic=a"), bearer(rsaToken("one"))).Connected(t)
		e2etest.Subscribe(t, s.url("/more?topic=a"), bearer(granting("", list("a"), nil))).Connected(t)
	}
	select {
	case <-unknown:
		t.Error("the fetch did not hang")
	default:
	}
	if waited := time.Since(begin); waited > 4*time.Second {
		t.Errorf("tokens of other keys took %v", waited)
	}
	<-unknown
	eventually(t, patience, "the log says so", func() bool { return strings.Contains(s.everything(), "key set for tokens can't be fetched") })
	if !strings.Contains(s.everything(), `"level":"warn"`) {
		t.Error("not as a warning")
	}
	s.wantNowhere("api-key-of-the-jwks")
}

func TestKeySetFollowsRedirectsOnlyWhereItMayGo(t *testing.T) {
	setSecrets(t)
	for name, c := range map[string]struct {
		to     string // {self} is the server's own address
		served bool
		most   int64
	}{
		"to another path on loopback": {"{self}/keys", true, 2},
		"to plain http elsewhere":     {"http://jwks.invalid/keys", false, 1},
		"to plain http, relatively":   {"//jwks.invalid/keys", false, 1},
		"to a file":                   {"file:///etc/keys", false, 1},
		"in a circle":                 {"{self}/jwks", false, 7},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int64
			var server *httptest.Server
			server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				if r.URL.Path == "/keys" {
					_, _ = io.WriteString(w, rsaJWKS(t, "one"))
					return
				}
				http.Redirect(w, r, strings.ReplaceAll(c.to, "{self}", server.URL), http.StatusFound)
			}))
			defer server.Close()
			s := serveOnce(t, jwksRoutes(server.URL+"/jwks"))
			defer s.stop()
			if c.served {
				stream := e2etest.Subscribe(t, s.url("/events?topic=a"), bearer(rsaToken("one")))
				stream.Connected(t)
				stream.Close()
			} else {
				wantRefusal(t, refusedGet(t, s.url("/events?topic=a"), bearer(rsaToken("one"))), http.StatusUnauthorized, "can't be fetched")
			}
			if n := requests.Load(); n > c.most {
				t.Errorf("%d requests, want %d at most", n, c.most)
			}
		})
	}
}

// Bytes without end, from a server that was taken over.
func TestKeySetWithoutEndIsCutOff(t *testing.T) {
	setSecrets(t)
	var sent atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"keys":[`)
		for chunk := []byte(strings.Repeat(`{"kty":"unknown"},`, 1000)); ; {
			n, err := w.Write(chunk)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	s := serveOnce(t, jwksRoutes(server.URL))
	begin := time.Now()
	wantRefusal(t, refusedGet(t, s.url("/events?topic=a"), bearer(rsaToken("one"))), http.StatusUnauthorized, "can't be fetched")
	if waited := time.Since(begin); waited > 4*time.Second {
		t.Errorf("it took %v", waited)
	}
	eventually(t, patience, "the server was cut off", func() bool {
		before := sent.Load()
		time.Sleep(50 * time.Millisecond)
		return sent.Load() == before
	})
	if sent.Load() > 64<<20 {
		t.Errorf("%d bytes were sent", sent.Load())
	}
}
