package sse

import (
	"strings"
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

func TestAFullQueueOfAClientWhoseSocketIsNotBlockedNeverDropsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		for _, policy := range []SlowClient{Disconnect, DropOldest} {
			s := with("a")
			s.Queue, s.SlowClient = 10, policy
			asleep, writing := h.join(s), h.join(s)
			h.publish(Topics("a"), "0")
			want(t, textsOf(t, writing.take()), "0")
			h.publishAll("a", 1, 1000) // by publishers who do not wait
			pause(time.Minute)
			want(t, asleep.texts(), numbers(0, 1000)...)
			want(t, writing.texts(), numbers(1, 1000)...)
			want(t, []error{asleep.end, writing.end}, nil, nil)
			asleep.leave()
			writing.leave()
		}
	})
}

// stalled returns a client in the middle of a write that its socket does not take.
func stalled(h *testHub, s Subscription) *testClient {
	h.t.Helper()
	l := h.join(s)
	h.publish(Topics(s.Topics...), "0")
	want(h.t, textsOf(h.t, l.take()), "0")
	l.blocked.Store(true)
	return l
}

func TestAFullQueueOfABlockedClientIsBorneForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue = 10
		l := stalled(h, s)
		h.publishAll("a", 1, 10)
		pause(time.Hour) // it may stall as long as there is room
		if l.aborts.Load() != 0 {
			t.Fatal("a client with room in its queue was cut")
		}
		h.publish(Topics("a"), "11")
		pause(time.Second - 1)
		if l.aborts.Load() != 0 {
			t.Fatal("a full client was cut within its second")
		}
		pause(1)
		if l.aborts.Load() != 1 {
			t.Fatalf("a client full for a second was cut %d times", l.aborts.Load())
		}
		if _, receivers := h.publish(Topics("a"), "12"); receivers != 0 {
			t.Error("a client that was cut counts as receiver")
		}
		want(t, l.texts())
		want(t, []error{l.end, l.leave()}, ErrSlow, ErrSlow)
		back := h.enter(s.after(l.ID)) // and it resumes
		want(t, []Resume{back.Resume}, ResumeComplete)
		want(t, back.texts(), numbers(0, 12)...)
	})
}

func TestAClientFullOfBytesIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.QueueBytes = 1000
		l := stalled(h, s)
		for range 9 {
			h.publish(Topics("a"), strings.Repeat("x", 80)) // about 110 bytes with its ID
		}
		pause(time.Hour)
		if l.aborts.Load() != 0 {
			t.Fatal("a client with room for bytes was cut")
		}
		h.publish(Topics("a"), strings.Repeat("x", 80))
		pause(time.Second)
		want(t, []int64{l.aborts.Load()}, 1)
	})
}

func TestAMessageLargerThanTheQueueReachesAClientWithNothingElseWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		large := strings.Repeat("x", 10_000)
		for _, policy := range []SlowClient{Disconnect, DropOldest} {
			s := with("a")
			s.QueueBytes, s.SlowClient = 1000, policy
			l := stalled(h, s)
			h.publish(Topics("a"), large)
			pause(time.Minute)
			want(t, l.texts(), large)
			want(t, h.enter(s.after(l.ID)).texts(), "0", large)
			l.leave()
		}
	})
}

func TestDropOldestDropsAndTellsWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue, s.SlowClient = 10, DropOldest
		l := stalled(h, s)
		h.publishAll("a", 1, 15)
		pause(time.Second)
		h.publishAll("a", 16, 50)
		pause(time.Hour)
		h.publishAll("a", 51, 100)
		l.blocked.Store(false)
		got := l.texts()
		want(t, got, append([]string{gap("slow_client")}, numbers(91, 100)...)...)
		h.publish(Topics("a"), "101")
		want(t, l.texts(), "101") // the gap is told once
		want(t, []int64{l.aborts.Load()}, 0)
	})
}

// holdUp publishes every millisecond for so long, as publishers do who wait when they are to, and
// returns for how long they were made to.
func holdUp(t *testing.T, h *testHub, topic string, total time.Duration) (held time.Duration) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < total; {
		_, receivers := h.publish(Topics(topic), "x")
		before := time.Now()
		h.Wait(t.Context(), receivers)
		held += time.Since(before)
		time.Sleep(time.Millisecond)
	}
	return held
}

func TestAStalledClientHoldsPublishersUpForOneSecondInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue, s.SlowClient = 10, DropOldest
		l := stalled(h, s)
		if held := holdUp(t, h, "a", time.Minute); held != maxPatience {
			t.Errorf("a stalled client held publishers up for %v in a minute", held)
		}
		l.blocked.Store(false)
		if got := l.texts(); len(got) != 1+s.Queue || got[0] != gap("slow_client") {
			t.Errorf("a queue of %d held %v", s.Queue, got)
		}
	})
}

func TestASlowClientHoldsPublishersUpForATwentiethOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue, s.SlowClient = 10, DropOldest
		l := stalled(h, s)
		go func() { // it takes what waits every three seconds: too seldom
			for range 20 {
				time.Sleep(3 * time.Second)
				l.Take(nil)
			}
		}()
		held := holdUp(t, h, "a", time.Minute)
		if least, most := 3*time.Second, maxPatience+time.Minute/20+lookAgain; held < least || held > most {
			t.Errorf("a slow client held publishers up for %v in a minute; want %v to %v", held, least, most)
		}
		pause(time.Second)
	})
}

func TestAPatientHubBearsShortStallsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue = 10
		l := stalled(h, s)
		for range 100 {
			h.publishAll("a", 1, 11) // full
			pause(400 * time.Millisecond)
			l.take()
			pause(8 * time.Second)
			l.take()
		}
		want(t, []int64{l.aborts.Load()}, 0)
	})
}

// However long and often a queue was full because we were behind, its client has all the patience there
// is when its own socket stalls.
func TestTheTimeInWhichWeAreBehindCostsAClientNoPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue = 10
		l := h.join(s)
		h.publish(Topics("a"), "0")
		l.take()
		for range 20 {
			h.publishAll("a", 1, 11) // full while it writes
			pause(500 * time.Millisecond)
			l.take()
		}
		h.publishAll("a", 1, 11)
		pause(500 * time.Millisecond)
		l.blocked.Store(true)
		pause(time.Second - 1)
		want(t, []int64{l.aborts.Load()}, 0)
		pause(2 * lookAgain)
		want(t, []int64{l.aborts.Load()}, 1)
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

func TestAnEndedClientNeitherHoldsPublishersUpNorIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, Limits{History: plenty.History})
		s := with("a")
		s.Queue, s.SlowClient = 10, DropOldest
		draining := stalled(h, s)
		s.SlowClient, s.MaxAge = Disconnect, 900*time.Millisecond
		aged := stalled(h, s)
		draining.takeAll()
		h.publish(Topics("a"), "0")
		draining.take()
		h.publishAll("a", 1, 20)
		pause(900 * time.Millisecond) // and so aged is to end
		h.Drain()
		h.Wait(t.Context(), 2) // or this would never return
		pause(time.Hour)
		want(t, draining.texts(), append([]string{"retry 0"}, numbers(1, 20)...)...)
		if aged.takeAll(); aged.end != ErrMaxAge {
			t.Errorf("a client whose time was over ended for %v", aged.end)
		}
		want(t, []int64{draining.aborts.Load(), aged.aborts.Load()}, 0, 0)
	})
}
