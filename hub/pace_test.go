package hub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// held publishes and waits as publishers do, and returns for how long that was.
func held(t *testing.T, h *hubtest.Hub, to []hub.Address, text string) time.Duration {
	t.Helper()
	_, receivers := h.Publish(to, text)
	return timeOf(func() { h.Wait(t.Context(), receivers) })
}

// Every tenth of a second there comes somebody who never reads, with whatever ID, topics and policy; also while there are
// more messages than history may hold on somebody's account.
func TestStalledNewcomersCostPublishersNothing(t *testing.T) {
	for name, id := range map[string]func(h *hubtest.Hub, begin string) string{
		"new":            func(*hubtest.Hub, string) string { return "" },
		"with the first": func(_ *hubtest.Hub, begin string) string { return begin },
		"with the last":  func(h *hubtest.Hub, _ string) string { return h.Position().String() },
		"with any other": func(*hubtest.Hub, string) string { return "?" },
	} {
		t.Run(name, func(t *testing.T) {
			onShards(t, 2, func(t *testing.T) {
				h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 10}})
				begin := h.Position().String()
				good := h.Join(hubtest.With("a"))
				next, total := 0, time.Duration(0)
				const each = 1000
				rounds := 12
				if name == "with the first" { // whose ID nothing may be trimmed for
					rounds += hub.MostExcess / each
				}
				for i := range rounds {
					s := hubtest.With("a", "b", "**")
					s.LastEventID = id(h, begin)
					s.Queue, s.SlowClient = 10, []hub.SlowClient{hub.CatchUp, hub.Disconnect, hub.DropOldest}[i%3]
					c := h.Enter(s)
					if i%2 == 0 {
						c.Let(i % 5) // it takes a little
					}
					if i%10 == 9 {
						c.Leave()
					}
					for range each {
						total += held(t, h, hub.Topics("a"), strconv.Itoa(next))
						next++
					}
					time.Sleep(100 * time.Millisecond)
					good.Want(hubtest.Numbers(next-each, next-1)...)
					if t.Failed() {
						t.FailNow()
					}
				}
				if total != 0 {
					t.Errorf("publishers were held up for %v", total)
				}
			})
		})
	}
}

func TestPublishersWaitForNobodysSocket(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		for _, policy := range []hub.SlowClient{hub.CatchUp, hub.Disconnect, hub.DropOldest} {
			for range 10 {
				s := hubtest.With("a")
				s.Queue, s.SlowClient = 10, policy
				h.Join(s).Block()
				h.Join(s).Busy()
				h.Enter(s) // and its stream never begins
			}
		}
		for i := range 20_000 {
			if took := held(t, h, hub.Topics("a"), strconv.Itoa(i)); took > 0 {
				t.Fatalf("a publisher waited for %v", took)
			}
		}
	})
}

// gate is a stream in which a shard waits, as for a processor.
type gate struct {
	open    chan struct{}
	entered atomic.Int64
}

func (g *gate) Send(frames []*hub.Frame, _ error) (int, bool) {
	g.entered.Add(1)
	<-g.open
	return len(frames), true
}

func (g *gate) Notice(hub.News) bool { return true }
func (g *gate) Abort()               {}
func (g *gate) Blocked() bool        { return false }

func TestPublishersWaitWhileAShardIsBehindAndNothingIsLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 3}})
		hub.Shrink(h.Hub, 5, 32, 7)
		g := &gate{open: make(chan struct{})}
		c, _, err := h.Hub.Join(hubtest.With("a"), g)
		if err != nil {
			t.Fatal(err)
		}
		c.Post(1)
		good := h.Join(hubtest.With("a")) // of the same shard
		var published atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for i := range 5000 {
				_, receivers := h.Publish(hub.Topics("a"), strconv.Itoa(i))
				published.Add(1)
				h.Wait(t.Context(), receivers)
			}
		}()
		settle()
		n := published.Load()
		if n > 2000 {
			t.Fatalf("a shard reads nothing, and %d messages were published", n)
		}
		waited := make(chan struct{})
		go func() { h.Wait(ctx, 1); close(waited) }()
		settle()
		cancel()
		<-waited // who has given up waits no more
		if took := timeOf(func() { h.Wait(t.Context(), 0) }); took != 0 {
			t.Errorf("who reached nobody waited for %v", took)
		}
		close(g.open)
		settle()
		good.Want(hubtest.Numbers(0, 4999)...)
		h.Leave(c, nil)
	})
}

// History keeps ten, and who can be written to misses nothing: whether it is live, or has come back.
func TestAHealthyClientIsNeverToldAGapHoweverFastPublishersAre(t *testing.T) {
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprint(shards, " shards"), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(shards + 1))
			h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 10}})
			hub.Shrink(h.Hub, 10, 2, 5)
			begin := h.Position().String()
			const n = 6000
			live := h.Join(hubtest.With("a"))
			h.PublishAll("a", 0, 9)
			var back []*hubtest.Client
			for range 6 {
				c := h.Enter(hubtest.Returning(hubtest.With("a", "*"), begin))
				c.Open()
				back = append(back, c)
			}
			var play hubtest.Traffic
			next := 10
			play.GoLoop(n, func(*rand.Rand) {
				_, receivers := h.Publish(hub.Topics("a"), strconv.Itoa(next))
				next++
				h.Wait(t.Context(), receivers)
			})
			play.GoLoop(n, func(*rand.Rand) { h.PublishEphemeral(hub.Topics("b/c"), "noise") })
			if !hubtest.ReturnsSoon(play.Wait) {
				t.Fatal("somebody waits for ever")
			}
			live.Want(hubtest.Numbers(0, next-1)...)
			for _, c := range back {
				c.WantResume(hub.ResumeComplete, begin, hubtest.Numbers(0, next-1)...)
			}
		})
	}
}

// Publishers wait for who is catching up and reads, once very much is kept on its account, and go on when it has read.
func TestPublishersGoOnWhenACatchingUpClientHasRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 10}})
		hub.Shrink(h.Hub, 10, 32, 1)
		begin := h.Position().String()
		h.PublishAll("a", 1, 10)
		c := h.Enter(hubtest.Returning(hubtest.With("a"), begin))
		last := 10
		for ; last < hub.MostExcess+100; last++ { // by publishers who do not wait
			h.Publish(hub.Topics("b"), "x")
		}
		done := make(chan struct{})
		go func() { h.Wait(t.Context(), 1); close(done) }()
		c.Open()
		hubtest.Pause(time.Minute)
		select {
		case <-done:
		default:
			t.Error("a publisher still waits although nobody publishes, and everybody has read all")
		}
		c.Want(hubtest.Numbers(1, 10)...)
	})
}
