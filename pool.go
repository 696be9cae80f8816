package sse

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

// sharedHub is a hub with its broker, and the settings of the configs that run.
//
// While a config replaces another, both have started. The settings of the older one hold until it
// stops: then the new config is sure to stay. If it is the new one that stops, because some other app
// of it failed to start, nothing had changed.
type sharedHub struct {
	Core      *hub.Hub // its log and its clients
	name      string
	ready     chan struct{} // closed by start
	startOnce sync.Once
	shutOnce  sync.Once
	streams   stream.Group
	limiters
	// KeySets are those that the tokens of its routes are verified with.
	KeySets token.KeySets
	// When a refused client is logged, and a publish that failed, lest a flood of them fills the disk.
	refusals, failures rate.Sometimes

	current atomic.Pointer[settings] // those that hold

	mu       sync.Mutex  // guards settings
	settings []*settings // of the configs that have started, the oldest first, whose hold

	brokerMu sync.RWMutex // held for reading while publishing, for writing while brokers change
	broker   broker.Log
	identity string // of broker
}

// settings is what one config says about a hub.
type settings struct {
	limits hub.Limits
	module broker.Module
	logger *zap.Logger
	emit   func(event string, data map[string]any)
	broker broker.Log // opened ahead for when these settings come to hold; nil if the running one stays
}

// acquireHub returns the hub of that name, made if nobody has it yet. releaseHub gives it back.
func acquireHub(name string) *sharedHub {
	value, _, _ := hubs.LoadOrNew(name, func() (caddy.Destructor, error) {
		s := &sharedHub{Core: hub.NewHub(hub.Limits{}), name: name, ready: make(chan struct{})}
		s.refusals.Interval, s.failures.Interval = time.Second, time.Second
		s.current.Store(&settings{logger: zap.NewNop(), emit: func(string, map[string]any) {}})
		s.Core.BrokerChanged = s.noteBroker
		s.streams.Leave = s.leave
		return s, nil
	})
	return value.(*sharedHub)
}

func releaseHub(name string) error {
	_, err := hubs.Delete(name)
	return err
}

// allHubs returns the hubs that routes use, by name.
func allHubs() (all []*sharedHub) {
	hubs.Range(func(_, value any) bool {
		all = append(all, value.(*sharedHub))
		return true
	})
	slices.SortFunc(all, func(a, b *sharedHub) int { return strings.Compare(a.name, b.name) })
	return all
}

