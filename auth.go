package sse

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// publisher is who publishes: the name by which rates and idempotency keys are kept apart.
type publisher string

// readSecrets replaces the placeholders in the tokens and keeps their hashes.
func (p *PublishConfig) readSecrets() error {
	replacer := caddy.NewReplacer()
	for _, token := range p.Tokens {
		secret, err := replacer.ReplaceOrErr(token, true, true)
		if err != nil || secret == "" {
			return fmt.Errorf("the token %s is empty or not set; set it, or nobody could be told from anybody", placeholderOnly(token))
		}
		p.secrets = append(p.secrets, sha256.Sum256([]byte(secret)))
	}
	return nil
}

// placeholderOnly returns a config value for an error message: its placeholder, never a secret.
func placeholderOnly(value string) string {
	if strings.HasPrefix(value, "{") && strings.HasSuffix(value, "}") {
		return value
	}
	return "(not shown)"
}

// authorizePublish says who publishes, or why nobody may.
func (h *Handler) authorizePublish(r *http.Request) (publisher, *problem) {
	switch {
	case h.Publish == nil:
		return "", problemf(http.StatusForbidden,
			"publishing is not enabled on this route; to enable it, add a publish block with a token to its sse directive")
	case h.Publish.Open && h.foreignOrigin(r):
		return "", problemf(http.StatusForbidden,
			"pages of %s may not publish here; to let them, add that origin to cors_origins", r.Header.Get("Origin"))
	case h.Publish.Open:
		if user := h.userOf(r); user != "" {
			return publisher("user " + user), nil
		}
		return publisher("address " + sourceOf(r).String()), nil
	}
	token, found := bearerToken(r)
	if !found {
		p := problemf(http.StatusUnauthorized, "publishing here takes a token; send it as Authorization: Bearer <token>")
		p.challenge = `Bearer realm="sse"`
		return "", p
	}
	hash := sha256.Sum256([]byte(token))
	known := 0
	for _, secret := range h.Publish.secrets {
		known |= subtle.ConstantTimeCompare(hash[:], secret[:])
	}
	if known == 0 {
		p := problemf(http.StatusUnauthorized, "the token is not one that may publish here")
		p.challenge = `Bearer realm="sse", error="invalid_token"`
		return "", p
	}
	return publisher("token " + hex.EncodeToString(hash[:16])), nil
}

func bearerToken(r *http.Request) (token string, found bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

// mayAddress says why a publisher on this route may not address these.
func (h *Handler) mayAddress(to []Address, literal []string) *problem {
	for _, a := range to {
		var err error
		switch a.Kind {
		case ToTopic:
			err = h.mayAddressTopic(a.Name, literal)
		case ToClient:
			err = h.mayAddressTarget("client")
		case ToUser:
			err = h.mayAddressTarget("user")
		case ToBroadcast:
			err = h.mayAddressTarget("broadcast")
		}
		if err != nil {
			return problemf(http.StatusForbidden, "%v", err)
		}
	}
	return nil
}

func (h *Handler) mayAddressTopic(topic string, literal []string) error {
	if !h.topics.covers(topic, literal) || len(h.Publish.Topics) > 0 && !covered(h.Publish.Topics, topic) {
		return fmt.Errorf("topic %q is not among those that may be published to here", topic)
	}
	return nil
}

func (h *Handler) mayAddressTarget(target string) error {
	restricted := !h.topics.asked || len(h.Publish.Topics) > 0
	switch {
	case restricted && !slices.Contains(h.Publish.Targets, target):
		return fmt.Errorf("this route is restricted to topics; a %s may be addressed where publish has: targets %s", target, target)
	case !restricted && target == "broadcast" && h.Publish.Broadcast != nil && !*h.Publish.Broadcast:
		return errors.New("broadcast is off on this route; address a topic, client_id or user")
	}
	return nil
}
