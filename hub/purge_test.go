package hub_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

const trimmedGap = `gap {"reason":"history_trimmed"}`

func TestPurgedMessagesAreGoneAndWhoMayHaveMissedOneIsToldAGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		here := h.Join(hubtest.With("a"))
		before := h.Position().String()
		h.Publish(hub.Topics("a"), "1")
		middle, _ := h.Publish(hub.Topics("b"), "other")
		last, _ := h.Publish(hub.Topics("a"), "2")
		h.Purge(hub.Purge{To: hub.Topics("a", "nothing here")})
		here.Want("1", "2") // who was here has had them, and no gap

		h.Publish(hub.Topics("a"), "3")
		for _, id := range []string{before, middle} {
			h.Join(hubtest.Returning(hubtest.With("a"), id)).WantResume(hub.ResumeGap, id, "3")
			h.Join(hubtest.Returning(hubtest.With("*"), middle)).WantResume(hub.ResumeGap, middle, "3")
		}
		h.Join(hubtest.Returning(hubtest.With("a"), last)).WantResume(hub.ResumeComplete, last, "3")
		h.Join(hubtest.Returning(hubtest.With("b"), before)).WantResume(hub.ResumeComplete, before, "other")
		here.Want("3")
	})
}

func TestAPurgeOfOneTopicLeavesAMessageToItsOthers(t *testing.T) {
	for _, shrunk := range []bool{false, true} { // in the ring, and behind it
		bubble(t, func(t *testing.T) {
			h := hubtest.New(t, hubtest.Plenty)
			if shrunk {
				hub.Shrink(h.Hub, 1, 0, 5) // history is scanned
			}
			before := h.Position().String()
			h.Publish(hub.Topics("a", "b", "a"), "both")
			for range 10 {
				h.Publish(hub.Topics("c"), "more")
			}
			h.Purge(hub.Purge{To: hub.Topics("a")})
			h.Join(hubtest.Returning(hubtest.With("a"), before)).WantResume(hub.ResumeGap, before)
			h.Join(hubtest.Returning(hubtest.With("b"), before)).WantResume(hub.ResumeComplete, before, "both")
			h.Join(hubtest.Returning(hubtest.With("a", "b"), before)).WantResume(hub.ResumeGap, before, "both")
			_, with := h.Size()
			h.Purge(hub.Purge{To: hub.Topics("b")})
			h.Join(hubtest.Returning(hubtest.With("b"), before)).WantResume(hub.ResumeGap, before)
			if _, without := h.Size(); without >= with {
				t.Errorf("without its last topic the message still costs: %d bytes, %d before", without, with)
			}
			h.Purge(hub.Purge{To: hub.Topics("c")})
			if _, left := h.Size(); left != 0 {
				t.Errorf("%d bytes are kept of nothing", left)
			}
		})
	}
}

func TestAPurgeEndsAtItsPosition(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		before := h.Position().String()
		h.Publish(hub.Topics("a"), "1")
		until := h.Position()
		h.Publish(hub.Topics("a"), "2")
		h.Purge(hub.Purge{To: hub.Topics("a"), Until: until.Position})
		h.Join(hubtest.Returning(hubtest.With("a"), before)).WantResume(hub.ResumeGap, before, "2")
		h.Join(hubtest.Returning(hubtest.With("a"), until.String())).
			WantResume(hub.ResumeComplete, until.String(), "2")
	})
}

func TestAPurgeOfAKeyLeavesOtherKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		before := h.Position().String()
		var want []string
		for i := range 2000 {
			key := []string{"x", "y", ""}[i%3]
			m := &hub.Message{To: hub.Topics("a", "b"), Data: []byte(fmt.Sprint(i)), Key: key, Position: h.Position().Position}
			m.Position.Major++
			h.Deliver(m)
			if key != "x" {
				want = append(want, fmt.Sprint(i))
			}
		}
		h.Purge(hub.Purge{To: hub.Topics("a"), Key: "x"})
		h.Join(hubtest.Returning(hubtest.With("a"), before)).WantResume(hub.ResumeGap, before, want...)
		if n := len(h.Join(hubtest.Returning(hubtest.With("b"), before)).Texts()); n != 2000 {
			t.Errorf("the other topic has %d messages", n)
		}
		last := h.Position().String()
		h.Join(hubtest.Returning(hubtest.With("a"), last)).WantResume(hub.ResumeComplete, last)
	})
}

// A client in the middle of a replay is told where it is, and nothing of what was purged.
func TestAPurgeDuringAReplayIsToldInIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		before := h.Position().String()
		for i := range 5 {
			h.Publish(hub.Topics("a"), fmt.Sprint("a", i))
			h.Publish(hub.Topics("b"), fmt.Sprint("b", i))
		}
		c := h.Enter(hubtest.Returning(hubtest.With("a", "b"), before))
		c.Let(2)
		c.WantResume(hub.ResumeComplete, before, "a0", "b0")
		h.Purge(hub.Purge{To: hub.Topics("a")})
		h.Publish(hub.Topics("a"), "new")
		c.Open()
		c.Want(trimmedGap, "b1", "b2", "b3", "b4", "new")
	})
}

func TestALargePurgeGoesInSteps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		before := h.Position().String()
		for i := range 3000 {
			h.Publish(hub.Topics("a", fmt.Sprint("other/", i%2)), fmt.Sprint(i))
		}
		h.Purge(hub.Purge{To: []hub.Address{{Kind: hub.ToTopic, Name: "a"}, {Kind: hub.ToUser, Name: "nobody"}}})
		h.Join(hubtest.Returning(hubtest.With("a"), before)).WantResume(hub.ResumeGap, before)
		other := h.Join(hubtest.Returning(hubtest.With("other/1"), before))
		if texts := other.Texts(); other.Resume != hub.ResumeComplete || len(texts) != 1500 ||
			texts[0] != "1" || texts[1499] != "2999" {
			t.Errorf("a topic that was not purged resumes %s with %d messages", other.Resume, len(texts))
		}
	})
}

// A log that stores only what the hub keeps hears of what goes.
func TestALogThatTrimsHearsOfPurges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Follow(hub.Origin{Epoch: "stored", Trims: true})
		h.Announce("broker_changed")
		h.Publish(hub.Topics("a"), "1")
		h.Publish(hub.Topics("a", "b"), "2")
		h.Purge(hub.Purge{To: hub.Topics("a")})
		wantMessages := func(what string, got []*hub.Message, want ...string) {
			t.Helper()
			var all []string
			for _, m := range got {
				all = append(all, fmt.Sprint(m.Position.String(), " ", m.To))
			}
			if !slices.Equal(all, want) {
				t.Errorf("%s: %q; want %q", what, all, want)
			}
		}
		wantMessages("gone", h.Dropped(), "1 [topic a]")
		h.Purge(hub.Purge{To: hub.Topics("b")})
		wantMessages("gone at last", h.Dropped(), "2 [topic a topic b]")
	})
}
