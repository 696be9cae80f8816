package token

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// jwksOf returns a key set with the keys of these issuers.
func jwksOf(t testing.TB, of ...issuer) string {
	t.Helper()
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, i := range of {
		set.Keys = append(set.Keys, i.jwk())
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// identity is where a key set is fetched from in a test on fake time: no sockets, and what happens to
// a fetch is the test's to say.
type identity struct {
	t       testing.TB
	fetches atomic.Int64
	answer  atomic.Pointer[func(*http.Request) (*http.Response, error)]
	failed  atomic.Int64
}

func (i *identity) RoundTrip(r *http.Request) (*http.Response, error) {
	i.fetches.Add(1)
	return (*i.answer.Load())(r)
}

func (i *identity) answers(f func(*http.Request) (*http.Response, error)) { i.answer.Store(&f) }

// serves makes the answers a body of this status, after a delay.
func (i *identity) serves(status int, body string, delay time.Duration) {
	i.answers(func(r *http.Request) (*http.Response, error) {
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	})
}

// isDown makes fetches fail at once, or hang if it is silent.
func (i *identity) isDown(silent bool) {
	i.answers(func(r *http.Request) (*http.Response, error) {
		if silent {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		return nil, errors.New("connection refused")
	})
}

// newIdentity returns an identity that serves the keys of these issuers, and a verifier that uses it.
func newIdentity(t testing.TB, of ...issuer) (*identity, *Verifier) {
	t.Helper()
	i := &identity{t: t}
	i.serves(http.StatusOK, jwksOf(t, of...), 0)
	v := &Verifier{Set: newKeySet("https://id.example/jwks", func(error) { i.failed.Add(1) })}
	v.Set.client.Transport = i
	return i, v
}

func (i *identity) wantFetches(want int64) {
	i.t.Helper()
	if got := i.fetches.Load(); got != want {
		i.t.Errorf("the key set was fetched %d times, want %d", got, want)
	}
}

var (
	oldKey = func() issuer { return issuers()[jose.ES256].named("old") }
	newKey = func() issuer { return issuers()[jose.EdDSA].named("new") }
)

func TestKeySetIsFetchedWhenAKeyIsFirstNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, c := newIdentity(t, oldKey(), newKey())
		static := issuers()[jose.HS256]
		c.Keys = append(c.Keys, static.key(t))
		time.Sleep(time.Hour)
		wantVerified(t, c, static.token(t, `{}`))
		i.wantFetches(0)
		for range 10 {
			wantVerified(t, c, oldKey().token(t, `{}`))
			wantVerified(t, c, newKey().token(t, `{}`))
			wantVerified(t, c, oldKey().named("").token(t, `{}`))
		}
		i.wantFetches(1)
	})
}

func TestManyWhoNeedAKeyWaitForOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, c := newIdentity(t)
		i.serves(http.StatusOK, jwksOf(t, oldKey()), 3*time.Second)
		token := oldKey().token(t, `{}`)
		var all sync.WaitGroup
		begin := time.Now()
		for range 100 {
			all.Go(func() { wantVerified(t, c, token) })
		}
		all.Wait()
		if waited := time.Since(begin); waited != 3*time.Second {
			t.Errorf("it took %v", waited)
		}
		i.wantFetches(1)
	})
}

func TestRotatedKeyIsFoundWithin10Seconds(t *testing.T) {
	// At the worst moment the set has just been fetched, for somebody who invents key IDs all the time.
	for name, hammered := range map[string]bool{"at rest": false, "under invented key IDs": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i, c := newIdentity(t, oldKey())
				i.serves(http.StatusOK, jwksOf(t, oldKey()), time.Second)
				wantVerified(t, c, oldKey().token(t, `{}`))
				if !hammered {
					time.Sleep(time.Hour)
				}
				i.serves(http.StatusOK, jwksOf(t, newKey()), time.Second)
				ctx, cancel := context.WithCancel(t.Context())
				var hammer sync.WaitGroup
				if hammered {
					hammer.Go(func() {
						for n := 0; ctx.Err() == nil; n++ {
							_, _ = c.Verify(ctx, oldKey().named(fmt.Sprint(n)).token(t, `{}`))
							time.Sleep(50 * time.Millisecond)
						}
					})
				}
				begin, token := time.Now(), newKey().token(t, `{}`)
				for {
					if _, err := c.Verify(t.Context(), token); err == nil {
						break
					}
					time.Sleep(100 * time.Millisecond)
					if time.Since(begin) > 10*time.Second {
						t.Fatal("the new key is not found within 10 s of its first use")
					}
				}
				t.Logf("found after %v", time.Since(begin))
				wantRefused(t, c, oldKey().token(t, `{}`), "not signed with a key") // it was withdrawn
				cancel()
				hammer.Wait()
			})
		})
	}
}

