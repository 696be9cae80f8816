package hub_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// newSharedHub returns a hub that follows a log which other instances follow too, and has come to
// position 10 of it.
func newSharedHub(t testing.TB) *hubtest.Hub {
	h := hubtest.New(t, hubtest.Plenty)
	h.Switch(hub.Origin{Epoch: "e", Sparse: true, Shared: true}, "broker_changed")
	h.PublishAll("a", 1, 10)
	return h
}

func idAt(major uint64) string {
	return hub.ID{Epoch: "e", Position: hub.Position{Major: major}}.String()
}

// timeOf returns how long a call takes.
func timeOf(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func TestAClientAheadOfItsNewInstanceIsWaitedForAndMissesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newSharedHub(t)
		type back struct {
			c     *hubtest.Client
			after time.Duration
		}
		var clients []chan back
		began := time.Now()
		for _, id := range []string{idAt(11), idAt(12), idAt(12)} {
			came := make(chan back, 1)
			clients = append(clients, came)
			go func() {
				h.AwaitID(t.Context(), id)
				c, err := h.TryEnter(hubtest.Returning(hubtest.With("a"), id))
				if err != nil {
					t.Error(err)
				}
				came <- back{c, time.Since(began)}
			}()
		}
		hubtest.Pause(100 * time.Millisecond)
		h.PublishAll("a", 11, 11)
		synctest.Wait()
		first := <-clients[0]
		hubtest.Pause(100 * time.Millisecond)
		published := time.Since(began)
		h.PublishAll("a", 12, 13)
		synctest.Wait()
		if first.c.Open(); first.c.Resume != hub.ResumeComplete || first.after != 100*time.Millisecond {
			t.Errorf("the client at 11 came back with %q after %v", first.c.Resume, first.after)
		}
		first.c.Want("12", "13")
		for _, came := range clients[1:] {
			b := <-came
			if b.c.Open(); b.c.Resume != hub.ResumeComplete || b.after != published {
				t.Errorf("a client at 12 came back with %q after %v", b.c.Resume, b.after)
			}
			b.c.Want("13")
		}
	})
}

func TestAnInventedIDAheadOfTheLogCostsAClientTwoSecondsAndIsAGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newSharedHub(t)
		time.AfterFunc(time.Second, func() { h.PublishAll("a", 11, 20) }) // past the one, which is not the same as to it
		for _, id := range []string{"e-15-1", idAt(1 << 60)} {
			if took := timeOf(func() { h.AwaitID(t.Context(), id) }); took != 2*time.Second {
				t.Errorf("%s was waited for %v", id, took)
			}
			if c := h.Enter(hubtest.Returning(hubtest.With("a"), id)); c.Resume != hub.ResumeGap {
				t.Errorf("%s resumes with %q", id, c.Resume)
			}
		}
	})
}

func TestNobodyWaitsForAnIDThatTheHubIsNotBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared, alone := newSharedHub(t), hubtest.New(t, hubtest.Plenty)
		alone.Switch(hub.Origin{Epoch: "e"}, "broker_changed")
		for _, test := range []struct {
			h  *hubtest.Hub
			id string
		}{
			{shared, ""},
			{shared, "rubbish"},
			{shared, idAt(10)},
			{shared, idAt(3)},
			{shared, "other-11"},
			{alone, idAt(11)},
		} {
			if took := timeOf(func() { test.h.AwaitID(t.Context(), test.id) }); took > 0 {
				t.Errorf("%q was waited for %v", test.id, took)
			}
		}
	})
}

func TestWaitingForAHubThatIsBehindEndsWithItsReason(t *testing.T) {
	for name, end := range map[string]func(h *hubtest.Hub, cancel func()){
		"the client leaves":           func(_ *hubtest.Hub, cancel func()) { cancel() },
		"the process exits":           func(h *hubtest.Hub, _ func()) { h.Drain() },
		"the hub closes":              func(h *hubtest.Hub, _ func()) { h.Close() },
		"the broker goes":             func(h *hubtest.Hub, _ func()) { h.LogLost(errors.New("gone")) },
		"the log was trimmed past":    func(h *hubtest.Hub, _ func()) { h.Lose(hub.Position{Major: 20}, "history_trimmed") },
		"another log takes its place": func(h *hubtest.Hub, _ func()) { h.Follow(hub.Origin{Epoch: "f"}) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := newSharedHub(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(300*time.Millisecond, func() { end(h, cancel) })
				if took := timeOf(func() { h.AwaitID(ctx, idAt(11)) }); took != 300*time.Millisecond {
					t.Errorf("it took %v", took)
				}
				if n := hub.LeftoversOf(h.Hub).Arrivals; n != 0 {
					t.Errorf("%d positions are still waited for", n)
				}
			})
		})
	}
}

// Anybody can invent IDs.
func TestNoMorePositionsAreWaitedForThanThereIsRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newSharedHub(t)
		for i := range uint64(hub.MaxArrivals) {
			go h.AwaitID(t.Context(), idAt(1000+i))
		}
		synctest.Wait()
		if took := timeOf(func() { h.AwaitID(t.Context(), idAt(500)) }); took != 0 {
			t.Errorf("one more was waited for %v", took)
		}
		if took := timeOf(func() { h.AwaitID(t.Context(), idAt(1000)) }); took != 2*time.Second { // which is known
			t.Errorf("the same as another was waited for %v", took)
		}
		hubtest.Pause(2 * time.Second)
		if n := hub.LeftoversOf(h.Hub).Arrivals; n != 0 {
			t.Errorf("%d positions are still waited for", n)
		}
	})
}

func TestWhoWaitsTakesUpAPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		limits := hubtest.Plenty
		limits.MaxClients = 3
		h := hubtest.New(t, limits)
		here := func(last byte) hub.Subscription {
			s := hubtest.With("a")
			options := *s.ClientOptions
			options.MaxPerSource = 2
			s.ClientOptions, s.Source = &options, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), 32)
			return s
		}
		hold := func(s hub.Subscription, want error) *hub.Place {
			t.Helper()
			place, err := h.Hold(s)
			if !errors.Is(err, want) {
				t.Errorf("a place is held with %v; want %v", err, want)
			}
			return place
		}
		one, two := hold(here(1), nil), hold(here(1), nil)
		hold(here(1), hub.ErrTooManyFromHere)
		if _, err := h.TryEnter(here(1)); !errors.Is(err, hub.ErrTooManyFromHere) {
			t.Errorf("beside two places a client enters with %v", err)
		}
		three := hold(here(2), nil)
		hold(here(2), hub.ErrHubFull)
		s := here(1)
		s.Place = one
		if err := h.Admits(s); err != nil {
			t.Errorf("a client's own place keeps it out: %v", err)
		}
		if _, err := h.TryEnter(s); err != nil {
			t.Errorf("a client can't join with its place: %v", err)
		}
		one.GiveUp() // which is used up
		hold(here(3), hub.ErrHubFull)
		two.GiveUp()
		two.GiveUp()
		hold(here(1), nil).GiveUp()
		hold(here(3), nil).GiveUp()
		three.GiveUp()
		if clients, _ := h.Size(); clients != 1 {
			t.Errorf("%d clients are counted; want 1", clients)
		}
	})
}
