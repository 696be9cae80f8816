package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
)

const (
	jwksTimeout      = 5 * time.Second  // of one fetch
	jwksMaxRedirects = 5                // of one fetch
	jwksMaxBytes     = 1 << 20          // of a key set
	jwksMaxAge       = 10 * time.Minute // after which a key set is fetched again, in the background
	// jwksMinPause is how often a key set is fetched at most, whatever key IDs tokens invent.
	jwksMinPause = 5 * time.Second
)

// KeySets keeps the key sets by their addresses. It outlives configs, so that a reload loses no key
// while an address is out of reach, and is no reason to fetch.
type KeySets struct {
	keySetsMu sync.Mutex // guards the map
	byAddress map[string]*keySet
}

// Of returns the key set of an address. failed is told why it can't be fetched.
func (s *KeySets) Of(address string, failed func(error)) *keySet {
	s.keySetsMu.Lock()
	defer s.keySetsMu.Unlock()
	if s.byAddress == nil {
		s.byAddress = make(map[string]*keySet)
	}
	if s.byAddress[address] == nil {
		s.byAddress[address] = newKeySet(address, failed)
	}
	return s.byAddress[address]
}

// Of is a JSON Web Key Set that is fetched when it is first needed, when a token names a key that
// it does not hold, and when it has grown old. While its address is out of reach its keys stay.
type keySet struct {
	address string
	client  *http.Client
	failed  func(error)
	fetches singleflight.Group

	mu        sync.Mutex // guards all below
	keys      []Key
	fetched   time.Time // when the keys were fetched
	attempted time.Time // when that was last tried
}

func newKeySet(address string, failed func(error)) *keySet {
	return &keySet{address: address, failed: failed, client: &http.Client{
		Timeout: jwksTimeout,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > jwksMaxRedirects {
				return errors.New("too many redirects")
			}
			return CheckJWKSAddress(r.URL.String())
		},
	}}
}

// CheckJWKSAddress allows plain http on loopback only: whoever can change the keys on their way can
// sign any token.
func CheckJWKSAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("a key set's address must be https, such as https://id.example.com/.well-known/jwks.json")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("a key set's address may be plain http on loopback only; use https")
	}
	return nil
}

// verify holds a token against the keys, fetching them if there is reason to.
func (s *keySet) verify(ctx context.Context, header jose.Header, signed *jose.JSONWebSignature) ([]byte, error) {
	s.mu.Lock()
	keys, old := s.keys, time.Since(s.fetched) > jwksMaxAge
	s.mu.Unlock()
	payload, err := tryKeys(keys, header, signed)
	if err == nil {
		if old {
			s.fetch() // in the background: these keys still hold
		}
		return payload, nil
	}
	select {
	case <-s.fetch():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	keys = s.keys
	s.mu.Unlock()
	if len(keys) == 0 {
		return nil, errors.New("the keys that the token may be signed with can't be fetched at the moment")
	}
	return tryKeys(keys, header, signed)
}

// fetch fetches the keys, unless that was tried a moment ago. The channel tells when it is over.
func (s *keySet) fetch() <-chan singleflight.Result {
	return s.fetches.DoChan("", func() (any, error) {
		s.mu.Lock()
		soon := time.Since(s.attempted) < jwksMinPause
		if !soon {
			s.attempted = time.Now()
		}
		s.mu.Unlock()
		if soon {
			return nil, nil
		}
		keys, err := s.download()
		if err != nil {
			s.failed(err)
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.keys, s.fetched = keys, time.Now()
		return nil, nil
	})
}

func (s *keySet) download() ([]Key, error) {
	response, err := s.client.Get(s.address)
	if err != nil {
		if failure, ok := errors.AsType[*url.Error](err); ok {
			err = failure.Err // without the address, which may hold a secret
		}
		return nil, fmt.Errorf("fetching the key set: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetching the key set: status %d", response.StatusCode)
	}
	return readKeySet(io.LimitReader(response.Body, jwksMaxBytes))
}

// readKeySet reads from a key set the keys that tokens may be signed with.
func readKeySet(r io.Reader) ([]Key, error) {
	var set struct{ Keys []json.RawMessage }
	if err := json.NewDecoder(r).Decode(&set); err != nil {
		return nil, fmt.Errorf("reading the key set: %w", err)
	}
	if set.Keys == nil { // some other JSON, such as an error
		return nil, errors.New("reading the key set: it has no keys")
	}
	var keys []Key
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) != nil || key.Use != "" && key.Use != "sig" {
			continue // of a kind we don't know, or for something else
		}
		allowed := algorithmsOf(key.Key)
		if key.Algorithm != "" {
			allowed = slices.DeleteFunc(allowed, func(a jose.SignatureAlgorithm) bool { return string(a) != key.Algorithm })
		}
		if len(allowed) > 0 { // without "alg", the first that fits the key
			keys = append(keys, Key{key.KeyID, allowed[0], key.Key})
		}
	}
	return keys, nil
}
