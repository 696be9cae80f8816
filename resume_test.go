package sse

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// wantResume checks what a client that joined is told and what it gets then.
func (l *testClient) wantResume(resume Resume, id string, texts ...string) {
	l.hub.t.Helper()
	if l.Resume != resume || l.Welcome.ID != id {
		l.hub.t.Errorf("with Last-Event-ID %q the client is told %q at %s; want %q at %s",
			l.LastEventID, l.Resume, l.Welcome.ID, resume, id)
	}
	want(l.hub.t, l.texts(), texts...)
}

func TestANewClientBeginsAtThePresent(t *testing.T) {
	h := newTestHub(t, plenty)
	h.publish(Topics("a"), "past")
	l := h.enter(with("a"))
	l.wantResume(ResumeNone, h.Position().String())
	h.publish(Topics("a"), "future")
	want(t, l.texts(), "future")
}

func TestAClientThatComesBackGetsWhatItMissedAndIsToldComplete(t *testing.T) {
	h := newTestHub(t, plenty)
	h.publish(Topics("a"), "0")
	seen, _ := h.publish(Topics("a"), "1")
	h.publish(Topics("b"), "not for it")
	h.publish(Topics("a"), "2")
	h.publishEphemeral(Topics("a"), "tick")
	h.publish(Topics("a", "b"), "3")
	l := h.enter(returning(with("a"), seen))
	h.publish(Topics("a"), "4")
	l.wantResume(ResumeComplete, seen, "2", "3", "4")
	h.publish(Topics("a"), "5")
	want(t, l.texts(), "5")
	h.enter(returning(with("a"), h.Position().String())).wantResume(ResumeComplete, h.Position().String())
}

func TestAClientCutBeforeItsFirstMessageResumesFromWhereItBegan(t *testing.T) {
	h := newTestHub(t, plenty)
	h.publish(Topics("a"), "before it came")
	first := h.enter(with("a"))
	first.leave()
	h.publish(Topics("a"), "1")
	second := h.enter(returning(with("a"), first.Welcome.ID))
	second.leave() // cut before the replay
	h.publish(Topics("a"), "2")
	h.enter(returning(with("a"), second.Welcome.ID)).wantResume(ResumeComplete, first.Welcome.ID, "1", "2")

	empty := newTestHub(t, plenty)
	begin := empty.enter(with("a")).Welcome.ID
	empty.publish(Topics("a"), "1")
	empty.enter(returning(with("a"), begin)).wantResume(ResumeComplete, begin, "1")
}

func TestTargetedMessagesAreResumedToo(t *testing.T) {
	h := newTestHub(t, plenty)
	s := with("a", "x/*")
	s.ClientID, s.User = "c", "u"
	seen := h.join(s).Welcome.ID
	for _, to := range []Address{
		{ToClient, "c"},
		{ToClient, "other"},
		{ToUser, "u"},
		{ToUser, "other"},
		{Kind: ToBroadcast},
		{ToTopic, "a"},
		{ToTopic, "b"},
		{ToTopic, "x/1"},
		{ToTopic, "x/1/2"},
	} {
		h.publish([]Address{to}, fmt.Sprint(to.Kind, to.Name))
	}
	h.publish(Topics("a", "x/1", "x/2"), "in three ways")
	h.enter(returning(s, seen)).wantResume(ResumeComplete, seen, "1c", "2u", "3", "0a", "0x/1", "in three ways")
	s.User = ""
	h.joined[0].leave()
	anonymous := with("a")
	h.enter(returning(anonymous, seen)).wantResume(ResumeComplete, seen, "3", "0a", "in three ways")
}

func TestAnIDThisLogDidNotGiveOutIsAGap(t *testing.T) {
	h := newTestHub(t, plenty)
	first, _ := h.publish(Topics("a"), "1")
	h.publish(Topics("b"), "not for it")
	h.publish(Topics("a"), "2")
	begin := ID{h.Position().Epoch, Position{}}.String()
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
			h.t = t
			h.enter(returning(with("a"), id)).wantResume(ResumeGap, begin, "1", "2")
		})
	}
	h.t = t
	h.enter(returning(with("c"), "garbage")).wantResume(ResumeGap, h.Position().String())
}

