package hub_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestANewClientBeginsAtThePresent(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	h.Publish(hub.Topics("a"), "past")
	l := h.Enter(hubtest.With("a"))
	l.WantResume(hub.ResumeNone, h.Position().String())
	h.Publish(hub.Topics("a"), "future")
	hubtest.Want(t, l.Texts(), "future")
}

func TestAClientThatComesBackGetsWhatItMissedAndIsToldComplete(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	h.Publish(hub.Topics("a"), "0")
	seen, _ := h.Publish(hub.Topics("a"), "1")
	h.Publish(hub.Topics("b"), "not for it")
	h.Publish(hub.Topics("a"), "2")
	h.PublishEphemeral(hub.Topics("a"), "tick")
	h.Publish(hub.Topics("a", "b"), "3")
	l := h.Enter(hubtest.Returning(hubtest.With("a"), seen))
	h.Publish(hub.Topics("a"), "4")
	l.WantResume(hub.ResumeComplete, seen, "2", "3", "4")
	h.Publish(hub.Topics("a"), "5")
	hubtest.Want(t, l.Texts(), "5")
	h.Enter(hubtest.Returning(hubtest.With("a"), h.Position().String())).WantResume(hub.ResumeComplete, h.Position().String())
}

func TestAClientCutBeforeItsFirstMessageResumesFromWhereItBegan(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	h.Publish(hub.Topics("a"), "before it came")
	first := h.Enter(hubtest.With("a"))
	first.Leave()
	h.Publish(hub.Topics("a"), "1")
	second := h.Enter(hubtest.Returning(hubtest.With("a"), first.Welcome.ID))
	second.Leave() // cut before the replay
	h.Publish(hub.Topics("a"), "2")
	h.Enter(hubtest.Returning(hubtest.With("a"), second.Welcome.ID)).WantResume(hub.ResumeComplete, first.Welcome.ID, "1", "2")

	empty := hubtest.New(t, hubtest.Plenty)
	begin := empty.Enter(hubtest.With("a")).Welcome.ID
	empty.Publish(hub.Topics("a"), "1")
	empty.Enter(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeComplete, begin, "1")
}

func TestTargetedMessagesAreResumedToo(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	s := hubtest.With("a", "x/*")
	s.ClientID, s.User = "c", "u"
	seen := h.Listen(s).Welcome.ID
	for _, to := range []hub.Address{
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
		h.Publish([]hub.Address{to}, fmt.Sprint(to.Kind, to.Name))
	}
	h.Publish(hub.Topics("a", "x/1", "x/2"), "in three ways")
	h.Enter(hubtest.Returning(s, seen)).WantResume(hub.ResumeComplete, seen, "1c", "2u", "3", "0a", "0x/1", "in three ways")
	s.User = ""
	h.Joined[0].Leave()
	anonymous := hubtest.With("a")
	h.Enter(hubtest.Returning(anonymous, seen)).WantResume(hub.ResumeComplete, seen, "3", "0a", "in three ways")
}

func TestAnIDThisLogDidNotGiveOutIsAGap(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	first, _ := h.Publish(hub.Topics("a"), "1")
	h.Publish(hub.Topics("b"), "not for it")
	h.Publish(hub.Topics("a"), "2")
	begin := hub.ID{Epoch: h.Position().Epoch, Position: hub.Position{}}.String()
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
		t.Run(name, func(t *testing.T) {
			h.TB = t
			h.Enter(hubtest.Returning(hubtest.With("a"), id)).WantResume(hub.ResumeGap, begin, "1", "2")
		})
	}
	h.TB = t
	h.Enter(hubtest.Returning(hubtest.With("c"), "garbage")).WantResume(hub.ResumeGap, h.Position().String())
}

func TestWhatWasTrimmedIsAGapOnlyToThoseItWasFor(t *testing.T) {
	for name, limits := range map[string]hub.HistoryLimits{
		"by count": {Count: 3},
		"by age":   {Count: 100, Age: 190 * time.Second},
		"by bytes": {Count: 100, Bytes: 110}, // three frames of 35 bytes, and a bit
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := hubtest.New(t, hub.Limits{History: limits})
				other := h.Enter(hubtest.With("b")).Welcome.ID
				var ids []string
				for i := range 6 {
					id, _ := h.Publish(hub.Topics("a"), strconv.Itoa(i))
					ids = append(ids, id)
					hubtest.Pause(time.Minute)
				}
				h.Enter(hubtest.Returning(hubtest.With("a"), ids[1])).WantResume(hub.ResumeGap, ids[1], "3", "4", "5")
				h.Enter(hubtest.Returning(hubtest.With("a", "b"), ids[1])).WantResume(hub.ResumeGap, ids[1], "3", "4", "5")
				h.Enter(hubtest.Returning(hubtest.With("*"), ids[1])).WantResume(hub.ResumeGap, ids[1], "3", "4", "5")
				h.Enter(hubtest.Returning(hubtest.With("a"), ids[2])).WantResume(hub.ResumeComplete, ids[2], "3", "4", "5")
				h.Enter(hubtest.Returning(hubtest.With("a"), ids[4])).WantResume(hub.ResumeComplete, ids[4], "5")
				h.Enter(hubtest.Returning(hubtest.With("b"), other)).WantResume(hub.ResumeComplete, other)
				h.Enter(hubtest.Returning(hubtest.With("a"), "?")).WantResume(hub.ResumeGap, ids[2], "3", "4", "5")
			})
		})
	}
}

