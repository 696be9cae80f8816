package live

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/broker/brokertest"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
	"github.com/caddy-sse/caddy-sse/internal/memlog"
)

// testBroker is a broker module that counts what is opened and closed: memory logs all of them.
type testBroker struct {
	identity string
	fails    error // what Open returns

	mu     sync.Mutex
	opened []*testLog
}

type testLog struct {
	*memlog.Log
	started, closed int
}

func (b *testBroker) Identity() string { return b.identity }

func (b *testBroker) Open(string) (broker.Log, error) {
	if b.fails != nil {
		return nil, b.fails
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened = append(b.opened, &testLog{Log: memlog.Open()})
	return b.opened[len(b.opened)-1], nil
}

func (l *testLog) Start(h *hub.Hub, ready func()) { l.started++; l.Log.Start(h, ready) }
func (l *testLog) Close() error                   { l.closed++; return l.Log.Close() }

// wantLogs checks how many logs were opened, and which of them run.
func (b *testBroker) wantLogs(t *testing.T, runs ...bool) {
	t.Helper()
	if len(b.opened) != len(runs) {
		t.Fatalf("%s: %d logs were opened; want %d", b.identity, len(b.opened), len(runs))
	}
	for i, l := range b.opened {
		if l.started > 1 || l.closed > 1 || (l.started == 1 && l.closed == 0) != runs[i] {
			t.Errorf("%s: log %d was started %d times and closed %d times; want it running: %v",
				b.identity, i, l.started, l.closed, runs[i])
		}
	}
}

// memory is a broker module of logs that are in reach from the start.
type memory struct{}

func (memory) Identity() string { return "memory" }

func (memory) Open(string) (broker.Log, error) { return memlog.Open(), nil }

// config is what one config says about a hub: its limit of clients, and its broker.
func config(maxClients int, module broker.Module) *Settings {
	return &Settings{
		Limits: hub.Limits{MaxClients: maxClients, History: hubtest.Plenty.History}, Module: module,
		Logger: zap.NewNop(), Emit: func(string, map[string]any) {},
	}
}

// use acquires the hub of the test, as a route does. The test is over when it has nothing acquired.
func use(t *testing.T) *Hub {
	t.Helper()
	t.Cleanup(func() {
		if n, there := hubs.References(t.Name()); there {
			t.Errorf("the hub still has %d references", n)
		}
	})
	return Acquire(t.Name())
}

func release(t *testing.T) {
	t.Helper()
	if err := Release(t.Name()); err != nil {
		t.Error(err)
	}
}

func mustOffer(t *testing.T, h *Hub, s *Settings) {
	t.Helper()
	if err := h.Offer(s); err != nil {
		t.Fatalf("the hub does not take the settings: %v", err)
	}
}

func (h *Hub) mustPublish(t *testing.T, topic, text string) {
	t.Helper()
	if n, err := h.Publish(t.Context(), brokertest.One(topic, text, "")); n != 1 || err != nil {
		t.Errorf("publishing: %d, %v", n, err)
	}
}

func TestRoutesOfOneNameShareAHubUntilTheLastIsGone(t *testing.T) {
	module := &testBroker{identity: "a"}
	first := use(t)
	if second := Acquire(t.Name()); second != first {
		t.Error("the second route got a hub of its own")
	}
	if other := Acquire(t.Name() + " other"); other == first {
		t.Error("another name got the same hub")
	}
	if err := Release(t.Name() + " other"); err != nil {
		t.Error(err)
	}
	settings := config(1, module)
	mustOffer(t, first, settings)
	h := &hubtest.Hub{Hub: first.Core, T: t}
	l := h.Join(hubtest.With("a"))
	release(t)
	first.mustPublish(t, "a", "1")
	hubtest.Want(t, l.Texts(), "1")
	first.Withdraw(settings)
	module.wantLogs(t, true)
	release(t)
	module.wantLogs(t, false)
	hubtest.Want(t, l.Texts())
	hubtest.Want(t, []error{l.End(), l.Leave()}, hub.ErrHubClosed, hub.ErrHubClosed)
	n, err := first.Publish(t.Context(), brokertest.One("a", "2", ""))
	if n != 0 || !errors.Is(err, hub.ErrHubClosed) {
		t.Errorf("a closed hub published %d, %v", n, err)
	}
	if clients, _ := first.Core.Size(); clients != 0 {
		t.Errorf("the hub counts %d clients", clients)
	}
}

func TestAHubThatNeverStartedClosesToo(t *testing.T) {
	shared := use(t)
	waiting := make(chan error)
	go func() { waiting <- shared.WaitReady(context.Background()) }()
	release(t)
	if err := <-waiting; !errors.Is(err, hub.ErrHubClosed) {
		t.Errorf("who waited for the hub got %v", err)
	}
}

// silentLog is a log of which no publisher hears again, before it leaves.
type silentLog struct{ *memlog.Log }

func (silentLog) Publish(ctx context.Context, _ []*broker.Publication) (int, error) {
	<-ctx.Done()
	return 0, broker.ErrUnknownOutcome
}

type silent struct{}

func (silent) Identity() string { return "silent" }

func (silent) Open(string) (broker.Log, error) { return silentLog{memlog.Open()}, nil }

func TestABrokerThatDoesNotAnswerHoldsUpNoReload(t *testing.T) {
	h := use(t)
	defer release(t)
	first := config(1, silent{})
	mustOffer(t, h, first)
	refused := make(chan error)
	go func() {
		_, err := h.Publish(context.Background(), brokertest.One("a", "1", ""))
		refused <- err
	}()
	for h.brokerMu.TryLock() { // until the broker is asked
		h.brokerMu.Unlock()
		time.Sleep(time.Millisecond)
	}
	mustOffer(t, h, config(1, memory{}))
	if !hubtest.ReturnsSoon(func() { h.Withdraw(first) }) {
		t.Fatal("the reload hangs")
	}
	if err := <-refused; !errors.Is(err, broker.ErrUnknownOutcome) {
		t.Errorf("the publisher is told %v", err)
	}
	h.mustPublish(t, "a", "2")
}

func TestRequestsWaitUntilTheHubHasStarted(t *testing.T) {
	hub := use(t)
	defer release(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := hub.WaitReady(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that went away got %v", err)
	}
	waiting := make(chan error)
	go func() { waiting <- hub.WaitReady(context.Background()) }()
	select {
	case err := <-waiting:
		t.Errorf("the hub has not started, and lets in with %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	mustOffer(t, hub, config(1, memory{}))
	if err := <-waiting; err != nil {
		t.Errorf("who waited for the hub got %v", err)
	}
	if err := hub.WaitReady(ctx); err != nil {
		t.Errorf("what has arrived is published even if its publisher has gone: %v", err)
	}
}

func TestTheSettingsOfTheOldestRunningConfigHold(t *testing.T) {
	hub := use(t)
	defer release(t)
	first, second, third := config(1, memory{}), config(2, memory{}), config(3, memory{})
	wantHolding := func(holding *Settings) {
		t.Helper()
		if hub.current.Load() != holding || !reflect.DeepEqual(hub.Core.Limits(), holding.Limits) {
			t.Errorf("the limits are %+v; want %+v", hub.Core.Limits(), holding.Limits)
		}
	}
	mustOffer(t, hub, first)
	wantHolding(first)
	mustOffer(t, hub, second)
	wantHolding(first)
	hub.Withdraw(first)
	wantHolding(second)
	mustOffer(t, hub, third)
	hub.Withdraw(third) // a reload that failed
	hub.Withdraw(third) // and is told so twice
	wantHolding(second)
	hub.Withdraw(second)
	wantHolding(second) // until the last route is gone
}

func TestAFailedReloadChangesNothingAndClosesWhatItOpened(t *testing.T) {
	hub := use(t)
	running, failing := &testBroker{identity: "running"}, &testBroker{identity: "failing"}
	mustOffer(t, hub, config(7, running))
	h := &hubtest.Hub{Hub: hub.Core, T: t}
	l := h.Join(hubtest.With("a"))
	before := hub.Core.Position()

	loser := config(8, failing)
	mustOffer(t, hub, loser)
	failing.wantLogs(t, false)
	hub.mustPublish(t, "a", "1")
	hub.Withdraw(loser)
	running.wantLogs(t, true)
	if failing.opened[0].closed != 1 {
		t.Error("the broker that the failed config opened was left open")
	}
	hub.mustPublish(t, "a", "2")
	hubtest.Want(t, l.Texts(), "1", "2")
	if got := hub.Core.Position(); got.Epoch != before.Epoch || hub.Core.Limits().MaxClients != 7 {
		t.Errorf("the log changed from %v to %v, the limits to %+v", before, got, hub.Core.Limits())
	}

	failing.fails = errors.New("no such file")
	if err := hub.Offer(config(9, failing)); !errors.Is(err, failing.fails) {
		t.Errorf("a broker that can't be opened is no error: %v", err)
	}
	if len(hub.settings) != 1 {
		t.Errorf("%d configs are said to run", len(hub.settings))
	}
	l.Leave()
	release(t)
	running.wantLogs(t, false)
}

func TestAReloadWithTheSameBrokerKeepsIt(t *testing.T) {
	hub := use(t)
	module := &testBroker{identity: "same"}
	old, young := config(1, module), config(2, &testBroker{identity: "same", fails: errors.New("opened twice")})
	mustOffer(t, hub, old)
	h := &hubtest.Hub{Hub: hub.Core, T: t}
	l := h.Join(hubtest.With("a"))
	hub.mustPublish(t, "a", "1")
	mustOffer(t, hub, young)
	hub.mustPublish(t, "a", "2")
	hub.Withdraw(old)
	hub.mustPublish(t, "a", "3")
	hubtest.Want(t, l.Texts(), "1", "2", "3")
	module.wantLogs(t, true)
	l.Leave()
	release(t)
	module.wantLogs(t, false)
}

func TestAReloadWithAnotherBrokerKeepsTheClientsAndTellsThem(t *testing.T) {
	shared := use(t)
	one, two := &testBroker{identity: "one"}, &testBroker{identity: "two"}
	old, young := config(1, one), config(2, two)
	mustOffer(t, shared, old)
	h := &hubtest.Hub{Hub: shared.Core, T: t}
	l := h.Join(hubtest.With("a"))
	shared.mustPublish(t, "a", "1")
	seen := shared.Core.Position().String()
	mustOffer(t, shared, young)
	shared.mustPublish(t, "a", "2")
	one.wantLogs(t, true)
	two.wantLogs(t, false)
	shared.Withdraw(old)
	one.wantLogs(t, false)
	two.wantLogs(t, true)
	shared.mustPublish(t, "a", "3")
	got := l.Events()
	hubtest.Want(t, hubtest.TextsOf(got), "1", "2", hubtest.Gap("broker_changed"), "3")
	if id := got[2].ID; id != two.opened[0].Epoch+"-0" {
		t.Errorf("the gap is told at %s, which is not where the new log begins", id)
	}
	back := h.Join(hubtest.Returning(hubtest.With("a"), seen))
	back.WantResume(hub.ResumeGap, two.opened[0].Epoch+"-0", "3")
	l.Leave()
	back.Leave()
	release(t)
	two.wantLogs(t, false)
}

// outageBroker's log is in reach from the start, or never.
type outageBroker struct{ inReach bool }

type outageLog struct {
	*memlog.Log
	inReach bool
}

func (b outageBroker) Identity() string { return fmt.Sprintf("in reach: %v", b.inReach) }

func (b outageBroker) Open(string) (broker.Log, error) {
	return &outageLog{Log: memlog.Open(), inReach: b.inReach}, nil
}

func (l *outageLog) Start(h *hub.Hub, ready func()) {
	l.Log.Start(h, ready)
	if !l.inReach {
		h.LogLost(errors.New("away"))
	}
}

// claimLog is a log that knows whose client_ids are.
type claimLog struct {
	*memlog.Log
	meanwhile func() // happens during a claim
	released  []string
}

func (*claimLog) Identity() string                  { return "claims" }
func (l *claimLog) Open(string) (broker.Log, error) { return l, nil }
func (l *claimLog) Release(clientID string)         { l.released = append(l.released, clientID) }

func (l *claimLog) Claim(context.Context, *hub.Subscription) { l.meanwhile() }

func TestAClientThatIsRefusedOrHasLeftGivesUpWhatItClaimed(t *testing.T) {
	s := use(t)
	log := &claimLog{Log: memlog.Open(), meanwhile: func() {}}
	settings := config(1, log)
	mustOffer(t, s, settings)
	defer s.Withdraw(settings)
	defer release(t)
	serve := func(sub hub.Subscription) (err error) {
		defer func() { _ = recover() }() // how a stream is cut whose client has gone
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // so that the stream ends as soon as it has begun
		return s.Serve(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), sub, StreamOptions{
			Hello: func(*hub.Client, hub.Welcome) []byte { return nil },
		})
	}
	made := hubtest.As("made-up", "alice")
	made.Generated = true
	for _, sub := range []hub.Subscription{made, hubtest.As("chosen", "alice"), hubtest.As("anonymous", "")} {
		if err := serve(sub); err != nil {
			t.Error(err)
		}
	}
	hubtest.Want(t, log.released, "made-up") // somebody may come back under the others

	for _, sub := range []hub.Subscription{hubtest.As("refused", "alice"), hubtest.As("nobody's", "")} {
		log.meanwhile = func() { s.Core.Kick(sub.ClientID) }
		if err := serve(sub); err != hub.ErrClientIDBarred {
			t.Errorf("a client was not refused: %v", err)
		}
	}
	hubtest.Want(t, log.released, "made-up", "refused")
}

func TestABrokerInPlaceOfOneThatIsAwayIsToldToBeUp(t *testing.T) {
	for name, next := range map[string]broker.Module{
		"cannot be away": memory{}, "can": outageBroker{inReach: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := use(t)
			defer release(t)
			var events []string
			noted := func(module broker.Module) *Settings {
				o := config(0, module)
				o.Emit = func(name string, _ map[string]any) { events = append(events, name) }
				return o
			}
			first, second := noted(outageBroker{}), noted(next)
			mustOffer(t, s, first)
			mustOffer(t, s, second)
			s.Withdraw(first)
			s.events.wait(time.Minute)
			hubtest.Want(t, events, "sse.broker_down", "sse.broker_up")
			if !s.BrokerState().Up {
				t.Error("the broker is not up")
			}
			s.Withdraw(second)
		})
	}
}

func TestNothingIsPublishedOnceTheHubDrains(t *testing.T) {
	shared := use(t)
	defer release(t)
	mustOffer(t, shared, config(1, memory{}))
	before := shared.Core.Position()
	shared.Core.Drain()
	n, err := shared.Publish(t.Context(), brokertest.One("a", "hi", "key"))
	if n != 0 || !errors.Is(err, hub.ErrDraining) {
		t.Errorf("a draining hub published %d, %v", n, err)
	}
	if shared.Core.Position() != before {
		t.Error("a refused message is in the log")
	}
}

// Caddy ends a config that has started by Cleanup alone, if what comes after all Starts fails.
func TestWhatAConfigOfferedThatFailedLaterIsTakenBack(t *testing.T) {
	s := use(t)
	defer release(t)
	runs, failed := config(1, memory{}), config(2, memory{})
	mustOffer(t, s, runs)
	mustOffer(t, s, failed)
	for range 2 { // Stop and Cleanup may both take it back
		s.Withdraw(failed)
	}
	next := config(3, memory{})
	mustOffer(t, s, next)
	s.Withdraw(runs)
	if s.current.Load() != next {
		t.Error("the settings that hold are not those of the next config")
	}
	s.Withdraw(next)
}

// A page that polls would else make two events a call.
func TestAPollIsNoEvent(t *testing.T) {
	s := use(t)
	defer release(t)
	var events []string
	o := config(0, memory{})
	o.Emit = func(name string, _ map[string]any) { events = append(events, name) }
	mustOffer(t, s, o)
	sub := hubtest.With("a")
	sub.Form, sub.Limit = hub.Answer, 1
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	hello := func(*hub.Client, hub.Welcome) []byte { return nil }
	if err := s.Serve(httptest.NewRecorder(), r, sub, StreamOptions{Hello: hello}); err != nil {
		t.Error(err)
	}
	s.events.wait(time.Minute)
	hubtest.Want(t, events)
	s.Withdraw(o)
}
