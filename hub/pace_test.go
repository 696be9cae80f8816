package hub_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// waiter is somebody who has published and may have to wait.
type waiter struct {
	receivers int
	cancel    context.CancelFunc
	goesOn    atomic.Bool
}

// letWait lets somebody wait who has published to so many clients.
func letWait(h *hubtest.Hub, receivers int) *waiter {
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
		h := hubtest.New(t, hubtest.Plenty)
		a, b := h.Listen(hubtest.With("a")), h.Listen(hubtest.With("a"))
		h.PublishAll("a", 1, hub.Window)
		if w := letWait(h, 2); w.waits() {
			t.Errorf("a publisher waits with %d messages for each client", hub.Window)
		}
		h.Publish(hub.Topics("a"), "one more")
		first, second := letWait(h, 2), letWait(h, 2)
		if !first.waits() || !second.waits() {
			t.Errorf("a publisher goes on with %d messages for each client", hub.Window+1)
		}
		h.PublishAll("a", 1, hub.Window) // by publishers who do not wait
		a.Turn()
		if !first.waits() || !second.waits() {
			t.Error("a publisher goes on before the other client had its turn")
		}
		b.Turn()
		if first.waits() || second.waits() {
			t.Error("a publisher waits after all clients had their turn")
		}
	})
}

func TestManyClientsWithFewMessagesHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		for range 100 {
			h.Listen(hubtest.With("a"))
		}
		h.PublishAll("a", 1, hub.Window)
		for _, receivers := range []int{1, 100} {
			if w := letWait(h, receivers); w.waits() {
				t.Errorf("who published to %d clients waits, with %d messages for each of 100", receivers, hub.Window)
			}
		}
	})
}

func TestWhoReachedNobodyWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Listen(hubtest.With("a"))
		h.PublishAll("a", 1, 200)
		if w := letWait(h, 0); w.waits() {
			t.Error("who reached nobody waits")
		}
		letWait(h, 1).cancel()
	})
}

func TestWhoIsCancelledWaitsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		l := h.Listen(hubtest.With("a"))
		h.PublishAll("a", 1, 200)
		first, second := letWait(h, 1), letWait(h, 1)
		if !first.waits() {
			t.Error("a publisher does not wait")
		}
		first.cancel()
		if first.waits() || !second.waits() {
			t.Errorf("who was cancelled waits: %v; who was not: %v", first.waits(), second.waits())
		}
		l.Turn()
		if second.waits() {
			t.Error("the other publisher was left behind")
		}
	})
}

func TestPublishersDoNotWaitForClientsThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue = 10
		woken, full := h.Listen(s), h.Listen(s)
		h.Publish(hub.Topics("a"), "0")
		full.Turn()
		h.PublishAll("a", 1, 100)
		w := letWait(h, 2)
		full.Leave()
		if !w.waits() {
			t.Error("a publisher does not wait for the other client")
		}
		woken.Leave()
		if w.waits() {
			t.Error("a publisher waits for clients that left")
		}
	})
}

func TestPublishersWaitForAFullQueueUntilItIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue = 10
		l := h.Listen(s)
		h.Publish(hub.Topics("a"), "0")
		l.Turn() // and now it writes
		h.PublishAll("a", 1, 10)
		if w := letWait(h, 1); w.waits() {
			t.Error("a publisher waits for a client with a queue of 10 and 10 messages")
		}
		h.Publish(hub.Topics("a"), "11")
		w := letWait(h, 1)
		hubtest.Pause(time.Minute)
		if !w.waits() {
			t.Error("a publisher does not wait for a full queue of a socket that is not blocked")
		}
		hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), hubtest.Numbers(1, 11)...)
		if w.waits() {
			t.Error("a publisher waits after the full queue was taken")
		}
	})
}

func TestPublishersWaitForABlockedClientForASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, policy := range []hub.SlowClient{hub.Disconnect, hub.DropOldest} {
			h := hubtest.New(t, hubtest.Plenty)
			s := hubtest.With("a")
			s.Queue, s.SlowClient = 10, policy
			l := stalled(h, s)
			h.PublishAll("a", 1, 11)
			w := letWait(h, 1)
			hubtest.Pause(time.Second - 1)
			if !w.waits() {
				t.Errorf("%s: a publisher does not wait for a blocked client", policy)
			}
			hubtest.Pause(1)
			if w.waits() {
				t.Errorf("%s: a publisher waits for a blocked client for more than a second", policy)
			}
			l.Leave()
		}
	})
}

func TestPublishersGoOnWhenTheHubEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue = 10
		l := stalled(h, s)
		h.PublishAll("a", 1, 11)
		w := letWait(h, 1)
		h.Drain()
		if w.waits() {
			t.Error("a publisher waits for a blocked client of a hub that drains")
		}
		l.Leave()
	})
}

// Clients and publishers do all they can in random order, one thing at a time. After each, whoever waits
// has a client to wait for, whose turn will end that.
func TestNobodyWaitsWithoutCauseAndNobodyIsLeftBehind(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 100}})
			var clients []*hubtest.Client
			var waiters []*waiter
			for step := range 1000 {
				l := (*hubtest.Client)(nil)
				if len(clients) > 0 {
					l = clients[random.IntN(len(clients))]
				}
				switch what := random.IntN(20); {
				case what < 8:
					topic := strconv.Itoa(random.IntN(3))
					for range random.IntN(40) {
						if _, receivers := h.Publish(hub.Topics(topic), "x"); receivers > 0 && random.IntN(10) == 0 {
							waiters = append(waiters, letWait(h, receivers))
						}
					}
				case what < 9 || l == nil:
					s := hubtest.With(strconv.Itoa(random.IntN(3)), strconv.Itoa(random.IntN(3))+"x")
					s.Queue, s.QueueBytes = 1+random.IntN(100), 1+random.IntN(10_000)
					s.SlowClient = []hub.SlowClient{hub.Disconnect, hub.DropOldest}[random.IntN(2)]
					s.LastEventID = []string{"", "?"}[random.IntN(2)]
					s.Heartbeat = time.Duration(random.IntN(2)) * time.Second
					clients = append(clients, h.Enter(s))
				case what < 16:
					if l.Turn(); l.End != nil {
						l.Leave()
					}
				case what < 17:
					l.Stalled.Store(random.IntN(2) == 0)
				case what < 18 && random.IntN(5) == 0:
					l.Leave()
				case what < 19 && len(waiters) > 0:
					waiters[random.IntN(len(waiters))].cancel()
				default:
					hubtest.Pause(time.Duration(random.IntN(500)) * time.Millisecond)
				}
				clients = slices.DeleteFunc(clients, func(l *hubtest.Client) bool { return l.Left })
				synctest.Wait()
				waiters = slices.DeleteFunc(waiters, func(w *waiter) bool { return w.goesOn.Load() })
				if len(waiters) > 0 && h.NobodyIsBehind() {
					t.Fatalf("seed %d, step %d: %d publishers wait for nobody", seed, step, len(waiters))
				}
			}
			for _, l := range clients {
				l.Leave()
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
	h := hubtest.New(t, hubtest.Plenty)
	var play hubtest.Traffic
	for range 4 {
		play.GoLoop(500, func(random *rand.Rand) {
			s := hubtest.With(strconv.Itoa(random.IntN(2)))
			s.Queue = 1 + random.IntN(100)
			p := hubtest.NewPlayer()
			p.CutAfter = random.IntN(500)
			c, _, err := h.Join(s, p)
			if err != nil {
				t.Error(err)
				return
			}
			h.Leave(c, p.Run(c))
		})
		play.GoLoop(3000, func(random *rand.Rand) {
			ctx, cancel := context.WithCancel(t.Context())
			if random.IntN(4) == 0 {
				time.AfterFunc(time.Duration(random.IntN(100))*time.Microsecond, cancel)
			}
			h.Post(ctx, &hub.Message{To: hub.Topics(strconv.Itoa(random.IntN(2)))})
			cancel()
		})
	}
	if !hubtest.ReturnsSoon(play.Wait) {
		t.Fatal("somebody waits for ever")
	}
}
