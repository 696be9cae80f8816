// Package live keeps the hubs that outlive configs, and serves their streams. Routes of every kind share it:
// it knows how a client joins and leaves and how a publisher reaches the log, but not what a request says.
package live

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/stream"
	"github.com/caddy-sse/caddy-sse/internal/token"
)

// Hub is a hub with its broker, and the settings of the configs that run.
//
// While one config replaces another, both have started. The settings of the older one count until it stops:
// only then is the new config sure to stay. If the new one stops first, because another app of it failed to
// start, nothing has changed.
type Hub struct {
	Name string
	Core *hub.Hub // the clients, and the history that they resume from

	Answers *answers.Store // what upstreams answer, for readers that come back

	// Refusals and Failures limit how often a refused client and a failed publish are logged: a flood of
	// them must not fill the disk.
	Refusals, Failures rate.Sometimes

	streams   stream.Group
	events    emitter
	unemitted rate.Sometimes // when it is logged that events are dropped
	rates     rates
	readings  readings
	refused   refusedPublishes
	keySets   token.KeySets

	record    *record       // which logs the hub has followed
	ready     chan struct{} // closed by start
	startOnce sync.Once
	shutOnce  sync.Once

	current atomic.Pointer[Settings]          // the settings that count
	onLeave atomic.Pointer[func(*hub.Client)] // nil if nobody is told
	own     atomic.Pointer[string]            // topics that begin so are told of by routes themselves; nil for none

	mu       sync.Mutex         // guards settings
	settings []*Settings        // of the configs that have started, the oldest first; the first counts
	endCalls context.CancelFunc // ends calls

	brokerMu sync.RWMutex    // held for reading while the broker is used, for writing while it changes
	broker   broker.Log      // nil before the first config has started, and once the hub is closed
	identity string          // of broker
	calls    context.Context // of what publishers ask of broker; ends soon after the hub, or when another is to replace it
	before   leftLogs        // what is known of the brokers before this one
}

// Settings is what one config says about a hub.
type Settings struct {
	Limits hub.Limits
	Module broker.Module
	Logger *zap.Logger
	Emit   func(event string, data map[string]any) // emits one of Caddy's events

	opened broker.Log // opened by Offer for when these settings count; nil if the running one stays
}

// hubs are all hubs by name. Routes of the old and the new config that name the same hub share it, and its
// clients notice nothing.
var hubs = caddy.NewUsagePool()

var _ caddy.Destructor = (*Hub)(nil)

// Acquire returns the hub of that name, and makes it if no route has it. [Release] gives it back.
func Acquire(name string) *Hub {
	value, _, _ := hubs.LoadOrNew(name, func() (caddy.Destructor, error) {
		h := &Hub{
			Core:    hub.NewHub(hub.Limits{}),
			Answers: answers.NewStore(),
			Name:    name,
			ready:   make(chan struct{}),
		}
		h.Refusals.Interval, h.Failures.Interval, h.unemitted.Interval = time.Second, time.Second, time.Second
		h.record = recordOf(name)
		context.AfterFunc(h.Core.Context(), h.readings.stop)
		h.calls, h.endCalls = h.newCalls()
		h.current.Store(&Settings{Logger: zap.NewNop(), Emit: func(string, map[string]any) {}})
		h.Core.BrokerChanged, h.Core.HistoryLost = h.noteBroker, h.noteLoss
		h.streams.Hub, h.streams.Left = h.Core, h.left
		return h, nil
	})
	return value.(*Hub)
}

// Release gives a hub back. The last route to do so closes it.
func Release(name string) error {
	_, err := hubs.Delete(name)
	return err
}