func TestWhatWasTrimmedIsAGapOnlyToThoseItWasFor(t *testing.T) {
	for name, limits := range map[string]HistoryLimits{
		"by count": {Count: 3},
		"by age":   {Count: 100, Age: 190 * time.Second},
		"by bytes": {Count: 100, Bytes: 110}, // three frames of 35 bytes, and a bit
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newTestHub(t, Limits{History: limits})
				other := h.enter(with("b")).Welcome.ID
				var ids []string
				for i := range 6 {
					id, _ := h.publish(Topics("a"), strconv.Itoa(i))
					ids = append(ids, id)
					pause(time.Minute)
				}
				h.enter(returning(with("a"), ids[1])).wantResume(ResumeGap, ids[1], "3", "4", "5")
				h.enter(returning(with("a", "b"), ids[1])).wantResume(ResumeGap, ids[1], "3", "4", "5")
				h.enter(returning(with("*"), ids[1])).wantResume(ResumeGap, ids[1], "3", "4", "5")
				h.enter(returning(with("a"), ids[2])).wantResume(ResumeComplete, ids[2], "3", "4", "5")
				h.enter(returning(with("a"), ids[4])).wantResume(ResumeComplete, ids[4], "5")
				h.enter(returning(with("b"), other)).wantResume(ResumeComplete, other)
				h.enter(returning(with("a"), "?")).wantResume(ResumeGap, ids[2], "3", "4", "5")
			})
		})
	}
}

func TestTheTopicsPublishedToLongestAgoAreTheFirstToHaveAGap(t *testing.T) {
	h := newTestHub(t, Limits{History: HistoryLimits{Count: 100, Bytes: 1000}})
	begin := h.Position().String()
	h.publish(Topics("old"), "1")
	for i := range 100 {
		h.publish(Topics("busy"), strconv.Itoa(i))
		h.publish(Topics("new"), "x")
	}
	h.enter(returning(with("old"), begin)).wantResume(ResumeGap, begin)
	h.enter(returning(with("quiet"), begin)).wantResume(ResumeComplete, begin)
	if l := h.enter(returning(with("new"), begin)); l.Resume != ResumeGap || len(l.texts()) == 0 {
		t.Errorf("a busy topic keeps nothing and says %q", l.Resume)
	}
}

func TestHistoryOffResumesOnlyWhoMissedNothing(t *testing.T) {
	h := newTestHub(t, Limits{})
	begin := h.Position().String()
	h.publish(Topics("a"), "1")
	h.enter(returning(with("a"), begin)).wantResume(ResumeGap, begin)
	h.enter(returning(with("b"), begin)).wantResume(ResumeComplete, begin)
	h.enter(returning(with("a"), "?")).wantResume(ResumeGap, h.Position().String())
	l := h.enter(returning(with("a"), h.Position().String()))
	h.publish(Topics("a"), "2") // before its stream has taken a turn
	l.wantResume(ResumeComplete, l.LastEventID, "2")
}

func TestAClientWithNothingToCatchUpOnIsLiveAtOnce(t *testing.T) {
	h := newTestHub(t, Limits{History: HistoryLimits{Count: 2}})
	h.publish(Topics("a"), "0")
	l := h.enter(returning(with("a"), h.Position().String()))
	h.publishAll("a", 1, 10) // more than history keeps, and less than its queue
	want(t, l.texts(), numbers(1, 10)...)
}

func TestAfterAnUnknownIDTheReplayIsBoundedOverAllTopics(t *testing.T) {
	h := newTestHub(t, Limits{History: HistoryLimits{Count: 10}})
	s := with("a", "b", "c/*")
	var ids []string
	for i := range 30 {
		id, _ := h.publish(Topics([]string{"a", "b", "c/1"}[i%3]), strconv.Itoa(i))
		ids = append(ids, id)
	}
	h.enter(returning(s, "?")).wantResume(ResumeGap, ids[19], numbers(20, 29)...)
	h.enter(returning(s, ids[19])).wantResume(ResumeComplete, ids[19], numbers(20, 29)...) // it was told so
}

func TestAResumeOfManyMessagesComesThroughASmallQueue(t *testing.T) {
	h := newTestHub(t, plenty)
	s := with("a", "b", "*")
	s.Queue, s.QueueBytes = 256, 10_000
	begin := h.Position().String()
	topic := func(i int) string { return []string{"a", "b", "c"}[i%3] }
	for i := range 12_000 {
		h.publish(Topics(topic(i)), strconv.Itoa(i))
	}
	l, got, next := h.enter(returning(s, begin)), []string(nil), 12_000
	for {
		batch := l.take()
		if len(batch) == 0 {
			break
		}
		bytes := 0
		for _, m := range batch {
			bytes += m.size()
		}
		if len(batch) > s.Queue || bytes > s.QueueBytes {
			t.Fatalf("a turn has %d messages and %d bytes", len(batch), bytes)
		}
		got = append(got, textsOf(t, batch)...)
		for range 20 { // publishing goes on
			if next < 15_000 {
				h.publish(Topics(topic(next)), strconv.Itoa(next))
				next++
			}
		}
		if len(l.queue) > s.Queue {
			t.Fatalf("%d messages wait", len(l.queue))
		}
	}
	want(t, []Resume{l.Resume}, ResumeComplete)
	want(t, got, numbers(0, next-1)...)
	h.publish(Topics("a"), "live")
	want(t, l.texts(), "live")
}