func TestInventedKeyIDsCauseOneFetchIn5Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, c := newIdentity(t, oldKey())
		good := oldKey().token(t, `{}`)
		stranger := issuers()[jose.ES384]
		var all sync.WaitGroup
		for n := range 1000 { // within 20 s
			all.Go(func() {
				time.Sleep(time.Duration(n) * 20 * time.Millisecond)
				wantRefused(t, c, stranger.named(fmt.Sprint("invented", n)).token(t, `{}`), "not signed with a key")
				wantVerified(t, c, good)
			})
		}
		all.Wait()
		if n := i.fetches.Load(); n > 4 {
			t.Errorf("1,000 invented key IDs in 20 s cause %d fetches", n)
		}
	})
}

func TestKeySetIsFetchedAgainWhenItHasGrownOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, c := newIdentity(t, oldKey())
		wantVerified(t, c, oldKey().token(t, `{}`))
		time.Sleep(jwksMaxAge)
		wantVerified(t, c, oldKey().token(t, `{}`))
		i.wantFetches(1)
		i.serves(http.StatusOK, jwksOf(t, newKey()), time.Second)
		time.Sleep(time.Nanosecond)
		begin := time.Now()
		wantVerified(t, c, oldKey().token(t, `{}`)) // in the background
		if time.Since(begin) != 0 {
			t.Error("a token waits for the refresh")
		}
		time.Sleep(2 * time.Second)
		i.wantFetches(2)
		wantRefused(t, c, oldKey().token(t, `{}`), "not signed with a key")
		wantVerified(t, c, newKey().token(t, `{}`))
		i.wantFetches(2)
	})
}

func TestKeysStayWhileTheirAddressIsOutOfReach(t *testing.T) {
	huge := `{"keys":[` + strings.Repeat(`{"kty":"unknown"},`, 1<<16) + jwksOf(t, newKey())[len(`{"keys":[`):]
	for name, trouble := range map[string]func(*identity){
		"refused":         func(i *identity) { i.isDown(false) },
		"silent":          func(i *identity) { i.isDown(true) },
		"500":             func(i *identity) { i.serves(http.StatusInternalServerError, jwksOf(t, newKey()), 0) },
		"404":             func(i *identity) { i.serves(http.StatusNotFound, jwksOf(t, newKey()), 0) },
		"204":             func(i *identity) { i.serves(http.StatusNoContent, "", 0) },
		"empty":           func(i *identity) { i.serves(http.StatusOK, "", 0) },
		"HTML":            func(i *identity) { i.serves(http.StatusOK, "<html>sign in to the airport's wifi</html>", 0) },
		"other JSON":      func(i *identity) { i.serves(http.StatusOK, `{"error":"try later"}`, 0) },
		"null":            func(i *identity) { i.serves(http.StatusOK, `null`, 0) },
		"keys null":       func(i *identity) { i.serves(http.StatusOK, `{"keys":null}`, 0) },
		"keys no array":   func(i *identity) { i.serves(http.StatusOK, `{"keys":{}}`, 0) },
		"cut off":         func(i *identity) { i.serves(http.StatusOK, jwksOf(t, newKey())[:100], 0) },
		"huge":            func(i *identity) { i.serves(http.StatusOK, huge, 0) },
		"deep":            func(i *identity) { i.serves(http.StatusOK, `{"keys":`+strings.Repeat("[", 1<<19), 0) },
		"slow":            func(i *identity) { i.serves(http.StatusOK, jwksOf(t, newKey()), time.Minute) },
		"body that hangs": func(i *identity) { i.answers(hangingBody) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i, c := newIdentity(t, oldKey())
				static := issuers()[jose.HS256]
				c.Keys = append(c.Keys, static.key(t))
				wantVerified(t, c, oldKey().token(t, `{}`))
				trouble(i)
				for range 3 {
					time.Sleep(jwksMaxAge + 1)
					begin := time.Now()
					wantVerified(t, c, oldKey().token(t, `{}`))
					var unknown sync.WaitGroup
					unknown.Go(func() { wantRefused(t, c, newKey().token(t, `{}`), "not signed with a key") })
					synctest.Wait()
					wantVerified(t, c, oldKey().token(t, `{}`))
					wantVerified(t, c, static.token(t, `{}`))
					if waited := time.Since(begin); waited != 0 {
						t.Errorf("tokens with known keys waited %v", waited)
					}
					unknown.Wait()
					if waited := time.Since(begin); waited > jwksTimeout {
						t.Errorf("a token with an unknown key waited %v", waited)
					}
				}
				if i.failed.Load() == 0 {
					t.Error("nobody was told")
				}
				i.serves(http.StatusOK, jwksOf(t, newKey()), 0)
				time.Sleep(jwksMinPause)
				wantVerified(t, c, newKey().token(t, `{}`))
			})
		})
	}
}

