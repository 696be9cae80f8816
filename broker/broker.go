package broker

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Why a log publishes nothing, or may not have.
var (
	// ErrUnavailable means that the log can't be reached, or takes no messages. Nothing was published.
	ErrUnavailable = errors.New("the broker is unavailable")
	// ErrUnknownOutcome means that the log went away between request and answer. The message may be published.
	ErrUnknownOutcome = errors.New("the outcome is unknown")
	// ErrKeyReused means that an idempotency key was used for another message before. Nothing was published.
	ErrKeyReused = errors.New("the idempotency key was used for another message")
)

// IdempotencyPeriod is how long a log remembers an idempotency key, at least.
const IdempotencyPeriod = 10 * time.Minute

// Log keeps the messages of one hub and decides their order. The package's comment says what it owes.
type Log interface {
	// Start begins to feed the log to a hub, and goes on until Close. It is called at most once, and returns
	// without waiting for a network. The log calls ready once: when the hub has what the log keeps, or when
	// the log turns out to be out of reach for now.
	Start(h *hub.Hub, ready func())
	// Publish puts a batch into the log, in the order of the batch. It returns how many messages are
	// published, and an error if that is not all of them. Those that are have their Receipt set.
	Publish(ctx context.Context, batch []*Publication) (int, error)
	// CheckKeys looks for an idempotency key that was used for another message, before a batch is published
	// as a whole. It returns how many messages stand before the first such key, and ErrKeyReused. If the log
	// can't tell, it returns another error. It publishes nothing and sets nothing.
	CheckKeys(ctx context.Context, batch []*Publication) (int, error)
	// Close ends the feed. It returns when nothing runs any more. It is called once, even without a Start.
	Close() error
}

// Module opens the logs of a broker. It is a Caddy guest module in the namespace sse.brokers.
type Module interface {
	// Identity says which log this is: the broker's name, then whatever tells its logs apart. A config whose
	// module has the Identity of the log that runs keeps that log. The first word is shown to operators.
	Identity() string
	// Open returns the log of a hub. It may open files but uses no network. An error fails the config.
	Open(hub string) (Log, error)
}

// Publication is a message on its way into the log. From Publish on it is the log's: its publisher reads only
// Receipt and Repeated.
type Publication struct {
	*hub.Message
	// Key is the idempotency key, complete with its scope. It is empty for none.
	Key string
	// Fingerprint is equal for a message that is repeated, and different for any other.
	Fingerprint [sha256.Size]byte
	// Receipt is the answer. Publish sets it.
	Receipt Receipt
	// Repeated says that the message was published before, under the same key. Receipt is the answer it got
	// then. Publish sets it.
	Repeated bool
}

// Receipt tells a publisher what became of a message.
type Receipt struct {
	// ID is the message's, as clients get it. It is empty for an ephemeral message.
	ID string
	// Receivers is how many connected clients the message was addressed to. A log that joins several
	// instances counts those of the others as far as it knows, and may count a client once for each address.
	Receivers int
}
