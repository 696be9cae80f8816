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
	// ErrCannotPurge means that the log is no [Purger].
	ErrCannotPurge = errors.New("the broker can't remove messages")
	// ErrKeysFull means that the log remembers as many idempotency keys as it may. Nothing was published.
	// Requests without a key are taken.
	ErrKeysFull = errors.New("there are too many idempotency keys")
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
	// CheckKeys looks for an idempotency key that was used for another request, before a batch is published
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
// what Publish sets.
type Publication struct {
	*hub.Message

	// Key is the idempotency key of the message's request, complete with its scope. It is empty for none. The
	// messages of a request have the same key, and one [Record].
	Key string
	// Index is how many messages of the request stand before this one.
	Index int
	// Fingerprint is equal for a request that is repeated, and different for any other.
	Fingerprint [sha256.Size]byte
	// Streamed says that the request is published while it arrives. Fingerprint covers it up to this message,
	// then, and Before up to the message before.
	Streamed bool
	Before   [sha256.Size]byte
	// Earlier is the record of the key in a log that the hub followed before; nil for none. It counts unless
	// the log itself has a record that goes as far.
	Earlier *Record

	// Publish sets what follows.

	// Receipt is the answer.
	Receipt Receipt
	// Repeated says that the message was published before, under the same key. Receipt is the answer it got
	// then. Of a streamed request only the newest message has one, with the last ID of the request.
	Repeated bool
	// Following is how many messages of a streamed request were published behind this one. They are what the
	// request must go on with.
	Following int
	// Unproven says that only a message that follows can prove that this is the request of before.
	Unproven bool
}

// Record returns the record that counts for the message's key: the stored one, which is nil if the log has
// none, or Earlier. Without both it returns an empty one.
func (p *Publication) Record(stored *Record) *Record {
	switch {
	case p.Earlier != nil && (stored == nil || stored.count < p.Earlier.count):
		return p.Earlier
	case stored != nil:
		return stored
	}
	return new(Record)
}

// Receipt tells a publisher what became of a message.
type Receipt struct {
	// ID is the message's, as clients get it. It is empty for an ephemeral message.
	ID string
	// Receivers is how many connected clients the message was addressed to. A log that joins several
	// instances counts those of the others as far as it knows, and may count a client once for each address.
	Receivers int
}
