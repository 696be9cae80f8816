package hub_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestAFullQueueOfAClientWhoseSocketIsNotBlockedNeverDropsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		for _, policy := range []hub.SlowClient{hub.Disconnect, hub.DropOldest} {
			s := hubtest.With("a")
			s.Queue, s.SlowClient = 10, policy
			asleep, writing := h.Listen(s), h.Listen(s)
			h.Publish(hub.Topics("a"), "0")
			hubtest.Want(t, hubtest.TextsOf(t, writing.Turn()), "0")
			h.PublishAll("a", 1, 1000) // by publishers who do not wait
			hubtest.Pause(time.Minute)
			hubtest.Want(t, asleep.Texts(), hubtest.Numbers(0, 1000)...)
			hubtest.Want(t, writing.Texts(), hubtest.Numbers(1, 1000)...)
			hubtest.Want(t, []error{asleep.End, writing.End}, nil, nil)
			asleep.Leave()
			writing.Leave()
		}
	})
}

// stalled returns a client in the middle of a write that its socket does not take.
func stalled(h *hubtest.Hub, s hub.Subscription) *hubtest.Client {
	h.TB.Helper()
	l := h.Listen(s)
	h.Publish(hub.Topics(s.Topics...), "0")
	hubtest.Want(h.TB, hubtest.TextsOf(h.TB, l.Turn()), "0")
	l.Stalled.Store(true)
	return l
}

func TestAFullQueueOfABlockedClientIsBorneForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue = 10
		l := stalled(h, s)
		h.PublishAll("a", 1, 10)
		hubtest.Pause(time.Hour) // it may stall as long as there is room
		if l.Aborted.Load() != 0 {
			t.Fatal("a client with room in its queue was cut")
		}
		h.Publish(hub.Topics("a"), "11")
		hubtest.Pause(time.Second - 1)
		if l.Aborted.Load() != 0 {
			t.Fatal("a full client was cut within its second")
		}
		hubtest.Pause(1)
		if l.Aborted.Load() != 1 {
			t.Fatalf("a client full for a second was cut %d times", l.Aborted.Load())
		}
		if _, receivers := h.Publish(hub.Topics("a"), "12"); receivers != 0 {
			t.Error("a client that was cut counts as receiver")
		}
		hubtest.Want(t, l.Texts())
		hubtest.Want(t, []error{l.End, l.Leave()}, hub.ErrSlow, hub.ErrSlow)
		back := h.Enter(hubtest.Returning(s, l.ID)) // and it resumes
		hubtest.Want(t, []hub.Resume{back.Resume}, hub.ResumeComplete)
		hubtest.Want(t, back.Texts(), hubtest.Numbers(0, 12)...)
	})
}

func TestAClientFullOfBytesIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.QueueBytes = 1000
		l := stalled(h, s)
		for range 9 {
			h.Publish(hub.Topics("a"), strings.Repeat("x", 80)) // about 110 bytes with its ID
		}
		hubtest.Pause(time.Hour)
		if l.Aborted.Load() != 0 {
			t.Fatal("a client with room for bytes was cut")
		}
		h.Publish(hub.Topics("a"), strings.Repeat("x", 80))
		hubtest.Pause(time.Second)
		hubtest.Want(t, []int64{l.Aborted.Load()}, 1)
	})
}

func TestAMessageLargerThanTheQueueReachesAClientWithNothingElseWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		large := strings.Repeat("x", 10_000)
		for _, policy := range []hub.SlowClient{hub.Disconnect, hub.DropOldest} {
			s := hubtest.With("a")
			s.QueueBytes, s.SlowClient = 1000, policy
			l := stalled(h, s)
			h.Publish(hub.Topics("a"), large)
			hubtest.Pause(time.Minute)
			hubtest.Want(t, l.Texts(), large)
			hubtest.Want(t, h.Enter(hubtest.Returning(s, l.ID)).Texts(), "0", large)
			l.Leave()
		}
	})
}

func TestDropOldestDropsAndTellsWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue, s.SlowClient = 10, hub.DropOldest
		l := stalled(h, s)
		h.PublishAll("a", 1, 15)
		hubtest.Pause(time.Second)
		h.PublishAll("a", 16, 50)
		hubtest.Pause(time.Hour)
		h.PublishAll("a", 51, 100)
		l.Stalled.Store(false)
		got := l.Texts()
		hubtest.Want(t, got, append([]string{hubtest.Gap("slow_client")}, hubtest.Numbers(91, 100)...)...)
		h.Publish(hub.Topics("a"), "101")
		hubtest.Want(t, l.Texts(), "101") // the gap is told once
		hubtest.Want(t, []int64{l.Aborted.Load()}, 0)
	})
}

// holdUp publishes every millisecond for so long, as publishers do who wait when they are to, and
// returns for how long they were made to.
func holdUp(t *testing.T, h *hubtest.Hub, topic string, total time.Duration) (held time.Duration) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < total; {
		_, receivers := h.Publish(hub.Topics(topic), "x")
		before := time.Now()
		h.Wait(t.Context(), receivers)
		held += time.Since(before)
		time.Sleep(time.Millisecond)
	}
	return held
}

