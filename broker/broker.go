package broker

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// What Publish refuses with.
var (
	// ErrUnavailable means that the log can't be reached, or takes nothing. Nothing was published.
	ErrUnavailable = errors.New("the broker is unavailable")
	// ErrUnknownOutcome means that the log went away between request and answer.
	ErrUnknownOutcome = errors.New("the outcome is unknown")
	// ErrKeyReused means that an idempotency key came with another message.
	ErrKeyReused = errors.New("the idempotency key was used for another message")
)

// IdempotencyPeriod is how long an idempotency key is remembered.
const IdempotencyPeriod = 10 * time.Minute

// Log keeps a hub's log: it alone decides order and positions.
type Log interface {
	// Start begins to feed the log to a hub, in order and until Close. It is called once and
	// does not wait for the log; ready is called when the hub has what the log keeps, or when
	// the log turns out to be out of reach for now.
	Start(h *hub.Hub, ready func())
	// Publish puts a batch into the log in its order. It returns how many were published, and an
	// error if that is not all. Those have their Receipt set.
	Publish(ctx context.Context, batch []*Publication) (int, error)
	// CheckKeys looks whether a batch that is to be published as a whole has an idempotency key that was used for
	// another message. It returns how many stand before it, and ErrKeyReused, or another error if that can't be told.
	CheckKeys(ctx context.Context, batch []*Publication) (int, error)
	// Close ends the feed and returns when nothing runs any more.
	Close() error
}

// Module opens brokers: a guest module in the namespace sse.brokers.
type Module interface {
	// Identity tells brokers apart: a config whose module has the identity of the one that runs
	// keeps the one that runs.
	Identity() string
	// Open makes the broker of a hub. It may open files but touches no network; what can't be
	// opened fails the config.
	Open(hub string) (Log, error)
}

// Publication is a message on its way into the log.
type Publication struct {
	*hub.Message
	// Key is the idempotency key, complete with its scope; empty for none.
	Key string
	// Fingerprint tells what Key was first used for from anything else.
	Fingerprint [sha256.Size]byte
	// Receipt is the answer, once published.
	Receipt Receipt
	// Repeated tells that it had been published before, under the same key, and Receipt is of then.
	Repeated bool
}

// Receipt tells a publisher what became of a message.
type Receipt struct {
	ID        string // empty for an ephemeral message
	Receivers int    // connected clients it was addressed to
}
