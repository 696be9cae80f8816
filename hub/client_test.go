package hub_test

import (
	"math"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestASilentClientGetsAHeartbeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Heartbeat = 30 * time.Second
		c := h.Join(s)
		step := func(d time.Duration, texts ...string) {
			t.Helper()
			hubtest.Pause(d)
			c.Want(texts...)
		}
		step(30*time.Second-1, []string(nil)...)
		step(1, ":heartbeat")
		step(30*time.Second-1, []string(nil)...)
		step(1, ":heartbeat")
		step(10*time.Second, []string(nil)...)
		h.Publish(hub.Topics("a"), "hi")
		step(0, "hi") // it was not silent
		step(30*time.Second-1, []string(nil)...)
		step(1, ":heartbeat")
		for range 10 { // a message every 20 s: no heartbeat
			h.Publish(hub.Topics("a"), "hi")
			step(20*time.Second, "hi")
		}
		h.PublishEphemeral(hub.Topics("a"), "tick")
		step(0, "tick")
		step(30*time.Second-1, []string(nil)...)
		hubtest.Pause(1)
		hubtest.Want(t, c.Blocks(), ": heartbeat\n") // no empty line, which makes some dispatch an event
	})
}

func TestAClientThatIsStillWritingGetsNoHeartbeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Heartbeat = 30 * time.Second
		c := h.Enter(s)
		c.Let(1)
		h.Publish(hub.Topics("a"), "1")
		c.Want("1")
		hubtest.Pause(10 * time.Minute) // in that one write
		c.Want()
		c.Open()
		hubtest.Pause(30 * time.Second)
		c.Want(":heartbeat")
	})
}

func TestWithoutTimesNoTimerRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Join(hubtest.With("a"))
		h.Publish(hub.Topics("a"), "hi")
		settle()
		if l := hub.LeftoversOf(h.Hub); l.Timers != 0 || l.Appointments != 0 {
			t.Errorf("a client without heartbeat and ends is waited for: %+v", l)
		}
	})
}

func TestClientsHaveTheirTimesInWhateverOrderTheyCameAndLeft(t *testing.T) {
	onShards(t, 3, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		var clients []*hubtest.Client
		left := make(map[*hubtest.Client]bool)
		for i := range 60 {
			s := hubtest.With("a")
			s.IdleTimeout = time.Duration((i*37)%60+1) * time.Second
			clients = append(clients, h.Join(s))
		}
		for i := 0; i < len(clients); i += 7 {
			clients[i].Leave()
			left[clients[i]] = true
		}
		for second := 1; second <= 60; second++ {
			hubtest.Pause(time.Second)
			for _, c := range clients {
				over := time.Duration(second)*time.Second >= c.IdleTimeout
				if end := c.End(); !left[c] && (end == hub.ErrIdle) != over {
					t.Fatalf("after %d s a client with an idle timeout of %v has ended for %v", second, c.IdleTimeout, end)
				}
			}
		}
		if l := hub.LeftoversOf(h.Hub); l.Appointments > 0 {
			t.Errorf("%d clients have an appointment after their end", l.Appointments)
		}
	})
}

func TestAClientWithoutMessagesEndsAfterIdleTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Heartbeat, s.IdleTimeout = 4*time.Second, 30*time.Second
		c := h.Join(s)
		hubtest.Pause(29 * time.Second)
		h.Publish(hub.Topics("a"), "hi")
		if got := c.Texts(); len(got) == 0 || c.End() != nil {
			t.Errorf("got %v and the end %v", got, c.End())
		}
		for range 7 { // heartbeats are not messages
			hubtest.Pause(4 * time.Second)
			c.Want(":heartbeat")
			hubtest.Want(t, []error{c.End()}, nil)
		}
		hubtest.Pause(2 * time.Second)
		c.Want()
		hubtest.Want(t, []error{c.End()}, hub.ErrIdle)
	})
}

func TestEphemeralMessagesKeepAClientFromBeingIdle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.IdleTimeout = 30 * time.Second
		c := h.Join(s)
		for range 10 {
			hubtest.Pause(29 * time.Second)
			h.PublishEphemeral(hub.Topics("a"), "tick")
			c.Want("tick")
			hubtest.Want(t, []error{c.End()}, nil)
		}
	})
}