func TestTheTopicsPublishedToLongestAgoAreTheFirstToHaveAGap(t *testing.T) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 100, Bytes: 1000}})
	begin := h.Position().String()
	h.Publish(hub.Topics("old"), "1")
	for i := range 100 {
		h.Publish(hub.Topics("busy"), strconv.Itoa(i))
		h.Publish(hub.Topics("new"), "x")
	}
	h.Enter(hubtest.Returning(hubtest.With("old"), begin)).WantResume(hub.ResumeGap, begin)
	h.Enter(hubtest.Returning(hubtest.With("quiet"), begin)).WantResume(hub.ResumeComplete, begin)
	if l := h.Enter(hubtest.Returning(hubtest.With("new"), begin)); l.Resume != hub.ResumeGap || len(l.Texts()) == 0 {
		t.Errorf("a busy topic keeps nothing and says %q", l.Resume)
	}
}

func TestHistoryOffResumesOnlyWhoMissedNothing(t *testing.T) {
	h := hubtest.New(t, hub.Limits{})
	begin := h.Position().String()
	h.Publish(hub.Topics("a"), "1")
	h.Enter(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeGap, begin)
	h.Enter(hubtest.Returning(hubtest.With("b"), begin)).WantResume(hub.ResumeComplete, begin)
	h.Enter(hubtest.Returning(hubtest.With("a"), "?")).WantResume(hub.ResumeGap, h.Position().String())
	l := h.Enter(hubtest.Returning(hubtest.With("a"), h.Position().String()))
	h.Publish(hub.Topics("a"), "2") // before its stream has taken a turn
	l.WantResume(hub.ResumeComplete, l.LastEventID, "2")
}

func TestAClientWithNothingToCatchUpOnIsLiveAtOnce(t *testing.T) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 2}})
	h.Publish(hub.Topics("a"), "0")
	l := h.Enter(hubtest.Returning(hubtest.With("a"), h.Position().String()))
	h.PublishAll("a", 1, 10) // more than history keeps, and less than its queue
	hubtest.Want(t, l.Texts(), hubtest.Numbers(1, 10)...)
}

func TestAfterAnUnknownIDTheReplayIsBoundedOverAllTopics(t *testing.T) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 10}})
	s := hubtest.With("a", "b", "c/*")
	var ids []string
	for i := range 30 {
		id, _ := h.Publish(hub.Topics([]string{"a", "b", "c/1"}[i%3]), strconv.Itoa(i))
		ids = append(ids, id)
	}
	h.Enter(hubtest.Returning(s, "?")).WantResume(hub.ResumeGap, ids[19], hubtest.Numbers(20, 29)...)
	h.Enter(hubtest.Returning(s, ids[19])).WantResume(hub.ResumeComplete, ids[19], hubtest.Numbers(20, 29)...) // it was told so
}

func TestAResumeOfManyMessagesComesThroughASmallQueue(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	s := hubtest.With("a", "b", "*")
	s.Queue, s.QueueBytes = 256, 10_000
	begin := h.Position().String()
	topic := func(i int) string { return []string{"a", "b", "c"}[i%3] }
	for i := range 12_000 {
		h.Publish(hub.Topics(topic(i)), strconv.Itoa(i))
	}
	l, got, next := h.Enter(hubtest.Returning(s, begin)), []string(nil), 12_000
	for {
		batch := l.Turn()
		if len(batch) == 0 {
			break
		}
		bytes := 0
		for _, m := range batch {
			bytes += len(m.Frame())
		}
		if len(batch) > s.Queue || bytes > s.QueueBytes {
			t.Fatalf("a turn has %d messages and %d bytes", len(batch), bytes)
		}
		got = append(got, hubtest.TextsOf(t, batch)...)
		for range 20 { // publishing goes on
			if next < 15_000 {
				h.Publish(hub.Topics(topic(next)), strconv.Itoa(next))
				next++
			}
		}
		if n, _ := l.Queued(); n > s.Queue {
			t.Fatalf("%d messages wait", n)
		}
	}
	hubtest.Want(t, []hub.Resume{l.Resume}, hub.ResumeComplete)
	hubtest.Want(t, got, hubtest.Numbers(0, next-1)...)
	h.Publish(hub.Topics("a"), "live")
	hubtest.Want(t, l.Texts(), "live")
}

