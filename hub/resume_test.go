package hub_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestANewClientBeginsAtThePresent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Publish(hub.Topics("a"), "past")
		c := h.Enter(hubtest.With("a"))
		c.WantResume(hub.ResumeNone, h.Position().String())
		h.Publish(hub.Topics("a"), "future")
		c.Open()
		c.Want("future")
	})
}

func TestAClientThatComesBackGetsWhatItMissedAndIsToldComplete(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Publish(hub.Topics("a"), "0")
		seen, _ := h.Publish(hub.Topics("a"), "1")
		h.Publish(hub.Topics("b"), "not for it")
		h.Publish(hub.Topics("a"), "2")
		h.PublishEphemeral(hub.Topics("a"), "tick")
		h.Publish(hub.Topics("a", "b"), "3")
		c := h.Enter(hubtest.Returning(hubtest.With("a"), seen))
		h.Publish(hub.Topics("a"), "4")
		c.Open()
		c.WantResume(hub.ResumeComplete, seen, "2", "3", "4")
		h.Publish(hub.Topics("a"), "5")
		c.Want("5")
		now := h.Position().String()
		h.Join(hubtest.Returning(hubtest.With("a"), now)).WantResume(hub.ResumeComplete, now)
	})
}

func TestAClientCutBeforeItsFirstMessageResumesFromWhereItBegan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Publish(hub.Topics("a"), "before it came")
		first := h.Enter(hubtest.With("a"))
		first.Leave()
		h.Publish(hub.Topics("a"), "1")
		second := h.Enter(hubtest.Returning(hubtest.With("a"), first.Welcome.ID))
		second.Leave() // cut before the replay
		h.Publish(hub.Topics("a"), "2")
		third := h.Join(hubtest.Returning(hubtest.With("a"), second.Welcome.ID))
		third.WantResume(hub.ResumeComplete, first.Welcome.ID, "1", "2")

		empty := hubtest.New(t, hubtest.Plenty)
		begin := empty.Enter(hubtest.With("a")).Welcome.ID
		empty.Publish(hub.Topics("a"), "1")
		empty.Join(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeComplete, begin, "1")
	})
}

func TestTargetedMessagesAreResumedToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a", "x/*")
		s.ClientID, s.User = "c", "u"
		first := h.Join(s)
		seen := first.Welcome.ID
		for _, a := range []hub.Address{
			{Kind: hub.ToClient, Name: "c"},
			{Kind: hub.ToClient, Name: "other"},
			{Kind: hub.ToUser, Name: "u"},
			{Kind: hub.ToUser, Name: "other"},
			{Kind: hub.ToBroadcast},
			{Kind: hub.ToTopic, Name: "a"},
			{Kind: hub.ToTopic, Name: "b"},
			{Kind: hub.ToTopic, Name: "x/1"},
			{Kind: hub.ToTopic, Name: "x/1/2"},
		} {
			h.Publish([]hub.Address{a}, fmt.Sprint(a.Kind, a.Name))
		}
		h.Publish(hub.Topics("a", "x/1", "x/2"), "in three ways")
		back := h.Join(hubtest.Returning(s, seen))
		back.WantResume(hub.ResumeComplete, seen, "1c", "2u", "3", "0a", "0x/1", "in three ways")
		anonymous := h.Join(hubtest.Returning(hubtest.With("a"), seen))
		anonymous.WantResume(hub.ResumeComplete, seen, "3", "0a", "in three ways")
	})
}

func TestAnIDThisLogDidNotGiveOutIsAGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		first, _ := h.Publish(hub.Topics("a"), "1")
		h.Publish(hub.Topics("b"), "not for it")
		h.Publish(hub.Topics("a"), "2")
		epoch, _, _ := strings.Cut(first, "-")
		for name, id := range map[string]string{
			"other epoch":   "0123456789abcdef-1",
			"future":        epoch + "-4",
			"far future":    epoch + "-18446744073709551615",
			"sparse":        epoch + "-1-1",
			"garbage":       "garbage",
			"another style": "1700000000000-0",
			"no position":   epoch + "-",
			"spaces":        " " + first,
			"a line":        "\x00",
			"long":          strings.Repeat("x", 1<<16),
		} {
			c := h.Join(hubtest.Returning(hubtest.With("a"), id))
			c.WantResume(hub.ResumeGap, epoch+"-0", "1", "2")
			if hubtest.Want(t, []string{c.Reason}, "unknown_id"); t.Failed() {
				t.Fatal(name)
			}
		}
		c := h.Join(hubtest.Returning(hubtest.With("c"), "garbage"))
		c.WantResume(hub.ResumeGap, h.Position().String())
	})
}

func TestWhatWasTrimmedIsAGapOnlyToThoseItWasFor(t *testing.T) {
	const three = 256 + 1 + 3*(128+45+2) + 20 // a log of a topic with one letter and three such messages, and a bit
	for name, limits := range map[string]hub.HistoryLimits{
		"by count": {Count: 3},
		"by age":   {Count: 100, Age: 190 * time.Second},
		"by bytes": {Count: 100, Bytes: three},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := hubtest.New(t, hub.Limits{History: limits})
				other := h.Enter(hubtest.With("b")).Welcome.ID
				var ids []string
				for i := range 6 {
					id, _ := h.Publish(hub.Topics("a"), strconv.Itoa(i))
					ids = append(ids, id)
					hubtest.Pause(time.Minute)
				}
				back := func(id string, topics ...string) *hubtest.Client {
					return h.Join(hubtest.Returning(hubtest.With(topics...), id))
				}
				back(ids[1], "a").WantResume(hub.ResumeGap, ids[1], "3", "4", "5")
				back(ids[1], "a", "b").WantResume(hub.ResumeGap, ids[1], "3", "4", "5")
				back(ids[1], "*").WantResume(hub.ResumeGap, ids[1], "3", "4", "5")
				back(ids[2], "a").WantResume(hub.ResumeComplete, ids[2], "3", "4", "5")
				back(ids[2], "*").WantResume(hub.ResumeComplete, ids[2], "3", "4", "5")
				back(ids[4], "a").WantResume(hub.ResumeComplete, ids[4], "5")
				back(other, "b").WantResume(hub.ResumeComplete, other)
				back("?", "a").WantResume(hub.ResumeGap, ids[2], "3", "4", "5")
			})
		})
	}
}

func TestTheTopicsPublishedToLongestAgoAreTheFirstToHaveAGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 100, Bytes: 3000}})
		begin := h.Position().String()
		h.Publish(hub.Topics("old"), "1")
		for i := range 100 {
			h.Publish(hub.Topics("busy"), strconv.Itoa(i))
			h.Publish(hub.Topics("new"), "x")
		}
		h.Join(hubtest.Returning(hubtest.With("old"), begin)).WantResume(hub.ResumeGap, begin)
		h.Join(hubtest.Returning(hubtest.With("quiet"), begin)).WantResume(hub.ResumeComplete, begin)
		if c := h.Join(hubtest.Returning(hubtest.With("new"), begin)); c.Resume != hub.ResumeGap || len(c.Texts()) == 0 {
			t.Errorf("a busy topic keeps nothing and says %q", c.Resume)
		}
	})
}

func TestHistoryOffResumesOnlyWhoMissedNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{})
		begin := h.Position().String()
		h.Publish(hub.Topics("a"), "1")
		h.Join(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeGap, begin)
		h.Join(hubtest.Returning(hubtest.With("b"), begin)).WantResume(hub.ResumeComplete, begin)
		h.Join(hubtest.Returning(hubtest.With("a"), "?")).WantResume(hub.ResumeGap, h.Position().String())
		c := h.Enter(hubtest.Returning(hubtest.With("a"), h.Position().String()))
		h.Publish(hub.Topics("a"), "2") // before its stream has had a turn
		c.Open()
		c.WantResume(hub.ResumeComplete, c.LastEventID, "2")
	})
}

func TestAClientWithNothingToCatchUpOnIsLiveAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 2}})
		h.Publish(hub.Topics("a"), "0")
		c := h.Enter(hubtest.Returning(hubtest.With("a"), h.Position().String()))
		h.PublishAll("a", 1, 10) // more than history keeps
		c.Open()
		c.Want(hubtest.Numbers(1, 10)...)
	})
}

func TestAfterAnUnknownIDTheReplayIsBoundedOverAllTopics(t *testing.T) {
	for _, merged := range []int{32, 1} { // logs: then it looks back through all that is kept
		bubble(t, func(t *testing.T) {
			h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 10}})
			hub.Shrink(h.Hub, 8, merged, 5)
			s := hubtest.With("a", "b", "c/*")
			var ids []string
			for i := range 30 {
				id, _ := h.Publish(hub.Topics([]string{"a", "b", "c/1"}[i%3]), strconv.Itoa(i))
				ids = append(ids, id)
			}
			h.Join(hubtest.Returning(s, "?")).WantResume(hub.ResumeGap, ids[19], hubtest.Numbers(20, 29)...)
			back := h.Join(hubtest.Returning(s, ids[19])) // it was told so
			back.WantResume(hub.ResumeComplete, ids[19], hubtest.Numbers(20, 29)...)
		})
	}
}

// Whatever is merged or scanned, however small the ring is, and while publishing goes on.
func TestAResumeOfManyMessagesIsExact(t *testing.T) {
	for _, merged := range []int{32, 2} {
		bubble(t, func(t *testing.T) {
			h := hubtest.New(t, hubtest.Plenty)
			hub.Shrink(h.Hub, 100, merged, 50)
			begin := h.Position().String()
			topic := func(i int) string { return []string{"a", "b", "c"}[i%3] }
			for i := range 12_000 {
				h.Publish(hub.Topics(topic(i)), strconv.Itoa(i))
			}
			c, next := h.Enter(hubtest.Returning(hubtest.With("a", "b", "*"), begin)), 12_000
			for next < 15_000 {
				c.Let(1 + next%97)
				for range 20 {
					h.Publish(hub.Topics(topic(next)), strconv.Itoa(next))
					next++
				}
			}
			c.Open()
			c.WantResume(hub.ResumeComplete, begin, hubtest.Numbers(0, next-1)...)
			h.Publish(hub.Topics("a"), "live")
			c.Want("live")
		})
	}
}

func TestEphemeralMessagesFindTheirPlaceInAReplay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		begin := h.Position().String()
		h.PublishAll("a", 1, 25)
		c := h.Enter(hubtest.Returning(hubtest.With("a"), begin))
		h.PublishEphemeral(hub.Topics("a"), "tick")
		c.Let(10)
		c.Want(hubtest.Numbers(1, 10)...)
		h.PublishEphemeral(hub.Topics("a"), "tock")
		h.PublishAll("a", 26, 27)
		h.PublishEphemeral(hub.Topics("a"), "ding")
		h.PublishAll("a", 28, 40)
		c.Open()
		c.Want(slices.Concat(hubtest.Numbers(11, 25), []string{"tick", "tock", "26", "27", "ding"}, hubtest.Numbers(28, 40))...)
	})
}

func TestHistoryTrimmedUnderAClientThatCatchesUpIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 100}})
		hub.Shrink(h.Hub, 10, 32, 10)
		begin := h.Position().String()
		h.PublishAll("a", 1, 100)
		c := h.Enter(hubtest.Returning(hubtest.With("a", "b"), begin))
		hubtest.Want(t, []hub.Resume{c.Resume}, hub.ResumeComplete)
		c.Let(10)
		c.Want(hubtest.Numbers(1, 10)...)
		hubtest.Pause(time.Second)
		h.PublishAll("a", 101, 150) // 11 to 50 are gone
		c.Let(11)
		c.Want(append([]string{hubtest.Gap("history_trimmed")}, hubtest.Numbers(51, 60)...)...)
		c.Let(10)
		c.Want(hubtest.Numbers(61, 70)...)
		h.PublishAll("a", 151, 160) // 51 to 60 are gone, which it has
		c.Let(10)
		c.Want(hubtest.Numbers(71, 80)...)
		h.PublishAll("a", 161, 200) // 81 to 100 are gone
		c.Let(11)
		c.Want(append([]string{hubtest.Gap("history_trimmed")}, hubtest.Numbers(101, 110)...)...)
		c.Open()
		c.Want(hubtest.Numbers(111, 200)...)
	})
}

func TestWhatAgesWhileAClientCatchesUpIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 100, Age: time.Minute}})
		hub.Shrink(h.Hub, 2, 32, 10)
		c := h.Join(hubtest.With("a"))
		c.Block()
		h.PublishAll("a", 1, 3)
		hubtest.Pause(50 * time.Second)
		h.PublishAll("a", 4, 6)
		hubtest.Pause(30 * time.Second) // and nothing has looked at the topic since
		c.Open()
		c.Want(append([]string{hubtest.Gap("slow_client")}, hubtest.Numbers(4, 6)...)...)
	})
}

func TestAGapToldAtConnectIsNotToldAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 100}})
		begin := h.Position().String()
		h.PublishAll("a", 1, 150)
		s := hubtest.Returning(hubtest.With("a"), begin)
		h.Join(s).WantResume(hub.ResumeGap, begin, hubtest.Numbers(51, 150)...)
		s.LastEventID = "?"
		c := h.Enter(s)
		c.Let(10)
		c.Want(hubtest.Numbers(51, 60)...)
		h.PublishAll("a", 151, 151) // 51 is gone, which it has
		c.Open()
		c.Want(hubtest.Numbers(61, 151)...)
	})
}

func TestNewLimitsUnderAClientThatCatchesUpAreToldAsAGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		begin := h.Position().String()
		h.PublishAll("a", 1, 100)
		c := h.Enter(hubtest.Returning(hubtest.With("a"), begin))
		c.Let(10)
		c.Want(hubtest.Numbers(1, 10)...)
		other := h.Join(hubtest.With("b"))
		hubtest.Pause(time.Second) // its stream has begun by then, so it is not our doing
		h.Publish(hub.Topics("b"), "time has passed")
		other.Want("time has passed")
		h.Apply(hub.Limits{})
		c.Open()
		c.Want(hubtest.Gap("history_trimmed"))
		h.Publish(hub.Topics("a"), "live")
		c.Want("live")
	})
}

func TestAMessageOfAReplayIsNotLostByAnEarlyEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		begin := h.Position().String()
		h.PublishAll("a", 1, 30)
		s := hubtest.With("a")
		s.MaxAge = time.Minute
		c := h.Enter(hubtest.Returning(s, begin))
		c.Let(10)
		events := c.Events()
		hubtest.Want(t, hubtest.TextsOf(events), hubtest.Numbers(1, 10)...)
		hubtest.Pause(time.Minute)
		c.Open()
		c.Want() // the rest is for when it comes back
		hubtest.Want(t, []error{c.End()}, hub.ErrMaxAge)
		last := events[9].ID
		h.Join(hubtest.Returning(s, last)).WantResume(hub.ResumeComplete, last, hubtest.Numbers(11, 30)...)
	})
}
