package sse

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

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
		back := h.enter(returning(s, l.ID)) // and it resumes
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
			want(t, h.enter(returning(s, l.ID)).texts(), "0", large)
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

// The same of a client whose turns end after each write, and who waits in line for the next: only the time in
// which its socket took nothing is charged.
func TestWaitingInLineCostsAClientNoPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue = 10
		l := stalled(h, s)
		for range 20 {
			h.publishAll("a", 1, 11) // full while its socket takes nothing
			pause(5 * time.Millisecond)
			l.blocked.Store(false)
			want(t, []bool{l.Rest()}, true)
			pause(500 * time.Millisecond)
			l.take()
			l.blocked.Store(true)
		}
		h.publishAll("a", 1, 11)
		pause(900 * time.Millisecond)
		want(t, []int64{l.aborts.Load()}, 0)
		pause(100*time.Millisecond + 2*lookAgain)
		want(t, []int64{l.aborts.Load()}, 1)
	})
}

// A gap is told although nothing comes behind it.
func TestAClientThatRestsIsToldOfAGapAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue, s.SlowClient = 1, DropOldest
		l := stalled(h, s)
		h.publishAll("a", 1, 2)
		pause(time.Minute) // in which both are dropped
		l.blocked.Store(false)
		want(t, []bool{l.Rest()}, true)
		want(t, l.texts(), `gap {"reason":"slow_client"}`)
		want(t, []bool{l.Rest()}, false)
	})
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
