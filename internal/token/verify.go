// Package token verifies JSON Web Tokens (RFC 7519): their signatures, by keys of the config or of a key
// set, and their claims. It knows nothing of requests and routes.
package token

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxTokenBytes bounds a token before any work is done for it.
const maxTokenBytes = 16 << 10

// Verifier checks the signatures and claims of tokens.
type Verifier struct {
	Keys     []Key   // keys of the config, which are tried first
	Set      *KeySet // further keys; nil for none
	Issuer   string  // the value that "iss" must have; empty for any
	Audience string  // a value that "aud" must hold; empty for any
}

// Verify returns the claims of a token if it is valid now. What the grants are for is the caller's to check.
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	signedBytes, err := v.open(ctx, token)
	if err != nil {
		return nil, err
	}
	p, err := readPayload(signedBytes)
	if err != nil {
		return nil, err
	}
	if err := v.checkClaims(p.Claims, time.Now()); err != nil {
		return nil, err
	}
	grants, err := p.grants()
	if err != nil {
		return nil, err
	}
	return &Claims{Claims: p.Claims, Grants: grants, Name: HashName(string(signedBytes))}, nil
}

// open returns the claims of a token that is signed with a key of the verifier, as they are written.
func (v *Verifier) open(ctx context.Context, token string) ([]byte, error) {
	if len(token) > maxTokenBytes {
		return nil, fmt.Errorf("the token has more than %d bytes", maxTokenBytes)
	}
	signed, err := jose.ParseSignedCompact(token, v.algorithms())
	if err != nil || len(signed.Signatures) != 1 {
		return nil, errors.New("the token is not a JWT signed in a way that is accepted here")
	}
	if err := checkHeader(token); err != nil {
		return nil, err
	}
	return v.verifySignature(ctx, signed)
}

// checkHeader refuses a token whose header asks for what we don't know: any "crit", an empty one included,
// and a payload that is not encoded. (RFC 7515, section 4.1.11; RFC 7797, section 7)
func checkHeader(token string) error {
	encoded, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	var header struct {
		Crit jsontext.Value `json:"crit"`
		B64  jsontext.Value `json:"b64"`
	}
	if err == nil {
		err = json.Unmarshal(text, &header)
	}
	switch {
	case err != nil:
		return errors.New("the token's header can't be read")
	case header.Crit != nil:
		return errors.New(`the token's header has "crit", which asks for what is not known here`)
	case header.B64 != nil && string(header.B64) != "true":
		return errors.New(`the token's header has "b64", but its payload must be encoded`)
	}
	return nil
}

// algorithms returns what tokens may be signed with: the algorithms of the config's keys, and all that a
// key set may have keys for.
func (v *Verifier) algorithms() (all []jose.SignatureAlgorithm) {
	for _, k := range v.Keys {
		all = append(all, k.Algorithm)
	}
	if v.Set != nil {
		all = append(all, publicKeyAlgorithms...)
	}
	return all
}

// verifySignature returns what is signed. It tries the keys of the config first, so that a key set out of
// reach delays only its own tokens.
func (v *Verifier) verifySignature(ctx context.Context, signed *jose.JSONWebSignature) ([]byte, error) {
	header := signed.Signatures[0].Protected
	signedBytes, err := tryKeys(v.Keys, header, signed)
	if err == nil || v.Set == nil {
		return signedBytes, err
	}
	return v.Set.verify(ctx, header, signed)
}

var errNoKey = errors.New("the token is not signed with a key that is accepted here")

// tryKeys returns what is signed if one of the keys has signed it.
func tryKeys(keys []Key, header jose.Header, signed *jose.JSONWebSignature) ([]byte, error) {
	for _, k := range keys {
		if string(k.Algorithm) != header.Algorithm || k.ID != "" && header.KeyID != "" && k.ID != header.KeyID {
			continue
		}
		if signedBytes, err := signed.Verify(k.Public); err == nil {
			return signedBytes, nil
		}
	}
	return nil, errNoKey
}
