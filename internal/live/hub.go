package live

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/stream"
	"github.com/caddy-sse/caddy-sse/internal/token"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// hubs outlive configs: routes of the old and the new config that name the same hub share it, and
// its clients notice nothing. The last route's Cleanup closes it.
var hubs = caddy.NewUsagePool()

// Hub is a hub with its broker, and the settings of the configs that run.
//
// While a config replaces another, both have started. The settings of the older one hold until it
// stops: then the new config is sure to stay. If it is the new one that stops, because some other app
// of it failed to start, nothing had changed.
type Hub struct {
	Core      *hub.Hub // its log and its clients
	Name      string
	ready     chan struct{} // closed by start
	startOnce sync.Once
	shutOnce  sync.Once
	streams   stream.Group
	limiters
	// KeySets are those that the tokens of its routes are verified with.
	KeySets token.KeySets
	// When a refused client is logged, and a publish that failed, lest a flood of them fills the disk.
	Refusals, Failures rate.Sometimes

	current atomic.Pointer[Settings] // those that hold

	mu       sync.Mutex  // guards settings
	settings []*Settings // of the configs that have started, the oldest first, whose hold

	brokerMu sync.RWMutex // held for reading while publishing, for writing while brokers change
	broker   broker.Log
	identity string // of broker
}

// Settings is what one config says about a hub.
type Settings struct {
	Limits hub.Limits
	Module broker.Module
	Logger *zap.Logger
	Emit   func(event string, data map[string]any)
	broker broker.Log // opened ahead for when these settings come to hold; nil if the running one stays
}

// Acquire returns the hub of that name, made if nobody has it yet. releaseHub gives it back.
func Acquire(name string) *Hub {
	value, _, _ := hubs.LoadOrNew(name, func() (caddy.Destructor, error) {
		s := &Hub{Core: hub.NewHub(hub.Limits{}), Name: name, ready: make(chan struct{})}
		s.Refusals.Interval, s.Failures.Interval = time.Second, time.Second
		s.current.Store(&Settings{Logger: zap.NewNop(), Emit: func(string, map[string]any) {}})
		s.Core.BrokerChanged = s.noteBroker
		s.streams.Leave = s.leave
		return s, nil
	})
	return value.(*Hub)
}

func Release(name string) error {
	_, err := hubs.Delete(name)
	return err
}

// All returns the hubs that routes use, by name.
func All() (all []*Hub) {
	hubs.Range(func(_, value any) bool {
		all = append(all, value.(*Hub))
		return true
	})
	slices.SortFunc(all, func(a, b *Hub) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Destruct closes the hub with the last reference to it. When the process exits it waits for direct streams to
// end; Caddy has waited for the others.
func (s *Hub) Destruct() error {
	if caddy.Exiting() {
		s.ShutDown()
	} else {
		s.Core.Close()
	}
	s.streams.Retire()
	if caddy.Exiting() {
		s.streams.Wait(exitTime + drainTime/4) // all have been cut by then
	}
	s.brokerMu.Lock()
	defer s.brokerMu.Unlock()
	if s.broker == nil {
		return nil
	}
	err := s.broker.Close()
	s.broker = nil
	return err
}

// Offer proposes a config's settings. They hold at once if no other config runs, else when it stops.
// An error leaves everything as it was.
func (s *Hub) Offer(o *Settings) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	running := s.identity
	if n := len(s.settings); n > 0 {
		running = s.settings[n-1].Module.Identity()
	}
	if o.Module.Identity() != running {
		var err error
		if o.broker, err = o.Module.Open(s.Name); err != nil {
			return err
		}
	}
	s.settings = append(s.settings, o)
	if len(s.settings) == 1 {
		s.hold(o)
	}
	return nil
}

// Withdraw takes a config's settings back when it stops.
func (s *Hub) Withdraw(o *Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.settings, o)
	if i < 0 {
		return
	}
	s.settings = slices.Delete(s.settings, i, i+1)
	switch {
	case i == 0 && len(s.settings) > 0:
		s.hold(s.settings[0])
	case i > 0 && o.broker != nil:
		s.logIf(o.broker.Close(), "closing a broker that was not needed")
	}
}

// hold makes settings the ones that count. Called with mu held.
func (s *Hub) hold(o *Settings) {
	s.current.Store(o)
	s.Core.Apply(o.Limits)
	if o.broker == nil {
		return
	}
	s.brokerMu.Lock()
	defer s.brokerMu.Unlock()
	if s.broker != nil {
		s.logIf(s.broker.Close(), "closing the broker that was replaced")
	}
	s.broker, s.identity = o.broker, o.Module.Identity()
	o.broker = nil
	s.Core.LogReplaced()
	s.broker.Start(s.Core, s.start)
}