func TestAStalledClientHoldsPublishersUpForOneSecondInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue, s.SlowClient = 10, hub.DropOldest
		l := stalled(h, s)
		if held := holdUp(t, h, "a", time.Minute); held != hub.MaxPatience {
			t.Errorf("a stalled client held publishers up for %v in a minute", held)
		}
		l.Stalled.Store(false)
		if got := l.Texts(); len(got) != 1+s.Queue || got[0] != hubtest.Gap("slow_client") {
			t.Errorf("a queue of %d held %v", s.Queue, got)
		}
	})
}

func TestASlowClientHoldsPublishersUpForATwentiethOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue, s.SlowClient = 10, hub.DropOldest
		l := stalled(h, s)
		go func() { // it takes what waits every three seconds: too seldom
			for range 20 {
				time.Sleep(3 * time.Second)
				l.Take(nil)
			}
		}()
		held := holdUp(t, h, "a", time.Minute)
		if least, most := 3*time.Second, hub.MaxPatience+time.Minute/20+hub.LookAgain; held < least || held > most {
			t.Errorf("a slow client held publishers up for %v in a minute; want %v to %v", held, least, most)
		}
		hubtest.Pause(time.Second)
	})
}

func TestAPatientHubBearsShortStallsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue = 10
		l := stalled(h, s)
		for range 100 {
			h.PublishAll("a", 1, 11) // full
			hubtest.Pause(400 * time.Millisecond)
			l.Turn()
			hubtest.Pause(8 * time.Second)
			l.Turn()
		}
		hubtest.Want(t, []int64{l.Aborted.Load()}, 0)
	})
}

// However long and often a queue was full because we were behind, its client has all the patience there
// is when its own socket stalls.
func TestTheTimeInWhichWeAreBehindCostsAClientNoPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue = 10
		l := h.Listen(s)
		h.Publish(hub.Topics("a"), "0")
		l.Turn()
		for range 20 {
			h.PublishAll("a", 1, 11) // full while it writes
			hubtest.Pause(500 * time.Millisecond)
			l.Turn()
		}
		h.PublishAll("a", 1, 11)
		hubtest.Pause(500 * time.Millisecond)
		l.Stalled.Store(true)
		hubtest.Pause(time.Second - 1)
		hubtest.Want(t, []int64{l.Aborted.Load()}, 0)
		hubtest.Pause(2 * hub.LookAgain)
		hubtest.Want(t, []int64{l.Aborted.Load()}, 1)
	})
}

// The same of a client whose turns end after each write, and who waits in line for the next: only the time in
// which its socket took nothing is charged.
func TestWaitingInLineCostsAClientNoPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue = 10
		l := stalled(h, s)
		for range 20 {
			h.PublishAll("a", 1, 11) // full while its socket takes nothing
			hubtest.Pause(5 * time.Millisecond)
			l.Stalled.Store(false)
			hubtest.Want(t, []bool{l.Rest()}, true)
			hubtest.Pause(500 * time.Millisecond)
			l.Turn()
			l.Stalled.Store(true)
		}
		h.PublishAll("a", 1, 11)
		hubtest.Pause(900 * time.Millisecond)
		hubtest.Want(t, []int64{l.Aborted.Load()}, 0)
		hubtest.Pause(100*time.Millisecond + 2*hub.LookAgain)
		hubtest.Want(t, []int64{l.Aborted.Load()}, 1)
	})
}

// A gap is told although nothing comes behind it.
func TestAClientThatRestsIsToldOfAGapAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue, s.SlowClient = 1, hub.DropOldest
		l := stalled(h, s)
		h.PublishAll("a", 1, 2)
		hubtest.Pause(time.Minute) // in which both are dropped
		l.Stalled.Store(false)
		hubtest.Want(t, []bool{l.Rest()}, true)
		hubtest.Want(t, l.Texts(), `gap {"reason":"slow_client"}`)
		hubtest.Want(t, []bool{l.Rest()}, false)
	})
}

func TestAnEndedClientNeitherHoldsPublishersUpNorIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hubtest.Plenty.History})
		s := hubtest.With("a")
		s.Queue, s.SlowClient = 10, hub.DropOldest
		draining := stalled(h, s)
		s.SlowClient, s.MaxAge = hub.Disconnect, 900*time.Millisecond
		aged := stalled(h, s)
		draining.TakeAll()
		h.Publish(hub.Topics("a"), "0")
		draining.Turn()
		h.PublishAll("a", 1, 20)
		hubtest.Pause(900 * time.Millisecond) // and so aged is to end
		h.Drain()
		h.Wait(t.Context(), 2) // or this would never return
		hubtest.Pause(time.Hour)
		hubtest.Want(t, draining.Texts(), append([]string{"retry 0"}, hubtest.Numbers(1, 20)...)...)
		if aged.TakeAll(); aged.End != hub.ErrMaxAge {
			t.Errorf("a client whose time was over ended for %v", aged.End)
		}
		hubtest.Want(t, []int64{draining.Aborted.Load(), aged.Aborted.Load()}, 0, 0)
	})
}