func TestMaxAgeEndsClientsATenthEarlyAtMost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.MaxAge = 100 * time.Minute
		var clients []*hubtest.Client
		for range 100 {
			clients = append(clients, h.Join(s))
		}
		ended := func() (n int) {
			for _, c := range clients {
				if c.End() == hub.ErrMaxAge {
					n++
				}
			}
			return n
		}
		hubtest.Pause(90*time.Minute - 1)
		if n := ended(); n != 0 {
			t.Errorf("%d of 100 clients ended more than a tenth early", n)
		}
		hubtest.Pause(5 * time.Minute)
		if n := ended(); n < 25 || n > 75 {
			t.Errorf("%d of 100 clients ended in the first half of the last tenth", n)
		}
		hubtest.Pause(5*time.Minute + 1)
		if n := ended(); n != 100 {
			t.Errorf("%d of 100 clients ended in time", n)
		}
	})
}

func TestAClientThatEndsByAgeGetsFirstWhatWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.MaxAge = time.Minute
		c := h.Join(s)
		c.Block()
		hubtest.Pause(50 * time.Second)
		h.Publish(hub.Topics("a"), "1")
		hubtest.Pause(10 * time.Second)
		h.Publish(hub.Topics("a"), "too late")
		c.Open()
		c.Want("1")
		hubtest.Want(t, []error{c.End(), c.Leave()}, hub.ErrMaxAge, hub.ErrMaxAge)
	})
}

func TestWhenItsAuthorizationEndsAClientIsToldAndThenEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Expires = time.Now().Add(time.Minute)
		live, behind := h.Join(s), h.Join(s)
		behind.Block()
		hubtest.Pause(time.Minute - 1)
		h.Publish(hub.Topics("a"), "1")
		live.Want("1")
		hubtest.Pause(1)
		h.Publish(hub.Topics("a"), "too late")
		behind.Open()
		live.Want(`expired {"status":"expired"}`)
		behind.Want("1", `expired {"status":"expired"}`)
		hubtest.Want(t, []error{live.End(), behind.End()}, hub.ErrExpired, hub.ErrExpired)
	})
}

// Issuers write such times, some of them in milliseconds.
func TestAnAuthorizationThatEndsInThousandsOfYearsHoldsUpNoTimes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Heartbeat = time.Minute
		for _, far := range []int64{1e10, 253402300799, 1e15, math.MaxInt64 / 2} {
			s.Expires = time.Unix(far, 0)
			c := h.Join(s)
			hubtest.Pause(time.Minute)
			c.Want(":heartbeat")
			c.Leave()
		}
	})
}

func TestWhatLeftHasNoTimes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Heartbeat, s.MaxAge, s.IdleTimeout, s.Expires = 1, 1, 1, time.Now().Add(1)
		c := h.Enter(s)
		c.Leave()
		hubtest.Pause(time.Hour)
		if c.Sends() != 0 || c.Aborts() != 0 {
			t.Error("a client that left was called")
		}
	})
}

func TestWhoLeavesTwiceIsToldTheFirstCause(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		c := h.Join(hubtest.With("a"))
		first, second := h.Leave(c.Client, hub.ErrStuck), h.Leave(c.Client, hub.ErrGone)
		hubtest.Want(t, []error{first, second}, hub.ErrStuck, hub.ErrStuck)
		if n := h.Stats().Disconnects[hub.NameOf(hub.ErrStuck)]; n != 1 {
			t.Errorf("%d clients are counted", n)
		}
	})
}

func TestAClientHandedOverGoesOnInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		first := h.Enter(hubtest.With("a")) // and its stream is never ready
		h.PublishAll("a", 1, 3)
		settle()
		second := &streamOfOne{}
		first.HandOver(second)
		first.Post(1)
		settle()
		if second.last == nil || second.last.Block() == "" || first.Sends() != 0 {
			t.Fatal("the other stream got nothing")
		}
		if messages, _ := first.Sent(); messages != 3 {
			t.Errorf("the other stream got %d messages; want 3", messages)
		}
	})
}
