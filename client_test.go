package sse

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestAStreamIsWokenOnceForAllThatGathersUntilItTakes(t *testing.T) {
	h := newTestHub(t, plenty)
	l := h.join(with("a"))
	for round := range int64(3) {
		h.publishAll("a", 1, 20)
		if n := l.wakes.Load(); n != round+1 {
			t.Errorf("in round %d the stream was woken %d times", round, n)
		}
		want(t, textsOf(t, l.take()), numbers(1, 20)...)
		h.publish(Topics("a"), "while it writes")
		want(t, l.texts(), "while it writes")
	}
	h.publish(Topics("b"), "not for it")
	if n := l.wakes.Load(); n != 3 {
		t.Errorf("the stream was woken %d times; want 3", n)
	}
}

func TestASilentClientGetsAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Heartbeat = 30 * time.Second
		l := h.join(s)
		step := func(d time.Duration, texts ...string) {
			t.Helper()
			pause(d)
			want(t, l.texts(), texts...)
		}
		step(30*time.Second-1, []string(nil)...)
		step(1, ":heartbeat")
		step(30*time.Second-1, []string(nil)...)
		step(1, ":heartbeat")
		step(10*time.Second, []string(nil)...)
		h.publish(Topics("a"), "hi")
		step(0, "hi") // it was not silent
		step(30*time.Second-1, []string(nil)...)
		step(1, ":heartbeat")
		for range 10 { // a message every 20 s: no heartbeat
			h.publish(Topics("a"), "hi")
			step(20*time.Second, "hi")
		}
		h.publishEphemeral(Topics("a"), "tick")
		step(0, "tick")
		step(30*time.Second-1, []string(nil)...)
		step(1, ":heartbeat")
	})
}

func TestAClientThatIsStillWritingGetsNoHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Heartbeat = 30 * time.Second
		l := h.join(s)
		h.publish(Topics("a"), "1")
		want(t, textsOf(t, l.take()), "1")
		pause(10 * time.Minute) // in that one write
		want(t, l.texts())
		pause(30 * time.Second)
		want(t, l.texts(), ":heartbeat")
	})
}

func TestWithoutTimesNoTimerRuns(t *testing.T) {
	h := newTestHub(t, plenty)
	if h.join(with("a")); h.clock.timer != nil {
		t.Error("a client without heartbeat and ends is waited for")
	}
}

func TestClientsHaveTheirTimesInWhateverOrderTheyCameAndLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		var clients []*testClient
		for i := range 60 {
			s := with("a")
			s.IdleTimeout = time.Duration((i*37)%60+1) * time.Second
			clients = append(clients, h.join(s))
		}
		for i := 0; i < len(clients); i += 7 {
			clients[i].leave()
		}
		for second := 1; second <= 60; second++ {
			pause(time.Second)
			for _, l := range clients {
				over := l.left || time.Duration(second)*time.Second >= l.IdleTimeout
				if l.take(); !l.left && (l.end == ErrIdle) != over {
					t.Fatalf("after %d s a client with an idle timeout of %v has ended for %v", second, l.IdleTimeout, l.end)
				}
			}
		}
		if n := len(h.clock.waiting); n > 0 {
			t.Errorf("%d clients have an appointment after their end", n)
		}
	})
}

func TestAClientWithoutMessagesEndsAfterIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Heartbeat, s.IdleTimeout = 4*time.Second, 30*time.Second
		l := h.join(s)
		pause(29 * time.Second)
		h.publish(Topics("a"), "hi")
		synctest.Wait()
		if got := l.texts(); len(got) == 0 || l.end != nil {
			t.Errorf("got %v and the end %v", got, l.end)
		}
		for range 7 { // heartbeats are not messages
			pause(4 * time.Second)
			want(t, l.texts(), ":heartbeat")
			want(t, []error{l.end}, nil)
		}
		pause(2 * time.Second)
		want(t, l.texts())
		want(t, []error{l.end}, ErrIdle)
	})
}

func TestEphemeralMessagesKeepAClientFromBeingIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.IdleTimeout = 30 * time.Second
		l := h.join(s)
		for range 10 {
			pause(29 * time.Second)
			h.publishEphemeral(Topics("a"), "tick")
			want(t, l.texts(), "tick")
			want(t, []error{l.end}, nil)
		}
	})
}

func TestMaxAgeEndsClientsATenthEarlyAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.MaxAge = 100 * time.Minute
		var clients []*testClient
		for range 100 {
			clients = append(clients, h.join(s))
		}
		ended := func() (n int) {
			synctest.Wait()
			for _, l := range clients {
				if l.takeAll(); l.end == ErrMaxAge {
					n++
				}
			}
			return n
		}
		pause(90*time.Minute - 1)
		if n := ended(); n != 0 {
			t.Errorf("%d of 100 clients ended more than a tenth early", n)
		}
		pause(5 * time.Minute)
		if n := ended(); n < 25 || n > 75 {
			t.Errorf("%d of 100 clients ended in the first half of the last tenth", n)
		}
		pause(5*time.Minute + 1)
		if n := ended(); n != 100 {
			t.Errorf("%d of 100 clients ended in time", n)
		}
	})
}

func TestAClientThatEndsByAgeGetsFirstWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.MaxAge = time.Minute
		l := h.join(s)
		pause(50 * time.Second)
		h.publish(Topics("a"), "1")
		pause(10 * time.Second)
		if _, receivers := h.publish(Topics("a"), "too late"); receivers != 0 {
			t.Errorf("a client whose time is over counts as receiver")
		}
		want(t, l.texts(), "1")
		want(t, []error{l.end, l.leave()}, ErrMaxAge, ErrMaxAge)
	})
}

func TestWhenItsAuthorizationEndsAClientIsToldAndThenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Expires = time.Now().Add(time.Minute)
		l := h.join(s)
		pause(time.Minute - 1)
		h.publish(Topics("a"), "1")
		want(t, l.texts(), "1")
		h.publish(Topics("a"), "2")
		pause(1)
		want(t, l.texts(), "2", `expired {"status":"expired"}`)
		want(t, []error{l.end}, ErrExpired)
	})
}

// Issuers write such times, some of them in milliseconds.
func TestAnAuthorizationThatEndsInThousandsOfYearsHoldsUpNoTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Heartbeat = time.Minute
		for _, far := range []int64{1e10, 253402300799, 1e15, math.MaxInt64 / 2} {
			s.Expires = time.Unix(far, 0)
			l := h.join(s)
			pause(time.Minute)
			want(t, l.texts(), ":heartbeat")
			l.leave()
		}
	})
}

func TestWhatLeftHasNoTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Heartbeat, s.MaxAge, s.IdleTimeout, s.Expires = 1, 1, 1, time.Now().Add(1)
		l := h.enter(s)
		l.leave()
		pause(time.Hour)
		if l.wakes.Load() != 0 || l.aborts.Load() != 0 {
			t.Error("a client that left was woken")
		}
	})
}

func TestAnIdleClientKeepsNoLargeQueue(t *testing.T) {
	h := newTestHub(t, plenty)
	l := h.join(with("a"))
	h.publishAll("a", 1, 200)
	l.takeAll()
	if n := cap(l.queue); n > window {
		t.Errorf("an empty queue has room for %d messages", n)
	}
}
