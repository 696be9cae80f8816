package hub_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// interval is in what time one value of a key leaves the hubs of these tests.
const interval = 100 * time.Millisecond

// holding returns limits whose topics below "prices" conflate with an interval.
func holding(history hub.HistoryLimits) hub.Limits {
	return hub.Limits{
		History: history, Policies: []hub.Policy{{Pattern: "prices/*", Conflate: true, Interval: interval}},
	}
}

// ended is when what is held has left for sure.
const ended = interval + interval/2

func TestTheFirstValueLeavesAtOnceThenTheNewestOncePerInterval(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		c := h.Join(hubtest.With("prices/a"))
		say(h, "", "0", "prices/a")
		c.Want("0")
		for i := 1; i < 100; i++ { // a second of them
			hubtest.Pause(10 * time.Millisecond)
			say(h, "", fmt.Sprint(i), "prices/a")
		}
		texts := c.Texts()
		if n := len(texts); n < 8 || n > 10 || !slices.IsSortedFunc(texts, byNumber) {
			t.Errorf("in a second the client got %q", texts)
		}
		hubtest.Pause(ended)
		c.Want("99")
		hubtest.Pause(ended)
		say(h, "", "100", "prices/a")
		c.Want("100") // at once: the interval is over
		if n := h.Stats().Conflated; n < 85 || n > 92 {
			t.Errorf("%d messages count as conflated", n)
		}
	})
}

func byNumber(a, b string) int {
	var x, y int
	_, _ = fmt.Sscan(a, &x)
	_, _ = fmt.Sscan(b, &y)
	return x - y
}

func TestEachKeyOfEachTopicHasItsInterval(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		c := h.Join(hubtest.With("prices/*", "other"))
		for _, round := range []string{"1", "2", "3"} {
			say(h, "x", "ax"+round, "prices/a")
			say(h, "y", "ay"+round, "prices/a")
			say(h, "x", "bx"+round, "prices/b")
			say(h, "x", "o"+round, "other")
		}
		c.Want("ax1", "ay1", "bx1", "o1", "o2", "o3")
		hubtest.Pause(ended)
		c.Want("ax3", "ay3", "bx3")
	})
}

// IDs never run backwards: what was held has the ID of the position that the log has reached.
func TestWhatWasHeldIsToldWithThePositionReachedByThen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		c := h.Join(hubtest.With("prices/a", "other"))
		first := say(h, "", "1", "prices/a")
		say(h, "", "2", "prices/a")
		last := say(h, "", "o", "other")
		hubtest.Pause(ended)
		hubtest.Want(t, c.Events(), hubtest.Event{Text: "1", ID: first}, hubtest.Event{Text: "o", ID: last},
			hubtest.Event{Text: "2", ID: last})
	})
}

func TestAResumeFindsWhatWasHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		back := func(id string) *hubtest.Client {
			return h.Join(hubtest.Returning(hubtest.With("prices/a", "other"), id))
		}
		first := say(h, "", "1", "prices/a")
		say(h, "", "2", "prices/a")
		between := say(h, "", "o", "other")
		early := back(between) // while it is held
		early.WantResume(hub.ResumeComplete, between)
		hubtest.Pause(ended)
		early.Want("2")

		back(first).WantResume(hub.ResumeComplete, first, "o", "2")
		back(between).WantResume(hub.ResumeComplete, between, "2") // it may not have had it
		last := say(h, "", "o2", "other")
		back(between).WantResume(hub.ResumeComplete, between, "2", "o2")
		back(last).WantResume(hub.ResumeComplete, last)
		hubtest.Pause(ended)
		say(h, "", "3", "prices/a")
		back(first).WantResume(hub.ResumeComplete, first, "o", "o2", "3")
		hubtest.Pause(ended)
		say(h, "", "4", "prices/a")
		back(first).WantResume(hub.ResumeComplete, first, "o", "o2", "4")
	})
}

