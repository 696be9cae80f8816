package brokertest

import (
	"crypto/sha256"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// One is a batch of one message to a topic, under an idempotency key if there is one.
func One(topic, text, key string) []*broker.Publication {
	return []*broker.Publication{{
		Message: &hub.Message{To: hub.Topics(topic), Data: []byte(text)},
		Key:     key, Fingerprint: sha256.Sum256([]byte(text)),
	}}
}
