package hub_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// newSharedTestHub returns a hub that follows a log which other instances follow too, and has come to
// position 10 of it.
func newSharedTestHub(t testing.TB) *hubtest.Hub {
	h := hubtest.New(t, hubtest.Plenty)
	h.Switch(hub.Origin{Epoch: "e", Sparse: true, Shared: true}, "broker_changed")
	h.PublishAll("a", 1, 10)
	return h
}

func testID(major uint64) string {
	return hub.ID{Epoch: "e", Position: hub.Position{Major: major}}.String()
}

// timeOf returns how long a call takes.
func timeOf(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func TestAClientAheadOfItsNewInstanceIsWaitedForAndMissesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSharedTestHub(t)
		type back struct {
			resume hub.Resume
			after  time.Duration
			texts  []string
		}
		var clients []chan back
		began := time.Now()
		for _, id := range []string{testID(11), testID(12), testID(12)} {
			came := make(chan back, 1)
			clients = append(clients, came)
			go func() {
				h.AwaitID(t.Context(), id)
				c := h.Enter(hubtest.Returning(hubtest.With("a"), id))
				after := time.Since(began)
				time.Sleep(time.Millisecond) // until all that is published at once has been
				came <- back{c.Resume, after, c.Texts()}
			}()
		}
		hubtest.Pause(100 * time.Millisecond)
		h.PublishAll("a", 11, 11)
		if b := <-clients[0]; b.resume != hub.ResumeComplete || b.after != 100*time.Millisecond || len(b.texts) > 0 {
			t.Errorf("the client at 11 came back with %v", b)
		}
		hubtest.Pause(100 * time.Millisecond)
		published := time.Since(began)
		h.PublishAll("a", 12, 13)
		for _, came := range clients[1:] {
			if b := <-came; b.resume != hub.ResumeComplete || b.after != published {
				t.Errorf("a client at 12 came back with %v", b)
			} else {
				hubtest.Want(t, b.texts, "13")
			}
		}
	})
}

func TestAnInventedIDAheadOfTheLogCostsAClientTwoSecondsAndIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSharedTestHub(t)
		go func() {
			time.Sleep(time.Second)
			h.PublishAll("a", 11, 20) // past the one, which is not the same as to it
		}()
		for _, id := range []string{"e-15-1", testID(1 << 60)} {
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
	synctest.Test(t, func(t *testing.T) {
		shared, alone := newSharedTestHub(t), hubtest.New(t, hubtest.Plenty)
		alone.Switch(hub.Origin{Epoch: "e"}, "broker_changed")
		for _, test := range []struct {
			h  *hubtest.Hub
			id string
		}{
			{shared, ""}, {shared, "rubbish"}, {shared, testID(10)}, {shared, testID(3)}, {shared, "other-11"}, {alone, testID(11)},
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
			synctest.Test(t, func(t *testing.T) {
				h := newSharedTestHub(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(300*time.Millisecond, func() { end(h, cancel) })
				if took := timeOf(func() { h.AwaitID(ctx, testID(11)) }); took != 300*time.Millisecond {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