// All see the same: who begins by since gets the value that has left, and what is held when it leaves.
func TestALateComerSeesWhatAllSee(t *testing.T) {
	for _, latest := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			limits := holding(hubtest.Plenty.History)
			if latest {
				limits.Policies[0].History = &hub.Retention{Latest: true}
			}
			h := hubtest.New(t, limits)
			say(h, "x", "x1", "prices/a")
			say(h, "x", "x2", "prices/a")
			say(h, "y", "y1", "prices/a")
			s := hubtest.With("prices/*")
			s.Since.Latest = true
			c := h.Join(s)
			c.Want("x1", "y1")
			hubtest.Pause(ended)
			c.Want("x2")
			h.Join(s).Want("y1", "x2")
		})
	}
}

// Whoever polls goes on exactly where it was, also among what left at one position.
func TestPollsDoNotGetWhatWasHeldAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		last, got := h.Position().String(), []string(nil)
		poll := func(limit int) int {
			s := hubtest.Returning(hubtest.With("prices/a"), last)
			s.Form, s.Limit = hub.Answer, limit
			c := h.Join(s)
			text := strings.Join(c.Blocks(), "")
			var some []string
			for part := range strings.SplitSeq(text, `"data":"`) {
				some = append(some, part[:strings.IndexByte(part, '"')])
			}
			_, rest, _ := strings.Cut(text, `"last_id":"`)
			last, _, _ = strings.Cut(rest, `"`)
			got = append(got, some[1:]...)
			if c.Resume != hub.ResumeComplete {
				t.Errorf("a poll is told %q", c.Resume)
			}
			return len(some) - 1
		}
		for _, round := range []string{"1", "2"} {
			for _, key := range []string{"x", "y", "z"} {
				say(h, key, key+round, "prices/a")
			}
		}
		poll(10)
		hubtest.Want(t, got, "x1", "y1", "z1")
		hubtest.Pause(ended)
		for range 3 {
			poll(1)
		}
		hubtest.Want(t, got, "x1", "y1", "z1", "x2", "y2", "z2")
		if n := poll(10); n != 0 {
			t.Errorf("a poll got %d messages again", n)
		}
		say(h, "x", "x3", "prices/a")
		hubtest.Pause(ended)
		poll(10)
		if n := poll(10); n != 0 || got[len(got)-1] != "x3" {
			t.Errorf("polls got %q, and %d again", got, n)
		}
	})
}

func TestASlowReaderGetsWhatWasHeldInOrder(t *testing.T) {
	for _, ring := range []uint64{0, 1, 50} {
		bubble(t, func(t *testing.T) {
			h := hubtest.New(t, holding(hub.HistoryLimits{Count: 1 << 20}))
			if ring > 0 {
				hub.Shrink(h.Hub, ring, 2, 7)
			}
			c := h.Join(hubtest.With("prices/a", "prices/*"))
			say(h, "x", "first", "prices/a")
			c.Want("first")
			c.Block()
			for i := range 1000 {
				say(h, []string{"x", "y", "z", ""}[i%4], fmt.Sprint(i), fmt.Sprint("prices/", []string{"a", "b"}[i/4%2]))
				if i%50 == 0 {
					hubtest.Pause(interval / 3)
				}
			}
			hubtest.Pause(ended)
			c.Open()
			c.Want("992", "993", "994", "995", "996", "997", "998", "999")
		})
	}
}

func TestWhatIsHeldLeavesAtTheExit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		c := h.Join(hubtest.With("prices/a"))
		say(h, "", "1", "prices/a")
		say(h, "", "2", "prices/a")
		h.Drain()
		if texts := c.Texts(); !slices.Contains(texts, "2") {
			t.Errorf("at the exit the client got %q", texts)
		}
	})
}

func TestWhatIsHeldLeavesWithItsRules(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		c := h.Join(hubtest.With("prices/a"))
		say(h, "", "1", "prices/a")
		say(h, "", "2", "prices/a")
		h.Apply(hubtest.Plenty)
		c.Want("1", "2")
		say(h, "", "3", "prices/a")
		say(h, "", "4", "prices/a")
		c.Want("3", "4")
	})
}