// All returns the hubs that routes use, sorted by name.
func All() (all []*Hub) {
	hubs.Range(func(_, value any) bool {
		all = append(all, value.(*Hub))
		return true
	})
	slices.SortFunc(all, func(a, b *Hub) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Destruct closes the hub; the pool calls it for the last reference. When the process exits it waits for
// direct streams to end; Caddy has waited for the others.
func (h *Hub) Destruct() error {
	if !caddy.Exiting() {
		h.Answers.Close(answers.ErrExit)
		h.Answers.Wait(drainTime / 2)
		h.Core.Close()
		return h.closeBroker()
	}
	h.ShutDown()
	h.Core.WaitEmpty(exitTime + drainTime/4) // all have been cut by then
	h.streams.Wait(drainTime / 4)
	h.events.wait(drainTime / 4)
	h.Answers.Wait(drainTime / 4)
	closing.Go(func() { h.logIf(h.closeBroker(), "closing the broker") })
	return nil
}

func (h *Hub) closeBroker() error {
	h.brokerMu.Lock()
	defer h.brokerMu.Unlock()
	h.before.closeAll()
	if h.broker == nil {
		return nil
	}
	err := h.broker.Close()
	h.broker = nil
	h.record.release()
	return err
}

// Offer proposes a config's settings. They count at once if no other config runs, or else when the older ones
// have stopped. An error leaves everything as it was.
func (h *Hub) Offer(s *Settings) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	running := h.identity
	if n := len(h.settings); n > 0 {
		running = h.settings[n-1].Module.Identity()
	}
	if s.Module.Identity() != running {
		var err error
		if s.opened, err = s.Module.Open(h.Name); err != nil {
			return err
		}
	}
	h.settings = append(h.settings, s)
	if len(h.settings) == 1 {
		h.applyLocked(s)
	}
	return nil
}

// Withdraw takes a config's settings back when it stops. A second call does nothing.
func (h *Hub) Withdraw(s *Settings) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.settings, s)
	if i < 0 {
		return
	}
	h.settings = slices.Delete(h.settings, i, i+1)
	switch {
	case i == 0 && len(h.settings) > 0:
		h.applyLocked(h.settings[0])
	case i > 0 && s.opened != nil:
		h.logIf(s.opened.Close(), "closing a broker that was not needed")
	}
}

// applyLocked makes settings count, and starts the broker if they come with another. mu is held.
func (h *Hub) applyLocked(s *Settings) {
	h.current.Store(s)
	h.Core.Apply(s.Limits)
	if s.opened == nil {
		return
	}
	late := time.AfterFunc(drainTime/2, h.endCalls) // else a broker that does not answer would hold up the reload
	h.brokerMu.Lock()
	defer h.brokerMu.Unlock()
	late.Stop()
	h.endCalls()
	h.calls, h.endCalls = h.newCalls()
	if h.broker == nil {
		h.recall()
	} else {
		h.before.add(h.broker)
		h.logIf(h.broker.Close(), "closing the broker that was replaced")
	}
	h.broker, h.identity = s.opened, s.Module.Identity()
	s.opened = nil
	h.shareAnswers(s.Module)
	h.Core.LogReplaced()
	h.broker.Start(h.Core, h.start)
}

// Sharer is implemented by brokers that also join the answers of instances.
type Sharer interface {
	ShareAnswers(hub string) answers.Shared
}

// shareAnswers joins the hub's answers with those of other instances, if the broker can.
func (h *Hub) shareAnswers(module broker.Module) {
	if sharer, ok := module.(Sharer); ok {
		h.Answers.Share(sharer.ShareAnswers(h.Name))
	} else {
		h.Answers.Share(nil)
	}
}

func (h *Hub) logIf(err error, doing string) {
	if err != nil {
		h.current.Load().Logger.Error(doing, zap.String("hub", h.Name), zap.Error(err))
	}
}

// start lets requests in that wait for the hub's log.
func (h *Hub) start() { h.startOnce.Do(func() { close(h.ready) }) }

// WaitReady waits until the hub has a log. It returns early with the cause if the hub ends, or with the
// error of ctx.
func (h *Hub) WaitReady(ctx context.Context) error {
	ended := h.Core.Context()
	if ended.Err() != nil {
		return context.Cause(ended)
	}
	select {
	case <-h.ready: // what has arrived is published, even if its publisher has gone already
		return nil
	default:
	}
	select {
	case <-h.ready:
		return nil
	case <-ended.Done():
		return context.Cause(ended)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// KeySet returns the key set of an address, which all routes of the hub share.
func (h *Hub) KeySet(address string) *token.KeySet {
	return h.keySets.Of(address, func(err error) {
		h.current.Load().Logger.Warn("a key set for tokens can't be fetched; the keys it had stay",
			zap.String("hub", h.Name), zap.Error(err))
	})
}
