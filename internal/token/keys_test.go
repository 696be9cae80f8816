package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// allAlgorithms are those that tokens may be signed with, one key each.
var allAlgorithms = []jose.SignatureAlgorithm{
	jose.HS256, jose.HS384, jose.HS512, jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// issuer signs tokens with a key of its own.
type issuer struct {
	algorithm jose.SignatureAlgorithm
	private   any // a secret, or a private key
	public    any // the secret, or the public key
	id        string
}

// issuers returns an issuer for each algorithm, RSA sharing one key. Keys are made once: they are slow.
var issuers = sync.OnceValue(func() map[jose.SignatureAlgorithm]issuer {
	all := make(map[jose.SignatureAlgorithm]issuer)
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	for algorithm, size := range hmacSize {
		secret := []byte(strings.Repeat("s", size-5) + string(algorithm))
		all[algorithm] = issuer{algorithm: algorithm, private: secret, public: secret}
	}
	for algorithm, curve := range map[jose.SignatureAlgorithm]elliptic.Curve{
		jose.ES256: elliptic.P256(), jose.ES384: elliptic.P384(), jose.ES512: elliptic.P521(),
	} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		must(err)
		all[algorithm] = issuer{algorithm: algorithm, private: key, public: key.Public()}
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	for _, algorithm := range rsaAlgorithms {
		all[algorithm] = issuer{algorithm: algorithm, private: key, public: key.Public()}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	all[jose.EdDSA] = issuer{algorithm: jose.EdDSA, private: private, public: public}
	return all
})

// token signs claims, as they stand.
func (i issuer) token(t testing.TB, claims string) string {
	t.Helper()
	options := &jose.SignerOptions{}
	if i.id != "" {
		options.WithHeader("kid", i.id)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: i.algorithm, Key: i.private}, options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// named returns the issuer with a key ID in its tokens.
func (i issuer) named(id string) issuer {
	i.id = id
	return i
}

// as returns the issuer with another algorithm for the same key.
func (i issuer) as(algorithm jose.SignatureAlgorithm) issuer {
	i.algorithm = algorithm
	return i
}

// key returns what verifies the issuer's tokens.
func (i issuer) key(t testing.TB) Key {
	t.Helper()
	text := ""
	if secret, ok := i.public.([]byte); ok {
		text = string(secret)
	} else {
		text = pemOf(t, i.public)
	}
	key, err := ReadKey(i.algorithm, text)
	if err != nil {
		t.Fatal(err)
	}
	return Key{i.id, i.algorithm, key}
}

// jwk returns the issuer's key as it stands in a key set.
func (i issuer) jwk() jose.JSONWebKey {
	return jose.JSONWebKey{Key: i.public, KeyID: i.id, Algorithm: string(i.algorithm), Use: "sig"}
}

func pemOf(t testing.TB, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// accepting returns a verifier that accepts tokens of these issuers.
func accepting(t testing.TB, of ...issuer) *Verifier {
	t.Helper()
	v := &Verifier{}
	for _, i := range of {
		v.Keys = append(v.Keys, i.key(t))
	}
	return v
}

// wantVerified and wantRefused hold a token against a verifier. reason is what the refusal has to speak of.
func wantVerified(t testing.TB, v *Verifier, token string) *Claims {
	t.Helper()
	claims, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Errorf("refused: %v", err)
		return &Claims{}
	}
	return claims
}

func wantRefused(t testing.TB, v *Verifier, token, reason string) {
	t.Helper()
	claims, err := v.Verify(t.Context(), token)
	switch {
	case err == nil:
		t.Errorf("accepted, as %+v", claims)
	case !strings.Contains(err.Error(), reason):
		t.Errorf("refused with %q, which does not speak of %q", err, reason)
	}
}
