package sse

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddyserver/caddy/v2"
)

func init() { caddy.RegisterModule(MemoryBroker{}) }

// What Publish refuses with.
var (
	// ErrUnavailable means that the log can't be reached, or takes nothing. Nothing was published.
	ErrUnavailable = errors.New("the broker is unavailable")
	// ErrUnknownOutcome means that the log went away between request and answer.
	ErrUnknownOutcome = errors.New("the outcome is unknown")
	// ErrKeyReused means that an idempotency key came with another message.
	ErrKeyReused = errors.New("the idempotency key was used for another message")
)

// idempotencyPeriod is how long an idempotency key is remembered.
const idempotencyPeriod = 10 * time.Minute

// Broker keeps a hub's log: it alone decides order and positions.
type Broker interface {
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

// Follower is what a Broker implements whose log is elsewhere, so that an instance may be behind it.
type Follower interface {
	// Lag returns how far this instance may be behind the log, in time; 0 if it is not.
	Lag() time.Duration
}

// Sizer is what a Broker implements that keeps its log in a file.
type Sizer interface {
	// Size returns how many bytes the file has.
	Size() int64
}

// Kicker is what a Broker implements that joins several instances.
type Kicker interface {
	// Connections returns how many connections a client_id has on the other instances, as they told
	// a moment ago. If wait is set and there are none, it waits for what they tell next.
	Connections(ctx context.Context, clientID string, wait bool) (int, error)
	// Kick has the other instances end the connections of a client_id and refuse it for barTime.
	Kick(ctx context.Context, clientID string) error
}

// Owners is what a Broker implements that joins several instances.
type Owners interface {
	// Claim asks whose a client_id is, before a client joins the hub under it: if it is another user's
	// on some instance the hub is told by Own, and if it is nobody's it becomes that of the client's
	// user. It takes a bounded time; if there is no answer the hub goes by what it knows.
	Claim(ctx context.Context, s *hub.Subscription)
}

// BrokerModule opens brokers: a guest module in the namespace sse.brokers.
type BrokerModule interface {
	// Identity tells brokers apart: a config whose module has the identity of the one that runs
	// keeps the one that runs.
	Identity() string
	// Open makes the broker of a hub. It may open files but touches no network; what can't be
	// opened fails the config.
	Open(hub string) (Broker, error)
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

// MemoryBroker keeps a hub's log in this process: order without anything to install, gone with the
// process. It is the default and has no options.
type MemoryBroker struct{}

// CaddyModule returns the Caddy module information.
func (MemoryBroker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "sse.brokers.memory", New: func() caddy.Module { return new(MemoryBroker) }}
}

// Identity implements BrokerModule.
func (MemoryBroker) Identity() string { return "memory" }

// Open implements BrokerModule.
func (MemoryBroker) Open(string) (Broker, error) {
	return OpenMemory(), nil
}

// memoryLog orders messages by a mutex: whoever holds it has the next position.
type memoryLog struct {
	epoch string

	mu      sync.Mutex // guards all below, and so the order of Deliver
	replica *hub.Hub
	last    uint64
	answers *answers
}

// OpenMemory returns an empty log.
func OpenMemory() *memoryLog { return &memoryLog{epoch: hub.NewEpoch(), answers: newAnswers()} }

func (l *memoryLog) Start(h *hub.Hub, ready func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replica = h
	h.Follow(hub.Origin{Epoch: l.epoch})
	h.Announce("broker_changed")
	h.LogFound()
	ready()
}

func (l *memoryLog) Publish(ctx context.Context, batch []*Publication) (int, error) {
	for i, p := range batch {
		if err := l.publish(p); err != nil {
			return i, err
		}
		l.replica.Wait(ctx, p.Receipt.Receivers)
	}
	return len(batch), nil
}

func (l *memoryLog) publish(p *Publication) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found, err := l.answers.find(p); found || err != nil {
		return err
	}
	if !p.Ephemeral {
		p.Position = hub.Position{Major: l.last + 1}
		p.Receipt.ID = hub.ID{Epoch: l.epoch, Position: p.Position}.String()
	}
	if p.Receipt.Receivers, err = l.replica.DeliverUnlessEnded(p.Message); err != nil {
		return err
	}
	if !p.Ephemeral {
		l.last++
	}
	l.answers.keep(p)
	return nil
}

func (l *memoryLog) CheckKeys(_ context.Context, batch []*Publication) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range batch {
		looked := *p // it is not answered yet
		if _, err := l.answers.find(&looked); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

func (l *memoryLog) Close() error { return nil }
