package hub_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// conflating returns limits whose topics below "prices" conflate.
func conflating(history hub.HistoryLimits) hub.Limits {
	return hub.Limits{History: history, Policies: []hub.Policy{{Pattern: "prices/*", Conflate: true}}}
}

// say delivers a message with a key.
func say(h *hubtest.Hub, key, text string, topics ...string) string {
	m := &hub.Message{To: hub.Topics(topics...), Key: key, Data: []byte(text), Position: h.Position().Position}
	m.Position.Major++
	h.Deliver(m)
	return h.Position().String()
}

func TestASlowReaderOfAConflatedTopicEndsWithTheNewestOfEachKey(t *testing.T) {
	for _, ring := range []uint64{0, 1, 50} {
		bubble(t, func(t *testing.T) {
			h := hubtest.New(t, conflating(hub.HistoryLimits{Count: 1 << 20}))
			if ring > 0 {
				hub.Shrink(h.Hub, ring, 2, 7)
			}
			s := hubtest.With("prices/a", "prices/*")
			s.SlowClient, s.Queue = hub.Disconnect, 5
			c := h.Join(s)
			say(h, "x", "first", "prices/a")
			c.Want("first")
			c.Block()
			for i := range 1000 {
				say(h, []string{"x", "y", "z", ""}[i%4], fmt.Sprint(i), fmt.Sprint("prices/", []string{"a", "b"}[i/4%2]))
			}
			c.Open()
			c.Want("992", "993", "994", "995", "996", "997", "998", "999")
			if n := h.Stats().Conflated; n < 992 {
				t.Errorf("%d messages count as conflated; want 992", n)
			}
			say(h, "x", "more", "prices/a")
			c.Want("more")
		})
	}
}

func TestAClientThatKeepsUpGetsEveryValue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, conflating(hubtest.Plenty.History))
		c := h.Join(hubtest.With("prices/a"))
		for i := range 10 {
			say(h, "", fmt.Sprint(i), "prices/a")
			c.Want(fmt.Sprint(i))
		}
	})
}

func TestWhatGaveWayIsNoGapOnAResume(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, conflating(hub.HistoryLimits{Count: 3}))
		before := say(h, "x", "old", "prices/a")
		var want []string
		for i := range 100 {
			say(h, []string{"x", "y"}[i%2], fmt.Sprint(i), "prices/a")
		}
		want = append(want, "98", "99")
		h.Join(hubtest.Returning(hubtest.With("prices/a"), before)).WantResume(hub.ResumeComplete, before, want...)
		for i := range 5 { // more keys than are kept: these are losses
			say(h, fmt.Sprint("k", i), fmt.Sprint("k", i), "prices/a")
		}
		h.Join(hubtest.Returning(hubtest.With("prices/a"), before)).WantResume(hub.ResumeGap, before, "k2", "k3", "k4")

		// Elsewhere nothing gives way.
		before = say(h, "x", "old", "other")
		for i := range 3 {
			say(h, "x", fmt.Sprint(i), "other")
		}
		h.Join(hubtest.Returning(hubtest.With("other"), before)).WantResume(hub.ResumeComplete, before, "0", "1", "2")
	})
}

// Not all who get a message to several topics get the newer one to one of them.
// A value that the next one pushes out of history gives way to that one first.
func TestWhatGaveWayIsNoGapHoweverLittleIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, conflating(hub.HistoryLimits{Count: 1}))
		before := say(h, "x", "old", "prices/a")
		say(h, "x", "older", "prices/a")
		say(h, "x", "newest", "prices/a")
		h.Join(hubtest.Returning(hubtest.With("prices/a"), before)).WantResume(hub.ResumeComplete, before, "newest")
	})
}

func TestAMessageToSeveralTopicsDoesNotGiveWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, conflating(hubtest.Plenty.History))
		before := h.Position().String()
		say(h, "x", "1", "prices/a")
		say(h, "x", "both", "prices/a", "prices/b")
		say(h, "x", "2", "prices/a")
		m := &hub.Message{To: hub.Topics("prices/a"), Key: "x", Data: []byte("passing"), Ephemeral: true}
		h.Deliver(m)
		h.Join(hubtest.Returning(hubtest.With("prices/a"), before)).WantResume(hub.ResumeComplete, before, "both", "2")
		h.Join(hubtest.Returning(hubtest.With("prices/b"), before)).WantResume(hub.ResumeComplete, before, "both")
	})
}

func TestAMessageToAUserWithATopicsNameReplacesNoValue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, conflating(hubtest.Plenty.History))
		before := h.Position().String()
		say(h, "x", "a", "prices/a")
		h.Deliver(&hub.Message{
			To:  append(hub.Topics("prices/b"), hub.Address{Kind: hub.ToUser, Name: "prices/a"}),
			Key: "x", Data: []byte("b"), Position: hub.Position{Major: h.Position().Position.Major + 1},
		})
		h.Join(hubtest.Returning(hubtest.With("prices/a"), before)).WantResume(hub.ResumeComplete, before, "a")
	})
}

// What is remembered of values is no more than what is in memory of their messages.
func TestValuesAreForgottenWithTheirMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, conflating(hub.HistoryLimits{Count: 2}))
		hub.Shrink(h.Hub, 10, 4, 10)
		for i := range 10_000 {
			say(h, fmt.Sprint(i), "x", "prices/a")
		}
		if n := hub.LeftoversOf(h.Hub).Values; n > 100 {
			t.Errorf("%d values are remembered", n)
		}
		h.Follow(hub.Origin{Epoch: "another"})
		h.Announce("broker_changed")
		if n := hub.LeftoversOf(h.Hub).Values; n != 0 {
			t.Errorf("%d values of another log are remembered", n)
		}
	})
}

func TestTheNewestValueArrivesWhileMoreComes(t *testing.T) {
	h := hubtest.New(t, conflating(hub.HistoryLimits{Count: 10}))
	c := h.Join(hubtest.With("prices/*"))
	for i := range 5000 {
		say(h, "x", fmt.Sprint(i), "prices/a")
		if i%7 == 0 {
			c.Allow(i % 3)
		}
	}
	c.Open()
	texts := c.Texts()
	if !slices.Contains(texts, "4999") || texts[len(texts)-1] != "4999" || slices.ContainsFunc(texts, isGap) {
		t.Errorf("the client ends with %q", texts[max(0, len(texts)-3):])
	}
}

func isGap(text string) bool { return text == trimmedGap || text == `gap {"reason":"slow_client"}` }
