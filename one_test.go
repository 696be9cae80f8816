package sse

import (
	"crypto/sha256"

	"github.com/caddy-sse/caddy-sse/hub"
)

// one is a batch of one message to a topic, under an idempotency key if there is one.
func one(topic, text, key string) []*Publication {
	return []*Publication{{
		Message: &hub.Message{To: hub.Topics(topic), Data: []byte(text)}, Key: key, Fingerprint: sha256.Sum256([]byte(text)),
	}}
}