// Whoever is here gets what is purged, as always; who comes back is told a gap.
func TestAPurgeLeavesNothingHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		c := h.Join(hubtest.With("prices/a"))
		for _, key := range []string{"x", "y"} {
			say(h, key, key+"1", "prices/a")
			say(h, key, key+"2", "prices/a")
		}
		last := h.Position().String()
		h.Purge(hub.Purge{To: hub.Topics("prices/a"), Key: "x"})
		c.Want("x1", "y1", "x2")
		hubtest.Pause(ended)
		c.Want("y2")
		h.Join(hubtest.Returning(hubtest.With("prices/a"), last)).WantResume(hub.ResumeGap, last, "y2")
	})
}

// A message to several topics leaves at once, and no older value comes behind it.
func TestAMessageToSeveralTopicsReplacesWhatIsHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		c := h.Join(hubtest.With("prices/a"))
		say(h, "", "1", "prices/a")
		say(h, "", "2", "prices/a")
		say(h, "", "both", "prices/a", "prices/b")
		c.Want("1", "both")
		hubtest.Pause(ended)
		c.Want()
	})
}

func TestEphemeralValuesAreHeldToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		c := h.Join(hubtest.With("prices/a"))
		for i := range 5 {
			h.PublishEphemeral(hub.Topics("prices/a"), fmt.Sprint(i))
		}
		c.Want("0")
		hubtest.Pause(ended)
		hubtest.Want(t, c.Events(), hubtest.Event{Text: "4"})
	})
}

// A hub that reads its log again can't know what had left of it, so it is as late as could be.
func TestWhatMayHaveBeenHeldIsFoundAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		begin := time.Now()
		h.Follow(hub.Origin{Epoch: "log"})
		restore := func(position uint64, topic, text string, after time.Duration) {
			h.Restore(&hub.Message{
				To: hub.Topics(topic), Data: []byte(text), Position: hub.Position{Major: position}, Time: begin.Add(after),
			})
		}
		restore(1, "prices/a", "1", 0)
		restore(2, "other", "o", 50*time.Millisecond)
		restore(3, "other", "o2", 5*time.Second)
		restore(4, "prices/a", "2", 6*time.Second)
		restore(5, "other", "o3", 6*time.Second)
		h.Announce("broker_changed")
		back := func(id string, texts ...string) {
			t.Helper()
			h.Join(hubtest.Returning(hubtest.With("prices/a", "other"), id)).WantResume(hub.ResumeComplete, id, texts...)
		}
		back("log-1", "o", "o2", "o3", "2")
		back("log-2", "o2", "o3", "2")
		back("log-3", "o3", "2")
		back("log-4", "o3", "2")
		back("log-5", "2")
	})
}

func TestNoMoreIsHeldThanHistoryMayHave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		limits := holding(hub.HistoryLimits{Count: 10, Bytes: 100_000})
		limits.Policies[0].Interval = time.Hour
		h := hubtest.New(t, limits)
		text := strings.Repeat("x", 1000)
		for i := range 1000 {
			for range 2 {
				say(h, fmt.Sprint(i), text, "prices/a")
			}
			if _, bytes := h.Size(); bytes > 110_000 {
				t.Fatalf("history and what is held take %d bytes", bytes)
			}
		}
	})
}

// Who is kicked gets nothing of what is held, and finds it when it comes back. Others get it.
func TestAKickWhileAValueIsHeldTakesItFromNobodyElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, holding(hubtest.Plenty.History))
		s := hubtest.With("prices/a")
		s.ClientID = "kicked"
		kicked, other := h.Join(s), h.Join(hubtest.With("prices/*"))
		say(h, "", "0", "prices/a")
		first := h.Position().String()
		say(h, "", "1", "prices/a")
		h.Kick("kicked")
		kicked.Want("0", `closed {"status":"closed"}`)
		if err := kicked.End(); err != hub.ErrKicked {
			t.Errorf("it ended by %v", err)
		}
		hubtest.Pause(ended)
		kicked.Want()
		other.Want("0", "1")
		h.Join(hubtest.Returning(hubtest.With("prices/a"), first)).WantResume(hub.ResumeComplete, first, "1")
	})
}
