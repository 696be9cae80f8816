package token

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
)

// Bounds of a key set.
const (
	jwksTimeout      = 5 * time.Second  // of one fetch
	jwksMaxRedirects = 5                // of one fetch
	jwksMaxBytes     = 1 << 20          // of the JSON
	jwksMaxAge       = 10 * time.Minute // an older key set is fetched again, in the background
	jwksMinPause     = 5 * time.Second  // between two fetches, whatever key IDs tokens invent
)

// KeySets keeps key sets by their addresses. It outlives configs: a reload loses no key while an address
// is out of reach, and is no reason to fetch. The zero value is empty and ready.
type KeySets struct {
	mu        sync.Mutex // guards byAddress
	byAddress map[string]*KeySet
}

// Of returns the key set of an address. If the set is new, failed gets the errors of its fetches.
func (s *KeySets) Of(address string, failed func(error)) *KeySet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byAddress == nil {
		s.byAddress = make(map[string]*KeySet)
	}
	if s.byAddress[address] == nil {
		s.byAddress[address] = newKeySet(address, failed)
	}
	return s.byAddress[address]
}

// KeySet is a JSON Web Key Set (RFC 7517). It is fetched when it is first needed, when it has no key for a
// token, and when it is old. While its address is out of reach the keys stay.
type KeySet struct {
	address string
	client  *http.Client
	failed  func(error)
	fetches singleflight.Group

	mu        sync.Mutex // guards all below
	keys      []Key
	fetched   time.Time // when the keys were fetched
	attempted time.Time // when that was last tried
}

func newKeySet(address string, failed func(error)) *KeySet {
	return &KeySet{address: address, failed: failed, client: &http.Client{
		Timeout: jwksTimeout,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > jwksMaxRedirects {
				return errors.New("too many redirects")
			}
			return CheckJWKSAddress(r.URL.String())
		},
	}}
}

// CheckKeySetFile refuses what does not name the file of a key set on this machine, as file:///etc/caddy/jwks.json.
func CheckKeySetFile(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != fileScheme || u.Host != "" || !strings.HasPrefix(u.Path, "/") {
		return errors.New("a key set's file is named with its whole path, such as file:///etc/caddy/jwks.json")
	}
	return nil
}

const fileScheme = "file"

// CheckJWKSAddress refuses plain http but on loopback: an attacker who can change the keys on their way can
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

// verify returns what is signed if one of the keys has signed it. It fetches the keys first if none has.
func (s *KeySet) verify(
	ctx context.Context, header jose.Header, signed *jose.JSONWebSignature,
) ([]byte, error) {
	s.mu.Lock()
	keys, old := s.keys, time.Since(s.fetched) > jwksMaxAge
	s.mu.Unlock()
	signedBytes, err := tryKeys(keys, header, signed)
	if err == nil {
		if old {
			s.fetch() // in the background: these keys still count
		}
		return signedBytes, nil
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

// fetch fetches the keys in the background, unless that was tried within jwksMinPause. The channel gets a
// value when that is done.
func (s *KeySet) fetch() <-chan singleflight.Result {
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

func (s *KeySet) download() ([]Key, error) {
	if u, err := url.Parse(s.address); err == nil && u.Scheme == fileScheme { // the config is who may name one
		path := filepath.FromSlash(u.Path)
		if filepath.VolumeName(path[1:]) != "" { // file:///C:/...
			path = path[1:]
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the key set: %w", err)
		}
		return readKeySet(bytes.NewReader(text))
	}
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

// readKeySet reads a key set. It returns the keys that tokens may be signed with, without the others.
func readKeySet(r io.Reader) ([]Key, error) {
	var set struct{ Keys []json.RawMessage }
	if err := json.NewDecoder(r).Decode(&set); err != nil {
		return nil, fmt.Errorf("reading the key set: %w", err)
	}
	if set.Keys == nil { // this is other JSON, such as an error
		return nil, errors.New("reading the key set: it has no keys")
	}
	var keys []Key
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) != nil || key.Use != "" && key.Use != "sig" {
			continue // the key is of an unknown kind, or for something else
		}
		allowed := algorithmsOf(key.Key)
		if key.Algorithm != "" {
			allowed = slices.DeleteFunc(allowed, func(a jose.SignatureAlgorithm) bool {
				return string(a) != key.Algorithm
			})
		}
		if len(allowed) > 0 { // without "alg", the first that fits the key
			keys = append(keys, Key{key.KeyID, allowed[0], key.Key})
		}
	}
	return keys, nil
}