func TestEphemeralMessagesFindTheirPlaceInAReplay(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	begin := h.Position().String()
	h.PublishAll("a", 1, 25)
	s := hubtest.Returning(hubtest.With("a"), begin)
	s.Queue = 10
	l := h.Enter(s)
	h.PublishEphemeral(hub.Topics("a"), "tick")
	hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), hubtest.Numbers(1, 10)...)
	h.PublishEphemeral(hub.Topics("a"), "tock")
	h.PublishAll("a", 26, 27)
	h.PublishEphemeral(hub.Topics("a"), "ding")
	h.PublishAll("a", 28, 40)
	hubtest.Want(t, l.Texts(), slices.Concat(hubtest.Numbers(11, 25), []string{"tick", "tock", "26", "27", "ding"}, hubtest.Numbers(28, 40))...)
}

func TestEphemeralMessagesDroppedFromAReplayAreToldWhereTheyWere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		begin := h.Position().String()
		h.PublishAll("a", 1, 20)
		s := hubtest.Returning(hubtest.With("a"), begin)
		s.Queue, s.SlowClient = 5, hub.DropOldest
		l := h.Enter(s)
		hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), hubtest.Numbers(1, 5)...)
		l.Stalled.Store(true)
		for i := range 8 {
			h.PublishEphemeral(hub.Topics("a"), "tick "+strconv.Itoa(i))
		}
		hubtest.Pause(time.Second) // all patience is lost
		h.PublishAll("a", 21, 25)
		hubtest.Want(t, l.Texts(), slices.Concat(hubtest.Numbers(6, 20),
			[]string{hubtest.Gap("slow_client"), "tick 4", "tick 5", "tick 6", "tick 7"}, hubtest.Numbers(21, 25))...)
	})
}

func TestHistoryTrimmedUnderAClientThatCatchesUpIsTold(t *testing.T) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 100}})
	begin := h.Position().String()
	h.PublishAll("a", 1, 100)
	s := hubtest.Returning(hubtest.With("a", "b"), begin)
	s.Queue = 10
	l := h.Enter(s)
	hubtest.Want(t, []hub.Resume{l.Resume}, hub.ResumeComplete)
	hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), hubtest.Numbers(1, 10)...)
	h.PublishAll("a", 101, 150) // 11 to 50 are gone
	hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), append([]string{hubtest.Gap("history_trimmed")}, hubtest.Numbers(51, 60)...)...)
	hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), hubtest.Numbers(61, 70)...)
	h.PublishAll("a", 151, 160) // 51 to 60 are gone, which it has
	hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), hubtest.Numbers(71, 80)...)
	h.PublishAll("a", 161, 200) // 81 to 100 are gone
	hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), append([]string{hubtest.Gap("history_trimmed")}, hubtest.Numbers(101, 110)...)...)
	hubtest.Want(t, l.Texts(), hubtest.Numbers(111, 200)...)
}

func TestAGapToldAtConnectIsNotToldAgain(t *testing.T) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 100}})
	begin := h.Position().String()
	h.PublishAll("a", 1, 150)
	s := hubtest.Returning(hubtest.With("a"), begin)
	s.Queue = 10
	h.Enter(s).WantResume(hub.ResumeGap, begin, hubtest.Numbers(51, 150)...)
	s.LastEventID = "?"
	l := h.Enter(s)
	hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), hubtest.Numbers(51, 60)...)
	h.PublishAll("a", 151, 151) // 51 is gone, which it has
	hubtest.Want(t, l.Texts(), hubtest.Numbers(61, 151)...)
}

func TestNewLimitsUnderAClientThatCatchesUpAreToldAsAGap(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	begin := h.Position().String()
	h.PublishAll("a", 1, 100)
	s := hubtest.Returning(hubtest.With("a"), begin)
	s.Queue = 10
	l := h.Enter(s)
	l.Turn()
	h.Apply(hub.Limits{})
	hubtest.Want(t, l.Texts(), hubtest.Gap("history_trimmed"))
	h.Publish(hub.Topics("a"), "live")
	hubtest.Want(t, l.Texts(), "live")
}

func TestARepeatedMessageOfAReplayIsNotLostByAnEarlyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		begin := h.Position().String()
		h.PublishAll("a", 1, 30)
		s := hubtest.With("a")
		s.Queue, s.MaxAge = 10, time.Minute
		l := h.Enter(hubtest.Returning(s, begin))
		last := l.Turn()[9]
		hubtest.Pause(time.Minute)
		hubtest.Want(t, l.Texts()) // the rest is for when it comes back
		hubtest.Want(t, []error{l.End}, hub.ErrMaxAge)
		l.Leave()
		h.Enter(hubtest.Returning(s, hubtest.Decode(t, last).ID)).WantResume(hub.ResumeComplete, hubtest.Decode(t, last).ID, hubtest.Numbers(11, 30)...)
	})
}