// Destruct closes the hub with the last reference to it. When the process exits it waits for direct streams to
// end; Caddy has waited for the others.
func (s *sharedHub) Destruct() error {
	if caddy.Exiting() {
		s.shutDown()
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

// offer proposes a config's settings. They hold at once if no other config runs, else when it stops.
// An error leaves everything as it was.
func (s *sharedHub) offer(o *settings) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	running := s.identity
	if n := len(s.settings); n > 0 {
		running = s.settings[n-1].module.Identity()
	}
	if o.module.Identity() != running {
		var err error
		if o.broker, err = o.module.Open(s.name); err != nil {
			return err
		}
	}
	s.settings = append(s.settings, o)
	if len(s.settings) == 1 {
		s.hold(o)
	}
	return nil
}

// withdraw takes a config's settings back when it stops.
func (s *sharedHub) withdraw(o *settings) {
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
func (s *sharedHub) hold(o *settings) {
	s.current.Store(o)
	s.Core.Apply(o.limits)
	if o.broker == nil {
		return
	}
	s.brokerMu.Lock()
	defer s.brokerMu.Unlock()
	if s.broker != nil {
		s.logIf(s.broker.Close(), "closing the broker that was replaced")
	}
	s.broker, s.identity = o.broker, o.module.Identity()
	o.broker = nil
	s.Core.LogReplaced()
	s.broker.Start(s.Core, s.start)
}

// start lets in who has waited for the hub to have a log.
func (s *sharedHub) start() { s.startOnce.Do(func() { close(s.ready) }) }

func (s *sharedHub) keySetFailed(err error) {
	s.current.Load().logger.Warn("a key set for tokens can't be fetched; the keys it had stay", zap.String("hub", s.name), zap.Error(err))
}

func (s *sharedHub) logIf(err error, doing string) {
	if err != nil {
		s.current.Load().logger.Error(doing, zap.String("hub", s.name), zap.Error(err))
	}
}

// wait returns when the hub has started, with ctx, or with the cause once it has ended.
func (s *sharedHub) wait(ctx context.Context) error {
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

// noteBroker tells the operator that the broker went out of reach, or is back.
func (s *sharedHub) noteBroker(up bool, err error) {
	current := s.current.Load()
	if up {
		current.logger.Info("the broker is in reach", zap.String("hub", s.name))
		current.emit("sse.broker_up", map[string]any{"hub": s.name})
		return
	}
	current.logger.Warn("the broker is out of reach, or takes no messages; clients stay connected, publishing answers 503",
		zap.String("hub", s.name), zap.Error(err))
	current.emit("sse.broker_down", map[string]any{"hub": s.name, "error": err.Error()})
}

// brokerKind returns which broker the hub has: the first word of its identity.
func (s *sharedHub) brokerKind() string {
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	kind, _, _ := strings.Cut(s.identity, " ")
	return kind
}

// join enters a client, unless its client_id is another user's on some instance; see Hub.Join.
func (s *sharedHub) join(ctx context.Context, sub hub.Subscription, stream hub.Stream) (*hub.Client, hub.Welcome, error) {
	s.claim(ctx, &sub)
	return s.Core.Join(sub, stream)
}

func (s *sharedHub) claim(ctx context.Context, sub *hub.Subscription) {
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	owners, joined := s.broker.(broker.Claimer)
	if !joined {
		return
	}
	ctx, cancel := s.whileOpen(ctx, 0)
	defer cancel()
	owners.Claim(ctx, sub)
}

// kick ends all connections of a client_id, on every instance, and returns how many there were. If
// there are none it does nothing.
func (s *sharedHub) kick(ctx context.Context, clientID string) (connections int, err error) {
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

// up reports whether publishing has a log to go to.
func (s *sharedHub) up() bool {
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	return s.broker != nil && s.Core.LogUp()
}

// fileSize returns the size of the broker's file, if it has one.
func (s *sharedHub) fileSize() (bytes int64, ok bool) {
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	log, ok := s.broker.(broker.Sizer)
	if !ok {
		return 0, false
	}
	return log.Size(), true
}

// lag returns how far the hub may be behind its broker's log, if that is elsewhere.
func (s *sharedHub) lag() (lag time.Duration, ok bool) {
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	log, ok := s.broker.(broker.Follower)
	if !ok {
		return 0, false
	}
	return log.Lag(), true
}

// withBroker runs what a publisher asks of the hub's broker, once there is one.
func (s *sharedHub) withBroker(ctx context.Context, do func(context.Context, broker.Log) (int, error)) (int, error) {
	if err := s.wait(ctx); err != nil {
		return 0, err
	}
	ctx, cancel := s.whileOpen(ctx, drainTime/2)
	defer cancel()
	s.brokerMu.RLock()
	defer s.brokerMu.RUnlock()
	if s.broker == nil {
		return 0, hub.ErrHubClosed
	}
	return do(ctx, s.broker)
}

// checkKeys looks whether a batch can be published as a whole; see Broker.CheckKeys.
func (s *sharedHub) checkKeys(ctx context.Context, batch []*broker.Publication) (int, error) {
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

// publish puts a batch into the hub's log; see Broker.Publish.
func (s *sharedHub) publish(ctx context.Context, batch []*broker.Publication) (int, error) {
	n, err := s.withBroker(ctx, func(ctx context.Context, b broker.Log) (int, error) { return b.Publish(ctx, batch) })
	for _, p := range batch[:n] {
		if !p.Repeated {
			s.Core.CountPublished()
		}
	}
	return n, err
}
