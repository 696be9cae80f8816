package sse

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// waiter is somebody who has published and may have to wait.
type waiter struct {
	receivers int
	cancel    context.CancelFunc
	goesOn    atomic.Bool
}

// wait lets somebody wait who has published to so many clients.
func (h *testHub) wait(receivers int) *waiter {
	ctx, cancel := context.WithCancel(context.Background())
	w := &waiter{receivers: receivers, cancel: cancel}
	go func() {
		h.Wait(ctx, receivers)
		w.goesOn.Store(true)
		cancel()
	}()
	return w
}

// waits reports whether w still waits, now that all who could go on have.
func (w *waiter) waits() bool {
	synctest.Wait()
	return !w.goesOn.Load()
}

func TestPublishersWaitWhileClientsHaveNotHadTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		a, b := h.join(with("a")), h.join(with("a"))
		h.publishAll("a", 1, window)
		if w := h.wait(2); w.waits() {
			t.Errorf("a publisher waits with %d messages for each client", window)
		}
		h.publish(Topics("a"), "one more")
		first, second := h.wait(2), h.wait(2)
		if !first.waits() || !second.waits() {
			t.Errorf("a publisher goes on with %d messages for each client", window+1)
		}
		h.publishAll("a", 1, window) // by publishers who do not wait
		a.take()
		if !first.waits() || !second.waits() {
			t.Error("a publisher goes on before the other client had its turn")
		}
		b.take()
		if first.waits() || second.waits() {
			t.Error("a publisher waits after all clients had their turn")
		}
	})
}

func TestManyClientsWithFewMessagesHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		for range 100 {
			h.join(with("a"))
		}
		h.publishAll("a", 1, window)
		for _, receivers := range []int{1, 100} {
			if w := h.wait(receivers); w.waits() {
				t.Errorf("who published to %d clients waits, with %d messages for each of 100", receivers, window)
			}
		}
	})
}

func TestWhoReachedNobodyWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		h.join(with("a"))
		h.publishAll("a", 1, 200)
		if w := h.wait(0); w.waits() {
			t.Error("who reached nobody waits")
		}
		h.wait(1).cancel()
	})
}

func TestWhoIsCancelledWaitsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		l := h.join(with("a"))
		h.publishAll("a", 1, 200)
		first, second := h.wait(1), h.wait(1)
		if !first.waits() {
			t.Error("a publisher does not wait")
		}
		first.cancel()
		if first.waits() || !second.waits() {
			t.Errorf("who was cancelled waits: %v; who was not: %v", first.waits(), second.waits())
		}
		l.take()
		if second.waits() {
			t.Error("the other publisher was left behind")
		}
	})
}

func TestPublishersDoNotWaitForClientsThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue = 10
		woken, full := h.join(s), h.join(s)
		h.publish(Topics("a"), "0")
		full.take()
		h.publishAll("a", 1, 100)
		w := h.wait(2)
		full.leave()
		if !w.waits() {
			t.Error("a publisher does not wait for the other client")
		}
		woken.leave()
		if w.waits() {
			t.Error("a publisher waits for clients that left")
		}
	})
}

func TestPublishersWaitForAFullQueueUntilItIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue = 10
		l := h.join(s)
		h.publish(Topics("a"), "0")
		l.take() // and now it writes
		h.publishAll("a", 1, 10)
		if w := h.wait(1); w.waits() {
			t.Error("a publisher waits for a client with a queue of 10 and 10 messages")
		}
		h.publish(Topics("a"), "11")
		w := h.wait(1)
		pause(time.Minute)
		if !w.waits() {
			t.Error("a publisher does not wait for a full queue of a socket that is not blocked")
		}
		want(t, textsOf(t, l.take()), numbers(1, 11)...)
		if w.waits() {
			t.Error("a publisher waits after the full queue was taken")
		}
	})
}

func TestPublishersWaitForABlockedClientForASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, policy := range []SlowClient{Disconnect, DropOldest} {
			h := newTestHub(t, plenty)
			s := with("a")
			s.Queue, s.SlowClient = 10, policy
			l := stalled(h, s)
			h.publishAll("a", 1, 11)
			w := h.wait(1)
			pause(time.Second - 1)
			if !w.waits() {
				t.Errorf("%s: a publisher does not wait for a blocked client", policy)
			}
			pause(1)
			if w.waits() {
				t.Errorf("%s: a publisher waits for a blocked client for more than a second", policy)
			}
			l.leave()
		}
	})
}

func TestPublishersGoOnWhenTheHubEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue = 10
		l := stalled(h, s)
		h.publishAll("a", 1, 11)
		w := h.wait(1)
		h.Drain()
		if w.waits() {
			t.Error("a publisher waits for a blocked client of a hub that drains")
		}
		l.leave()
	})
}

// Clients and publishers do all they can in random order, one thing at a time. After each, whoever waits
// has a client to wait for, whose turn will end that.
func TestNobodyWaitsWithoutCauseAndNobodyIsLeftBehind(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			h := newTestHub(t, Limits{History: HistoryLimits{Count: 100}})
			var clients []*testClient
			var waiters []*waiter
			for step := range 1000 {
				l := (*testClient)(nil)
				if len(clients) > 0 {
					l = clients[random.IntN(len(clients))]
				}
				switch what := random.IntN(20); {
				case what < 8:
					topic := strconv.Itoa(random.IntN(3))
					for range random.IntN(40) {
						if _, receivers := h.publish(Topics(topic), "x"); receivers > 0 && random.IntN(10) == 0 {
							waiters = append(waiters, h.wait(receivers))
						}
					}
				case what < 9 || l == nil:
					s := with(strconv.Itoa(random.IntN(3)), strconv.Itoa(random.IntN(3))+"x")
					s.Queue, s.QueueBytes = 1+random.IntN(100), 1+random.IntN(10_000)
					s.SlowClient = []SlowClient{Disconnect, DropOldest}[random.IntN(2)]
					s.LastEventID = []string{"", "?"}[random.IntN(2)]
					s.Heartbeat = time.Duration(random.IntN(2)) * time.Second
					clients = append(clients, h.enter(s))
				case what < 16:
					if l.take(); l.end != nil {
						l.leave()
					}
				case what < 17:
					l.blocked.Store(random.IntN(2) == 0)
				case what < 18 && random.IntN(5) == 0:
					l.leave()
				case what < 19 && len(waiters) > 0:
					waiters[random.IntN(len(waiters))].cancel()
				default:
					pause(time.Duration(random.IntN(500)) * time.Millisecond)
				}
				clients = slices.DeleteFunc(clients, func(l *testClient) bool { return l.left })
				synctest.Wait()
				waiters = slices.DeleteFunc(waiters, func(w *waiter) bool { return w.goesOn.Load() })
				if len(waiters) > 0 && h.pace.woken.Load() == 0 && h.pace.full.Load() == 0 {
					t.Fatalf("seed %d, step %d: %d publishers wait for nobody", seed, step, len(waiters))
				}
			}
			for _, l := range clients {
				l.leave()
			}
			for _, w := range waiters {
				if w.waits() {
					t.Errorf("seed %d: who published to %d clients waits with none left", seed, w.receivers)
				}
			}
		})
	}
}

// The same with everything at once.
func TestPublishersAndClientsAtOnceLeaveNobodyWaiting(t *testing.T) {
	h := newTestHub(t, plenty)
	var play traffic
	for range 4 {
		play.goLoop(500, func(random *rand.Rand) {
			s := with(strconv.Itoa(random.IntN(2)))
			s.Queue = 1 + random.IntN(100)
			p := newPlayer()
			p.cutAfter = random.IntN(500)
			c, _, err := h.Join(s, p)
			if err != nil {
				t.Error(err)
				return
			}
			h.Leave(c, p.run(c))
		})
		play.goLoop(3000, func(random *rand.Rand) {
			ctx, cancel := context.WithCancel(t.Context())
			if random.IntN(4) == 0 {
				time.AfterFunc(time.Duration(random.IntN(100))*time.Microsecond, cancel)
			}
			h.post(ctx, &Message{To: Topics(strconv.Itoa(random.IntN(2)))})
			cancel()
		})
	}
	if !returnsSoon(play.Wait) {
		t.Fatal("somebody waits for ever")
	}
}
