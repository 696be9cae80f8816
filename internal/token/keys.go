package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// Key is a key that tokens may be signed with.
type Key struct {
	ID        string                  // the "kid" of its tokens; empty for any
	Algorithm jose.SignatureAlgorithm // the only one it is used with, whatever a token says
	Public    any                     // a public key, or the secret of an HS algorithm
}

// hmacSize is how many bytes the secret of an HS algorithm must have. (RFC 7518, section 3.2)
var hmacSize = map[jose.SignatureAlgorithm]int{jose.HS256: 32, jose.HS384: 48, jose.HS512: 64}

// rsaMinBits is how many bits an RSA key must have. (RFC 7518, section 3.3)
const rsaMinBits = 2048

// rsaAlgorithms are those of RSA keys.
var rsaAlgorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
}

// publicKeyAlgorithms are those whose keys are not secret.
var publicKeyAlgorithms = append(slices.Clone(rsaAlgorithms), jose.ES256, jose.ES384, jose.ES512, jose.EdDSA)

// KnownAlgorithm reports whether tokens may be signed with an algorithm of that name.
func KnownAlgorithm(name string) bool {
	algorithm := jose.SignatureAlgorithm(name)
	return hmacSize[algorithm] != 0 || slices.Contains(publicKeyAlgorithms, algorithm)
}

// ReadKey reads a key from text. For an HS algorithm the text is the secret. For the others it is the public
// key, or a certificate, in PEM form.
func ReadKey(algorithm jose.SignatureAlgorithm, text string) (any, error) {
	if size, ok := hmacSize[algorithm]; ok {
		if len(text) < size {
			return nil, fmt.Errorf("the secret has %d bytes; it needs %d or more (RFC 7518, section 3.2)",
				len(text), size)
		}
		return []byte(text), nil
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("not a public key in PEM form, -----BEGIN PUBLIC KEY-----")
	}
	var key any
	var err error
	switch block.Type {
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = certificate.PublicKey
		}
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block %q; give the public key, -----BEGIN PUBLIC KEY-----", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("not readable: %w", err)
	}
	if key, ok := key.(*rsa.PublicKey); ok && key.N.BitLen() < rsaMinBits {
		return nil, fmt.Errorf("the RSA key has %d bits; it needs %d or more (RFC 7518, section 3.3)",
			key.N.BitLen(), rsaMinBits)
	}
	if !slices.Contains(algorithmsOf(key), algorithm) {
		return nil, fmt.Errorf("it is a %T, which %s can't be used with", key, algorithm)
	}
	return key, nil
}

// algorithmsOf returns what a public key can be used with. A secret key has no place in a key set: for it
// there is nothing.
func algorithmsOf(key any) []jose.SignatureAlgorithm {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < rsaMinBits {
			return nil
		}
		return slices.Clone(rsaAlgorithms)
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return []jose.SignatureAlgorithm{jose.ES256}
		case 384:
			return []jose.SignatureAlgorithm{jose.ES384}
		case 521:
			return []jose.SignatureAlgorithm{jose.ES512}
		}
	}
	return nil
}

// HashName returns a name for a secret. The name does not give the secret away.
func HashName(secret string) string {
	hash := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(hash[:16])
}