// hangingBody answers with headers and the beginning of a body.
func hangingBody(r *http.Request) (*http.Response, error) {
	reader, writer := io.Pipe()
	go func() {
		_, _ = writer.Write([]byte(`{"keys":[`))
		<-r.Context().Done()
		_ = writer.CloseWithError(r.Context().Err())
	}()
	return &http.Response{StatusCode: http.StatusOK, Body: reader, Request: r}, nil
}

func TestWithoutAnyKeyATokenIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, c := newIdentity(t)
		i.isDown(false)
		token := oldKey().token(t, `{}`)
		for range 10 {
			wantRefused(t, c, token, "can't be fetched at the moment")
		}
		i.wantFetches(1)
		i.serves(http.StatusOK, jwksOf(t, oldKey()), 0)
		time.Sleep(jwksMinPause)
		wantVerified(t, c, token)
	})
}

func TestWhoLeavesWaitsForNoFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, c := newIdentity(t)
		i.isDown(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := c.Verify(ctx, oldKey().token(t, `{}`)); err == nil || time.Since(begin) != time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		time.Sleep(jwksTimeout) // the fetch was not only theirs
	})
}

func TestOnlyPublicSigningKeysOfASetCount(t *testing.T) {
	rs, hs := issuers()[jose.RS256].named("rs"), issuers()[jose.HS256].named("hs")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	key := func(i issuer, change func(*jose.JSONWebKey)) jose.JSONWebKey {
		k := i.jwk()
		change(&k)
		return k
	}
	for name, c := range map[string]struct {
		key  jose.JSONWebKey
		want string // algorithm, or "" where the key is ignored
	}{
		"as it should be":       {rs.jwk(), "RS256"},
		"use missing":           {key(rs, func(k *jose.JSONWebKey) { k.Use = "" }), "RS256"},
		"use enc":               {key(rs, func(k *jose.JSONWebKey) { k.Use = "enc" }), ""},
		"alg of encryption":     {key(rs, func(k *jose.JSONWebKey) { k.Use, k.Algorithm = "", "RSA-OAEP" }), ""},
		"alg of another kind":   {key(rs, func(k *jose.JSONWebKey) { k.Algorithm = "ES256" }), ""},
		"alg HS256":             {key(rs, func(k *jose.JSONWebKey) { k.Algorithm = "HS256" }), ""},
		"alg none":              {key(rs, func(k *jose.JSONWebKey) { k.Algorithm = "none" }), ""},
		"alg PS384":             {key(rs, func(k *jose.JSONWebKey) { k.Algorithm = "PS384" }), "PS384"},
		"alg missing, RSA":      {key(rs, func(k *jose.JSONWebKey) { k.Algorithm = "" }), "RS256"},
		"alg missing, P-256":    {key(issuers()[jose.ES256], func(k *jose.JSONWebKey) { k.Algorithm = "" }), "ES256"},
		"alg missing, P-384":    {key(issuers()[jose.ES384], func(k *jose.JSONWebKey) { k.Algorithm = "" }), "ES384"},
		"alg missing, P-521":    {key(issuers()[jose.ES512], func(k *jose.JSONWebKey) { k.Algorithm = "" }), "ES512"},
		"alg missing, Ed25519":  {key(issuers()[jose.EdDSA], func(k *jose.JSONWebKey) { k.Algorithm = "" }), "EdDSA"},
		"a secret":              {hs.jwk(), ""},
		"a secret without alg":  {key(hs, func(k *jose.JSONWebKey) { k.Algorithm = "" }), ""},
		"a private RSA key":     {key(rs, func(k *jose.JSONWebKey) { k.Key = rs.private }), ""},
		"a private Ed25519 key": {key(issuers()[jose.EdDSA], func(k *jose.JSONWebKey) { k.Key = issuers()[jose.EdDSA].private }), ""},
		"a short RSA key":       {key(rs, func(k *jose.JSONWebKey) { k.Key = &small.PublicKey }), ""},
	} {
		text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{c.key}})
		if err != nil {
			t.Fatal(err)
		}
		keys, err := readKeySet(bytes.NewReader(text))
		got := ""
		if len(keys) > 0 {
			got = string(keys[0].Algorithm)
		}
		if err != nil || len(keys) > 1 || got != c.want {
			t.Errorf("%s: %d keys, algorithm %q, want %q: %v", name, len(keys), got, c.want, err)
		}
	}
	// What can't be read is left out; the rest counts.
	mixed := `{"keys":[1,null,{},{"kty":"EC"},{"kty":"RSA","n":"","e":""},{"kty":"new"},{"kty":"oct","k":"AAAA"},` +
		jwksOf(t, rs)[len(`{"keys":[`):]
	if keys, err := readKeySet(strings.NewReader(mixed)); err != nil || len(keys) != 1 || keys[0].ID != "rs" {
		t.Errorf("of a mixed set %v: %v", keys, err)
	}
	if keys, err := readKeySet(strings.NewReader(`{"keys":[]}`)); err != nil || len(keys) != 0 {
		t.Errorf("of an empty set %v: %v", keys, err)
	}
}

func TestSecretOfAKeySetIsNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hs := issuers()[jose.HS256].named("hs")
		_, c := newIdentity(t, hs, oldKey())
		wantRefused(t, c, hs.token(t, `{}`), "not a JWT signed in a way")
		c.Keys = append(c.Keys, issuer{algorithm: jose.HS256, public: []byte(strings.Repeat("x", 32))}.key(t))
		wantRefused(t, c, hs.token(t, `{}`), "not signed with a key") // now that HS256 is accepted
	})
}

// FuzzKeySet shows that no key set is too strange to be read or refused, and that all keys that come out
// are public and long enough.
func FuzzKeySet(f *testing.F) {
	f.Add(jwksOf(f, issuers()[jose.RS256], issuers()[jose.ES512], issuers()[jose.EdDSA], issuers()[jose.HS256]))
	f.Add(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"},{"kty":"OKP","crv":"Ed25519","x":"AQ"}]}`)
	f.Add(`{"keys":[{"kty":"RSA","x5c":["AAAA"],"use":"sig"}],"Keys":[]}`)
	f.Add(`{"keys":[null,1,"",[],{}]}`)
	f.Add(`{"keys":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := readKeySet(strings.NewReader(text))
		if err != nil && len(keys) > 0 {
			t.Error("keys and an error")
		}
		for _, k := range keys {
			if len(algorithmsOf(k.Public)) == 0 {
				t.Errorf("a %T is taken for a public key", k.Public)
			}
		}
	})
}

func TestAKeySetMayStandInAFile(t *testing.T) {
	es := issuers()[jose.ES256].named("a")
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, []byte(jwksOf(t, es)), 0o600); err != nil {
		t.Fatal(err)
	}
	slash := filepath.ToSlash(path)
	if !strings.HasPrefix(slash, "/") { // C:/...
		slash = "/" + slash
	}
	var sets KeySets
	v := &Verifier{Set: sets.Of("file://"+slash, func(err error) { t.Error(err) })}
	wantVerified(t, v, es.token(t, `{}`))
	for address, good := range map[string]bool{
		"file:///etc/caddy/jwks.json": true, "file://etc/jwks.json": false, "file:jwks.json": false, "/etc/jwks.json": false,
		"https://id.example.com/jwks.json": false,
	} {
		if err := CheckKeySetFile(address); (err == nil) != good {
			t.Errorf("%s: %v", address, err)
		}
	}
}