// start lets in who has waited for the hub to have a log.
func (s *Hub) start() { s.startOnce.Do(func() { close(s.ready) }) }

func (s *Hub) KeySetFailed(err error) {
	s.current.Load().Logger.Warn("a key set for tokens can't be fetched; the keys it had stay", zap.String("hub", s.Name), zap.Error(err))
}

func (s *Hub) logIf(err error, doing string) {
	if err != nil {
		s.current.Load().Logger.Error(doing, zap.String("hub", s.Name), zap.Error(err))
	}
}

// WaitReady returns when the hub has started, with ctx, or with the cause once it has ended.
func (s *Hub) WaitReady(ctx context.Context) error {
	ended := s.Core.Context()
	if ended.Err() != nil {
		return context.Cause(ended)
	}
	select {
	case <-s.ready: // what has arrived is published, even if its publisher has gone already
		return nil
	default:
	}
	select {
	case <-s.ready:
		return nil
	case <-ended.Done():
		return context.Cause(ended)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// BrokerKind returns which broker the hub has: the first word of its identity.
func (s *Hub) BrokerKind() string {
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	kind, _, _ := strings.Cut(s.identity, " ")
	return kind
}

// join enters a client, unless its client_id is another user's on some instance; see Hub.Join.
func (s *Hub) join(ctx context.Context, sub hub.Subscription, stream hub.Stream) (*hub.Client, hub.Welcome, error) {
	s.claim(ctx, &sub)
	return s.Core.Join(sub, stream)
}

func (s *Hub) claim(ctx context.Context, sub *hub.Subscription) {
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	owners, joined := s.broker.(broker.Claimer)
	if !joined {
		return
	}
	ctx, cancel := s.WhileOpen(ctx, 0)
	defer cancel()
	owners.Claim(ctx, sub)
}

// Kick ends all connections of a client_id, on every instance, and returns how many there were. If
// there are none it does nothing.
func (s *Hub) Kick(ctx context.Context, clientID string) (connections int, err error) {
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	connections = s.Core.Connections(clientID)
	others, joined := s.broker.(broker.Kicker)
	if joined {
		var elsewhere int
		elsewhere, err = others.Connections(ctx, clientID, connections == 0)
		connections += elsewhere
	}
	if connections == 0 {
		return 0, err
	}
	s.Core.Kick(clientID)
	if joined && err == nil {
		err = others.Kick(ctx, clientID)
	}
	return connections, err
}

// Up reports whether publishing has a log to go to.
func (s *Hub) Up() bool {
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	return s.broker != nil && s.Core.LogUp()
}

// FileSize returns the size of the broker's file, if it has one.
func (s *Hub) FileSize() (bytes int64, ok bool) {
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	log, ok := s.broker.(broker.Sizer)
	if !ok {
		return 0, false
	}
	return log.Size(), true
}

// Lag returns how far the hub may be behind its broker's log, if that is elsewhere.
func (s *Hub) Lag() (lag time.Duration, ok bool) {
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	log, ok := s.broker.(broker.Follower)
	if !ok {
		return 0, false
	}
	return log.Lag(), true
}

// withBroker runs what a publisher asks of the hub's broker, once there is one.
func (s *Hub) withBroker(ctx context.Context, do func(context.Context, broker.Log) (int, error)) (int, error) {
	if err := s.WaitReady(ctx); err != nil {
		return 0, err
	}
	ctx, cancel := s.WhileOpen(ctx, drainTime/2)
	defer cancel()
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	if s.broker == nil {
		return 0, hub.ErrHubClosed
	}
	return do(ctx, s.broker)
}

// CheckKeys looks whether a batch can be published as a whole; see Broker.CheckKeys.
func (s *Hub) CheckKeys(ctx context.Context, batch []*broker.Publication) (int, error) {
	fresh := make(map[string]*broker.Publication)
	for i, p := range batch {
		if before := fresh[p.Key]; before != nil && before.Fingerprint != p.Fingerprint {
			return i, broker.ErrKeyReused
		}
		if p.Key != "" {
			fresh[p.Key] = p
		}
	}
	if len(fresh) == 0 {
		return len(batch), nil
	}
	return s.withBroker(ctx, func(ctx context.Context, b broker.Log) (int, error) { return b.CheckKeys(ctx, batch) })
}

// Publish puts a batch into the hub's log; see Broker.Publish.
func (s *Hub) Publish(ctx context.Context, batch []*broker.Publication) (int, error) {
	n, err := s.withBroker(ctx, func(ctx context.Context, b broker.Log) (int, error) { return b.Publish(ctx, batch) })
	for _, p := range batch[:n] {
		if !p.Repeated {
			s.Core.CountPublished()
		}
	}
	return n, err
}
