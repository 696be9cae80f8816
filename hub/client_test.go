package hub_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestAStreamIsWokenOnceForAllThatGathersUntilItTakes(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	l := h.Listen(hubtest.With("a"))
	for round := range int64(3) {
		h.PublishAll("a", 1, 20)
		if n := l.Woken.Load(); n != round+1 {
			t.Errorf("in round %d the stream was woken %d times", round, n)
		}
		hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), hubtest.Numbers(1, 20)...)
		h.Publish(hub.Topics("a"), "while it writes")
		hubtest.Want(t, l.Texts(), "while it writes")
	}
	h.Publish(hub.Topics("b"), "not for it")
	if n := l.Woken.Load(); n != 3 {
		t.Errorf("the stream was woken %d times; want 3", n)
	}
}

func TestASilentClientGetsAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Heartbeat = 30 * time.Second
		l := h.Listen(s)
		step := func(d time.Duration, texts ...string) {
			t.Helper()
			hubtest.Pause(d)
			hubtest.Want(t, l.Texts(), texts...)
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
		step(1, ":heartbeat")
	})
}

func TestAClientThatIsStillWritingGetsNoHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Heartbeat = 30 * time.Second
		l := h.Listen(s)
		h.Publish(hub.Topics("a"), "1")
		hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), "1")
		hubtest.Pause(10 * time.Minute) // in that one write
		hubtest.Want(t, l.Texts())
		hubtest.Pause(30 * time.Second)
		hubtest.Want(t, l.Texts(), ":heartbeat")
	})
}

func TestWithoutTimesNoTimerRuns(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	if h.Listen(hubtest.With("a")); h.HasTimer() {
		t.Error("a client without heartbeat and ends is waited for")
	}
}

func TestClientsHaveTheirTimesInWhateverOrderTheyCameAndLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		var clients []*hubtest.Client
		for i := range 60 {
			s := hubtest.With("a")
			s.IdleTimeout = time.Duration((i*37)%60+1) * time.Second
			clients = append(clients, h.Listen(s))
		}
		for i := 0; i < len(clients); i += 7 {
			clients[i].Leave()
		}
		for second := 1; second <= 60; second++ {
			hubtest.Pause(time.Second)
			for _, l := range clients {
				over := l.Left || time.Duration(second)*time.Second >= l.IdleTimeout
				if l.Turn(); !l.Left && (l.End == hub.ErrIdle) != over {
					t.Fatalf("after %d s a client with an idle timeout of %v has ended for %v", second, l.IdleTimeout, l.End)
				}
			}
		}
		if n := h.Appointments(); n > 0 {
			t.Errorf("%d clients have an appointment after their end", n)
		}
	})
}

func TestAClientWithoutMessagesEndsAfterIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Heartbeat, s.IdleTimeout = 4*time.Second, 30*time.Second
		l := h.Listen(s)
		hubtest.Pause(29 * time.Second)
		h.Publish(hub.Topics("a"), "hi")
		synctest.Wait()
		if got := l.Texts(); len(got) == 0 || l.End != nil {
			t.Errorf("got %v and the end %v", got, l.End)
		}
		for range 7 { // heartbeats are not messages
			hubtest.Pause(4 * time.Second)
			hubtest.Want(t, l.Texts(), ":heartbeat")
			hubtest.Want(t, []error{l.End}, nil)
		}
		hubtest.Pause(2 * time.Second)
		hubtest.Want(t, l.Texts())
		hubtest.Want(t, []error{l.End}, hub.ErrIdle)
	})
}

func TestEphemeralMessagesKeepAClientFromBeingIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.IdleTimeout = 30 * time.Second
		l := h.Listen(s)
		for range 10 {
			hubtest.Pause(29 * time.Second)
			h.PublishEphemeral(hub.Topics("a"), "tick")
			hubtest.Want(t, l.Texts(), "tick")
			hubtest.Want(t, []error{l.End}, nil)
		}
	})
}

func TestMaxAgeEndsClientsATenthEarlyAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.MaxAge = 100 * time.Minute
		var clients []*hubtest.Client
		for range 100 {
			clients = append(clients, h.Listen(s))
		}
		ended := func() (n int) {
			synctest.Wait()
			for _, l := range clients {
				if l.TakeAll(); l.End == hub.ErrMaxAge {
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
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.MaxAge = time.Minute
		l := h.Listen(s)
		hubtest.Pause(50 * time.Second)
		h.Publish(hub.Topics("a"), "1")
		hubtest.Pause(10 * time.Second)
		if _, receivers := h.Publish(hub.Topics("a"), "too late"); receivers != 0 {
			t.Errorf("a client whose time is over counts as receiver")
		}
		hubtest.Want(t, l.Texts(), "1")
		hubtest.Want(t, []error{l.End, l.Leave()}, hub.ErrMaxAge, hub.ErrMaxAge)
	})
}

func TestWhenItsAuthorizationEndsAClientIsToldAndThenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Expires = time.Now().Add(time.Minute)
		l := h.Listen(s)
		hubtest.Pause(time.Minute - 1)
		h.Publish(hub.Topics("a"), "1")
		hubtest.Want(t, l.Texts(), "1")
		h.Publish(hub.Topics("a"), "2")
		hubtest.Pause(1)
		hubtest.Want(t, l.Texts(), "2", `expired {"status":"expired"}`)
		hubtest.Want(t, []error{l.End}, hub.ErrExpired)
	})
}

// Issuers write such times, some of them in milliseconds.
func TestAnAuthorizationThatEndsInThousandsOfYearsHoldsUpNoTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Heartbeat = time.Minute
		for _, far := range []int64{1e10, 253402300799, 1e15, math.MaxInt64 / 2} {
			s.Expires = time.Unix(far, 0)
			l := h.Listen(s)
			hubtest.Pause(time.Minute)
			hubtest.Want(t, l.Texts(), ":heartbeat")
			l.Leave()
		}
	})
}

func TestWhatLeftHasNoTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Heartbeat, s.MaxAge, s.IdleTimeout, s.Expires = 1, 1, 1, time.Now().Add(1)
		l := h.Enter(s)
		l.Leave()
		hubtest.Pause(time.Hour)
		if l.Woken.Load() != 0 || l.Aborted.Load() != 0 {
			t.Error("a client that left was woken")
		}
	})
}

func TestAnIdleClientKeepsNoLargeQueue(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	l := h.Listen(hubtest.With("a"))
	h.PublishAll("a", 1, 200)
	l.TakeAll()
	if _, n := l.Queued(); n > hub.Window {
		t.Errorf("an empty queue has room for %d messages", n)
	}
}