func TestEphemeralMessagesFindTheirPlaceInAReplay(t *testing.T) {
	h := newTestHub(t, plenty)
	begin := h.Position().String()
	h.publishAll("a", 1, 25)
	s := returning(with("a"), begin)
	s.Queue = 10
	l := h.enter(s)
	h.publishEphemeral(Topics("a"), "tick")
	want(t, textsOf(t, l.take()), numbers(1, 10)...)
	h.publishEphemeral(Topics("a"), "tock")
	h.publishAll("a", 26, 27)
	h.publishEphemeral(Topics("a"), "ding")
	h.publishAll("a", 28, 40)
	want(t, l.texts(), slices.Concat(numbers(11, 25), []string{"tick", "tock", "26", "27", "ding"}, numbers(28, 40))...)
}

func TestEphemeralMessagesDroppedFromAReplayAreToldWhereTheyWere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		begin := h.Position().String()
		h.publishAll("a", 1, 20)
		s := returning(with("a"), begin)
		s.Queue, s.SlowClient = 5, DropOldest
		l := h.enter(s)
		want(t, textsOf(t, l.take()), numbers(1, 5)...)
		l.blocked.Store(true)
		for i := range 8 {
			h.publishEphemeral(Topics("a"), "tick "+strconv.Itoa(i))
		}
		pause(time.Second) // all patience is lost
		h.publishAll("a", 21, 25)
		want(t, l.texts(), slices.Concat(numbers(6, 20),
			[]string{gap("slow_client"), "tick 4", "tick 5", "tick 6", "tick 7"}, numbers(21, 25))...)
	})
}

func TestHistoryTrimmedUnderAClientThatCatchesUpIsTold(t *testing.T) {
	h := newTestHub(t, Limits{History: HistoryLimits{Count: 100}})
	begin := h.Position().String()
	h.publishAll("a", 1, 100)
	s := returning(with("a", "b"), begin)
	s.Queue = 10
	l := h.enter(s)
	want(t, []Resume{l.Resume}, ResumeComplete)
	want(t, textsOf(t, l.take()), numbers(1, 10)...)
	h.publishAll("a", 101, 150) // 11 to 50 are gone
	want(t, textsOf(t, l.take()), append([]string{gap("history_trimmed")}, numbers(51, 60)...)...)
	want(t, textsOf(t, l.take()), numbers(61, 70)...)
	h.publishAll("a", 151, 160) // 51 to 60 are gone, which it has
	want(t, textsOf(t, l.take()), numbers(71, 80)...)
	h.publishAll("a", 161, 200) // 81 to 100 are gone
	want(t, textsOf(t, l.take()), append([]string{gap("history_trimmed")}, numbers(101, 110)...)...)
	want(t, l.texts(), numbers(111, 200)...)
}

func TestAGapToldAtConnectIsNotToldAgain(t *testing.T) {
	h := newTestHub(t, Limits{History: HistoryLimits{Count: 100}})
	begin := h.Position().String()
	h.publishAll("a", 1, 150)
	s := returning(with("a"), begin)
	s.Queue = 10
	h.enter(s).wantResume(ResumeGap, begin, numbers(51, 150)...)
	s.LastEventID = "?"
	l := h.enter(s)
	want(t, textsOf(t, l.take()), numbers(51, 60)...)
	h.publishAll("a", 151, 151) // 51 is gone, which it has
	want(t, l.texts(), numbers(61, 151)...)
}

func TestNewLimitsUnderAClientThatCatchesUpAreToldAsAGap(t *testing.T) {
	h := newTestHub(t, plenty)
	begin := h.Position().String()
	h.publishAll("a", 1, 100)
	s := returning(with("a"), begin)
	s.Queue = 10
	l := h.enter(s)
	l.take()
	h.Apply(Limits{})
	want(t, l.texts(), gap("history_trimmed"))
	h.publish(Topics("a"), "live")
	want(t, l.texts(), "live")
}

func TestARepeatedMessageOfAReplayIsNotLostByAnEarlyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		begin := h.Position().String()
		h.publishAll("a", 1, 30)
		s := with("a")
		s.Queue, s.MaxAge = 10, time.Minute
		l := h.enter(returning(s, begin))
		last := l.take()[9]
		pause(time.Minute)
		want(t, l.texts()) // the rest is for when it comes back
		want(t, []error{l.end}, ErrMaxAge)
		l.leave()
		h.enter(returning(s, decode(t, last).ID)).wantResume(ResumeComplete, decode(t, last).ID, numbers(11, 30)...)
	})
}
