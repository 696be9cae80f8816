package hub_test

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// publishOneByOne has the shards read each message before the next: so the ring goes on with them.
func publishOneByOne(h *hubtest.Hub, topic string, first, last int) {
	for i := first; i <= last; i++ {
		h.Publish(hub.Topics(topic), strconv.Itoa(i))
		settle()
	}
}

// slow returns a client with a queue of ten that does not read.
func slow(h *hubtest.Hub, policy hub.SlowClient) *hubtest.Client {
	s := hubtest.With("a")
	s.Queue, s.SlowClient = 10, policy
	c := h.Join(s)
	c.Block()
	return c
}

func TestCatchUpKeepsItsPlaceHoweverFarBehind(t *testing.T) {
	for _, ring := range []uint64{10_000, 20} {
		bubble(t, func(t *testing.T) {
			h := hubtest.New(t, hubtest.Plenty)
			hub.Shrink(h.Hub, ring, 32, 50)
			for _, policy := range []hub.SlowClient{hub.CatchUp, ""} {
				c := slow(h, policy)
				publishOneByOne(h, "a", 1, 500) // fifty queues
				hubtest.Pause(time.Hour)
				for n := range 10 { // it takes a little, and stalls again
					c.Let(3)
					c.Want(hubtest.Numbers(3*n+1, 3*n+3)...)
				}
				h.PublishAll("a", 501, 600)
				c.Open()
				c.Want(hubtest.Numbers(31, 600)...)
				h.Publish(hub.Topics("a"), "live")
				c.Want("live")
				hubtest.Want(t, []error{c.End()}, nil)
				c.Leave()
			}
		})
	}
}

func TestCatchUpIsToldAGapWhereWhatItMissedIsNoLongerKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 30}})
		hub.Shrink(h.Hub, 20, 32, 50)
		c := slow(h, hub.CatchUp)
		publishOneByOne(h, "a", 1, 100)
		c.Let(11)
		c.Want(append([]string{hubtest.Gap("slow_client")}, hubtest.Numbers(71, 80)...)...)
		publishOneByOne(h, "a", 101, 200)
		c.Open()
		c.Want(append([]string{hubtest.Gap("slow_client")}, hubtest.Numbers(171, 200)...)...)
		publishOneByOne(h, "a", 201, 210)
		c.Want(hubtest.Numbers(201, 210)...)
	})
}

func TestDisconnectEndsAClientOnceItIsMoreThanItsQueueBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		c := slow(h, hub.Disconnect)
		h.PublishAll("a", 1, 10)
		hubtest.Pause(time.Hour) // it may stall as long as its queue holds what it has missed
		hubtest.Want(t, []int{c.Aborts()}, 0)
		h.Publish(hub.Topics("a"), "11")
		hubtest.Want(t, []int{c.Aborts()}, 1)
		hubtest.Want(t, []error{c.Leave()}, hub.ErrSlow)
		back := h.Join(hubtest.Returning(hubtest.With("a"), c.ID)) // and it resumes
		back.WantResume(hub.ResumeComplete, c.ID, hubtest.Numbers(1, 11)...)
	})
}

func TestAQueueIsFullOfBytesToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.QueueBytes, s.SlowClient = 1000, hub.Disconnect
		c := h.Join(s)
		c.Block()
		for range 8 {
			h.Publish(hub.Topics("a"), strings.Repeat("x", 90)) // about 120 bytes with its ID
		}
		hubtest.Pause(time.Hour)
		hubtest.Want(t, []int{c.Aborts()}, 0)
		h.Publish(hub.Topics("a"), strings.Repeat("x", 90))
		hubtest.Want(t, []int{c.Aborts()}, 1)
	})
}

func TestDropOldestGoesOnWithTheNewestAndIsToldAGap(t *testing.T) {
	for _, ring := range []uint64{10_000, 20, 5} {
		bubble(t, func(t *testing.T) {
			h := hubtest.New(t, hubtest.Plenty)
			hub.Shrink(h.Hub, ring, 32, 50)
			c := slow(h, hub.DropOldest)
			publishOneByOne(h, "a", 1, 10)
			c.Open()
			c.Want(hubtest.Numbers(1, 10)...) // which its queue holds
			c.Block()
			publishOneByOne(h, "a", 11, 100)
			hubtest.Pause(time.Hour)
			publishOneByOne(h, "a", 101, 150)
			c.Open()
			c.Want(append([]string{hubtest.Gap("slow_client")}, hubtest.Numbers(141, 150)...)...)
			h.Publish(hub.Topics("a"), "151")
			c.Want("151") // the gap is told once
			hubtest.Want(t, []int{c.Aborts()}, 0)
		})
	}
}

func TestDropOldestGoesOnWithSoManyBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.QueueBytes, s.SlowClient = 1000, hub.DropOldest
		c := h.Join(s)
		c.Block()
		var texts []string
		for i := range 30 {
			texts = append(texts, fmt.Sprintf("%-80d", i))
			h.Publish(hub.Topics("a"), texts[i])
			settle()
		}
		c.Open()
		c.Want(append([]string{hubtest.Gap("slow_client")}, texts[22:]...)...)
	})
}

func TestAMessageLargerThanTheQueueReachesAClientWithNothingElseWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		large := strings.Repeat("x", 10_000)
		for _, policy := range []hub.SlowClient{hub.CatchUp, hub.Disconnect, hub.DropOldest} {
			s := hubtest.With("a")
			s.QueueBytes, s.SlowClient = 1000, policy
			c := h.Join(s)
			for range 3 {
				c.Block()
				h.Publish(hub.Topics("a"), large)
				hubtest.Pause(time.Minute)
				c.Open()
				c.Want(large)
			}
			hubtest.Want(t, []error{c.End()}, nil)
			h.Join(hubtest.Returning(s, c.ID)).Want(large, large, large)
			c.Leave()
		}
	})
}

// Whoever is behind because of us is not slow.
func TestAClientWhoseSocketIsNotBlockedIsNeverSlow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		for _, policy := range []hub.SlowClient{hub.Disconnect, hub.DropOldest} {
			c := slow(h, policy)
			c.Busy()
			h.PublishAll("a", 1, 1000)
			hubtest.Pause(time.Minute)
			c.Open()
			c.Want(hubtest.Numbers(1, 1000)...)
			hubtest.Want(t, []error{c.End()}, nil)
			c.Leave()
		}
	})
}

// Nor is who is catching up with what it has missed before it came.
func TestAClientThatResumesIsNotSlowForWhatItHasMissed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		begin := h.Position().String()
		h.PublishAll("a", 1, 1000)
		for _, policy := range []hub.SlowClient{hub.Disconnect, hub.DropOldest} {
			s := hubtest.Returning(hubtest.With("a"), begin)
			s.Queue, s.SlowClient = 10, policy
			c := h.Enter(s)
			for n := range 100 {
				c.Let(10)
				c.Want(hubtest.Numbers(10*n+1, 10*n+10)...)
			}
			hubtest.Want(t, []error{c.End()}, nil)
			c.Leave()
		}
	})
}

func TestOfEphemeralMessagesNoMoreWaitThanTheQueueHolds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		c := slow(h, hub.CatchUp)
		for i := range 25 {
			h.PublishEphemeral(hub.Topics("a"), fmt.Sprint("tick ", i))
			h.PublishAll("a", i, i)
		}
		c.Open()
		var want []string
		for i := range 25 {
			if i >= 15 {
				want = append(want, fmt.Sprint("tick ", i))
			}
			want = append(want, strconv.Itoa(i))
		}
		c.Want(want...)
		h.PublishEphemeral(hub.Topics("a"), "live")
		c.Want("live")
	})
}

func TestAnEndedClientIsNotSlow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue, s.SlowClient, s.MaxAge = 10, hub.Disconnect, time.Second
		aged := h.Join(s)
		aged.Block()
		h.PublishAll("a", 1, 5)
		hubtest.Pause(time.Second)
		h.PublishAll("a", 6, 50)
		hubtest.Pause(time.Hour)
		hubtest.Want(t, []int{aged.Aborts()}, 0)
		aged.Open()
		aged.Want(hubtest.Numbers(1, 5)...)
		hubtest.Want(t, []error{aged.End()}, hub.ErrMaxAge)
	})
}

