package mercure

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/token"
)

// Key is the key that the tokens of a role are signed with.
type Key struct {
	// The key. For an HS algorithm it is the secret, at least as long as the hash; for the others it is the public key,
	// or a certificate, in PEM form. Placeholders such as {env.X} are replaced when the config is loaded; a key that
	// comes out empty is an error.
	Key string `json:"key,omitempty"`
	// The only algorithm that tokens are accepted with: HS, RS, PS or ES with 256, 384 or 512, or EdDSA. Placeholders
	// are replaced. Default, also if it comes out empty: HS256.
	Algorithm string `json:"algorithm,omitempty"`
}

// aToken is what a JSON Web Token looks like.
var aToken = regexp.MustCompile(`^eyJ[\w-]*\.[\w-]+\.[\w-]*$`)

// check refuses a key that can't be used. Placeholders are not replaced yet; what has one is checked when the config
// is loaded.
func (k *Key) check() error {
	if strings.Contains(k.Key, "{") || strings.Contains(k.Algorithm, "{") {
		return nil
	}
	_, err := k.read()
	return err
}

// read replaces the placeholders and reads the key. Errors don't show it.
func (k *Key) read() (token.Key, error) {
	text, err := option.Fill(k.Key)
	if err != nil {
		return token.Key{}, fmt.Errorf("the key %w", err)
	}
	if aToken.MatchString(text) {
		return token.Key{}, errors.New("this is a token, not a key; " +
			"give it the secret, or the public key, by which your application's tokens are signed")
	}
	algorithm := cmp.Or(caddy.NewReplacer().ReplaceAll(k.Algorithm, ""), string(jose.HS256))
	if !token.KnownAlgorithm(algorithm) {
		return token.Key{}, errors.New("the algorithm is none of HS256, HS384, HS512, RS256, RS384, RS512, " +
			"PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA")
	}
	key, err := token.ReadKey(jose.SignatureAlgorithm(algorithm), text)
	if err != nil && strings.HasPrefix(algorithm, "HS") {
		err = fmt.Errorf("%w; other hubs take shorter ones, which can be guessed: choose a longer secret, "+
			"here and in your application (MERCURE_JWT_SECRET)", err)
	}
	if err != nil {
		return token.Key{}, fmt.Errorf("the %s key: %w", algorithm, err)
	}
	return token.Key{Algorithm: jose.SignatureAlgorithm(algorithm), Public: key}, nil
}

// verifier checks the tokens of one role.
type verifier struct {
	token.Verifier
	address string // of its key set; empty for none
}

// some reports whether any token can be valid.
func (v *verifier) some() bool { return len(v.Keys) > 0 || v.address != "" }

// shareKeys lets the hub keep the key set, over reloads.
func (v *verifier) shareKeys(h *live.Hub) {
	if v.address != "" {
		v.Set = h.KeySet(v.address)
	}
}

// readKeys makes the verifiers.
func (h *Handler) readKeys() error {
	for _, role := range h.roles() {
		if role.key != nil {
			key, err := role.key.read()
			if err != nil {
				return &option.Error{Option: role.name + "_jwt", Err: err}
			}
			role.verifier.Keys = []token.Key{key}
		}
		if role.set != "" {
			role.verifier.address = caddy.NewReplacer().ReplaceAll(role.set, "")
			if err := checkKeySet(role.verifier.address); err != nil {
				return &option.Error{Option: role.name + "_jwks_url", Err: err}
			}
		}
	}
	return nil
}

// role is one of the two that tokens are for.
type role struct {
	name     string
	key      *Key
	set      string
	verifier *verifier
}

func (h *Handler) roles() []role {
	return []role{
		{"publisher", h.PublisherJWT, h.PublisherJWKS, &h.publishers},
		{"subscriber", h.SubscriberJWT, h.SubscriberJWKS, &h.subscribers},
	}
}

// checkKeySet refuses what is no address of a key set.
func checkKeySet(address string) error {
	if strings.HasPrefix(address, "file:") {
		return token.CheckKeySetFile(address)
	}
	return token.CheckJWKSAddress(address)
}
