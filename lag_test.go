package sse

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// newSharedTestHub returns a hub that follows a log which other instances follow too, and has come to
// position 10 of it.
func newSharedTestHub(t testing.TB) *testHub {
	h := newTestHub(t, plenty)
	h.follow(Origin{Epoch: "e", Sparse: true, Shared: true}, "broker_changed")
	h.publishAll("a", 1, 10)
	return h
}

func testID(major uint64) string { return ID{"e", Position{Major: major}}.String() }

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
			resume Resume
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
				c := h.enter(returning(with("a"), id))
				after := time.Since(began)
				time.Sleep(time.Millisecond) // until all that is published at once has been
				came <- back{c.Resume, after, c.texts()}
			}()
		}
		pause(100 * time.Millisecond)
		h.publishAll("a", 11, 11)
		if b := <-clients[0]; b.resume != ResumeComplete || b.after != 100*time.Millisecond || len(b.texts) > 0 {
			t.Errorf("the client at 11 came back with %v", b)
		}
		pause(100 * time.Millisecond)
		published := time.Since(began)
		h.publishAll("a", 12, 13)
		for _, came := range clients[1:] {
			if b := <-came; b.resume != ResumeComplete || b.after != published {
				t.Errorf("a client at 12 came back with %v", b)
			} else {
				want(t, b.texts, "13")
			}
		}
	})
}

func TestAnInventedIDAheadOfTheLogCostsAClientTwoSecondsAndIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newSharedTestHub(t)
		go func() {
			time.Sleep(time.Second)
			h.publishAll("a", 11, 20) // past the one, which is not the same as to it
		}()
		for _, id := range []string{"e-15-1", testID(1 << 60)} {
			if took := timeOf(func() { h.AwaitID(t.Context(), id) }); took != 2*time.Second {
				t.Errorf("%s was waited for %v", id, took)
			}
			if c := h.enter(returning(with("a"), id)); c.Resume != ResumeGap {
				t.Errorf("%s resumes with %q", id, c.Resume)
			}
		}
	})
}

func TestNobodyWaitsForAnIDThatTheHubIsNotBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, alone := newSharedTestHub(t), newTestHub(t, plenty)
		alone.follow(Origin{Epoch: "e"}, "broker_changed")
		for _, test := range []struct {
			h  *testHub
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
	for name, end := range map[string]func(h *testHub, cancel func()){
		"the client leaves":           func(_ *testHub, cancel func()) { cancel() },
		"the process exits":           func(h *testHub, _ func()) { h.Drain() },
		"the hub closes":              func(h *testHub, _ func()) { h.Close() },
		"the broker goes":             func(h *testHub, _ func()) { h.LogLost(errors.New("gone")) },
		"the log was trimmed past":    func(h *testHub, _ func()) { h.Lose(Position{Major: 20}, "history_trimmed") },
		"another log takes its place": func(h *testHub, _ func()) { h.Follow(Origin{Epoch: "f"}) },
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