// A stalled client keeps a place in the log, and nothing of what is there.
func TestAStalledClientHoldsNoMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hub.NewHub(hub.Limits{})
		hub.Shrink(h, 10, 32, 10)
		var clients []*hub.Client
		join := func(s hub.Stream) {
			c, _, err := h.Join(hubtest.With("a"), s)
			if err != nil {
				t.Fatal(err)
			}
			c.Post(1)
			clients = append(clients, c)
		}
		reader := new(streamOfOne)
		join(reader)
		for range 10 {
			join(new(stuckStream))
		}
		settle()
		var frames []weak.Pointer[hub.Frame]
		for range 200 {
			h.Deliver(&hub.Message{To: hub.Topics("a"), Ephemeral: true, Data: []byte("hi")})
			settle()
			frames = append(frames, weak.Make(reader.last))
		}
		runtime.GC()
		held := 0
		for _, f := range frames {
			if f.Value() != nil {
				held++
			}
		}
		if held > 30 {
			t.Errorf("of 200 messages %d are held; the ring has 10", held)
		}
		for _, c := range clients {
			h.Leave(c, nil)
		}
		h.Close()
	})
}

// stuckStream takes nothing.
type stuckStream struct{}

func (stuckStream) Send([]*hub.Frame, error) (int, bool) { return 0, false }
func (stuckStream) Notice(hub.News) bool                 { return false }
func (stuckStream) Abort()                               {}
func (stuckStream) Blocked() bool                        { return true }

func TestAStalledClientCostsLittleWhateverIsPublished(t *testing.T) {
	h := hub.NewHub(hub.Limits{})
	const n = 500
	var clients []*hub.Client
	for i := range n {
		s := hubtest.With("a", "b/*", "**")
		s.SlowClient = []hub.SlowClient{hub.CatchUp, hub.DropOldest}[i%2]
		c, _, err := h.Join(s, stuckStream{})
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	publish := func(n int) {
		for range n {
			h.Deliver(&hub.Message{To: hub.Topics("a", "b/1"), Ephemeral: true, Data: make([]byte, 10_000)})
			h.Wait(t.Context(), 3*len(clients))
		}
	}
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what was freed by the first
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	publish(1000) // the ring is full
	before := heap()
	publish(5000)
	if grown := heap() - before; grown/n > 2<<10 {
		t.Errorf("by 50 MB of messages each stalled client has come to hold %d bytes more", grown/n)
	}
	for _, c := range clients {
		h.Leave(c, nil)
	}
	h.Close()
	h.WaitEmpty(time.Minute)
}

func TestIDsNeverRunBackwards(t *testing.T) {
	for _, policy := range []hub.SlowClient{hub.CatchUp, hub.DropOldest} {
		bubble(t, func(t *testing.T) {
			h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 15}})
			hub.Shrink(h.Hub, 8, 2, 5)
			begin := h.Position().String()
			s := hubtest.With("a", "b", "c/*")
			s.Queue, s.SlowClient = 6, policy
			s.LastEventID = begin
			c := h.Enter(s)
			var events []hubtest.Event
			for i := range 400 {
				topic := []string{"a", "b", "c/1", "c/2"}[i%4]
				if i%5 == 0 {
					h.PublishEphemeral(hub.Topics(topic), "tick")
				} else {
					h.Publish(hub.Topics(topic), strconv.Itoa(i))
				}
				if i%90 == 50 {
					at := h.Position()
					at.Position.Major += 3
					h.Lose(at.Position, "history_trimmed")
				}
				if i%7 == 0 {
					c.Let(i % 11)
					events = append(events, c.Events()...)
				}
			}
			c.Open()
			events = append(events, c.Events()...)
			last, _ := hub.ParseID(begin)
			for _, e := range events {
				if id, ok := hub.ParseID(e.ID); ok {
					if !id.Position.After(last.Position) {
						t.Fatalf("%v comes behind %v", e, last)
					}
					last = id
				}
			}
			if last.Position != h.Position().Position {
				t.Errorf("the last ID is %v; the log has come to %v", last, h.Position())
			}
			if !slices.Contains(hubtest.TextsOf(events), "399") {
				t.Error("the last message did not come")
			}
		})
	}
}
