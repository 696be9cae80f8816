package hub_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// publishAs publishes to a topic under an ID of the publisher's choice.
func publishAs(h *hubtest.Hub, topic, chosen, text string) {
	p := h.Position()
	p.Position.Major++
	h.Deliver(&hub.Message{To: hub.Topics(topic), ChosenID: chosen, Data: []byte(text), Position: p.Position})
}

func TestURNHasThePositionOfAnyLog(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		o := hub.Origin{Epoch: hub.NewEpoch(), Sparse: true}
		h.Switch(o, "broker_changed")
		p := hub.Position{Major: random.Uint64() >> 8 >> random.IntN(50), Minor: random.Uint64N(1 << 24)}
		if p == (hub.Position{}) {
			continue
		}
		h.Deliver(&hub.Message{To: hub.Topics("a"), Position: p})
		urn := hub.ID{Epoch: o.Epoch, Position: p}.URN()
		if len(urn) != len("urn:uuid:")+36 || urn[len("urn:uuid:")+14] != '8' || !strings.Contains("89ab", urn[len("urn:uuid:")+19:][:1]) {
			t.Fatalf("%q is no UUID of version 8", urn)
		}
		h.Join(hubtest.Returning(selecting(t, "a"), urn)).WantResume(hub.ResumeComplete, urn)
		other := hub.ID{Epoch: hub.NewEpoch(), Position: p}.URN()
		if c := h.Join(hubtest.Returning(selecting(t, "a"), other)); c.Resume != hub.ResumeGap {
			t.Fatalf("an ID of another log is known: %v", c.Welcome)
		}
	}
}

func TestClientResumesFromTheIDThatAPublisherChose(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	c := h.Join(selecting(t, "a"))
	publishAs(h, "a", "one", "1")
	publishAs(h, "b", "two", "2") // of a topic that the client does not ask for
	publishAs(h, "a", "", "3")
	publishAs(h, "a", "one", "4") // the ID is known already
	publishAs(h, "a", "four and more", "5")
	events := c.Events()
	ids := []string{"one", urnOf(t, hub.ID{Epoch: h.Position().Epoch, Position: hub.Position{Major: 3}}.String()), "one", "four and more"}
	for i, e := range events {
		if e.ID != ids[i] {
			t.Errorf("message %d has the ID %q; want %q", i, e.ID, ids[i])
		}
	}
	for cursor, want := range map[string][]string{
		"one": {"3", "4", "5"}, "two": {"3", "4", "5"}, ids[1]: {"4", "5"}, "four and more": nil,
	} {
		h.Join(hubtest.Returning(selecting(t, "a"), cursor)).WantResume(hub.ResumeComplete, cursor, want...)
	}
	for _, cursor := range []string{"unknown", h.Position().String(), "urn:uuid:5e8a4a7e-0000-4000-8000-000000000000"} {
		c := h.Join(hubtest.Returning(selecting(t, "a"), cursor))
		if c.Resume != hub.ResumeGap {
			t.Errorf("cursor %q: %v", cursor, c.Welcome)
		}
		c.Want("1", "3", "4", "5")
	}
	h.Join(hubtest.Returning(hubtest.With("a"), "one")).WantResume(hub.ResumeGap, h.Position().String()[:17]+"0", "1", "3", "4", "5")
}

func TestChosenIDThatLooksLikeAnotherMessageSendsNobodyAhead(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	h.PublishAll("a", 1, 5)
	fifth := h.Position().URN()
	third := hub.ID{Epoch: h.Position().Epoch, Position: hub.Position{Major: 3}}.URN()
	publishAs(h, "a", third, "6") // who has had 3 gets 4 and 5
	h.Join(hubtest.Returning(selecting(t, "a"), third)).WantResume(hub.ResumeComplete, third, "4", "5", "6")
	h.Join(hubtest.Returning(selecting(t, "a"), fifth)).WantResume(hub.ResumeComplete, fifth, "6")
	ninth := hub.ID{Epoch: h.Position().Epoch, Position: hub.Position{Major: 9}}.URN()
	publishAs(h, "a", ninth, "7") // before there is a ninth
	h.PublishAll("a", 8, 10)
	h.Join(hubtest.Returning(selecting(t, "a"), ninth)).WantResume(hub.ResumeComplete, ninth, "8", "9", "10")
}

func TestChosenIDsAreForgottenWithTheirMessages(t *testing.T) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 2}})
	hub.Shrink(h.Hub, 4, 32, 4)
	for i := range 1000 {
		publishAs(h, "a", fmt.Sprint("id", i/2), fmt.Sprint(i)) // each twice
	}
	if n := hub.LeftoversOf(h.Hub).Chosen; n > 10 {
		t.Errorf("%d IDs are remembered", n)
	}
	c := h.Join(hubtest.Returning(selecting(t, "a"), "id3"))
	c.WantResume(hub.ResumeGap, c.Welcome.ID, "998", "999")
	h.Switch(hub.Origin{Epoch: "another"}, "broker_changed")
	for i := range 100 { // the messages of the log before go one by one
		publishAs(h, "a", "new", fmt.Sprint(i))
	}
	if n := hub.LeftoversOf(h.Hub).Chosen; n != 1 {
		t.Errorf("of another log %d IDs are remembered", n)
	}
}

func TestTrimmedCursorIsAGapWithWhatIsKeptBehindIt(t *testing.T) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 2}})
	publishAs(h, "other", "start", "0")
	h.PublishAll("a", 1, 5)
	h.Join(hubtest.Returning(selecting(t, "a"), "start")).WantResume(hub.ResumeGap, "start", "4", "5")
}

func TestChosenIDsAreChecked(t *testing.T) {
	for id, ok := range map[string]bool{
		"": true, "urn:uuid:1": true, "a b": true, "\u00e9": true, strings.Repeat("a", 255): true,
		"#1": false, "earliest": false, "a\nb": false, "\x00": false, " a": false, "a ": false, "\xff": false, strings.Repeat("a", 256): false,
	} {
		if err := hub.CheckChosenID(id); (err == nil) != ok {
			t.Errorf("CheckChosenID(%.20q) = %v", id, err)
		}
	}
}

func TestUpdatesToAnyTopicAreChecked(t *testing.T) {
	long := strings.Repeat("a", 2048)
	for name, test := range map[string]struct {
		m  hub.Message
		ok bool
	}{
		"a pattern":            {hub.Message{To: hub.Topics("room/*", "**", long), AnyTopic: true}, true},
		"a pattern elsewhere":  {hub.Message{To: hub.Topics("room/*")}, false},
		"a private pattern":    {hub.Message{To: hub.PrivateTopics("room/*")}, true},
		"a reserved name":      {hub.Message{To: hub.Topics("a"), Event: "connected", AnyTopic: true}, true},
		"it is elsewhere":      {hub.Message{To: hub.Topics("a"), Event: "connected"}, false},
		"too long":             {hub.Message{To: hub.Topics(long + "a"), AnyTopic: true}, false},
		"empty":                {hub.Message{To: hub.Topics(""), AnyTopic: true}, false},
		"private and not":      {hub.Message{To: append(hub.PrivateTopics("a"), hub.Topics("a")...)}, false},
		"not and private":      {hub.Message{To: append(hub.Topics("a"), hub.PrivateTopics("a")...), AnyTopic: true}, false},
		"to everybody":         {hub.Message{To: []hub.Address{{Kind: hub.ToBroadcast}}, AnyTopic: true}, false},
		"very many topics":     {hub.Message{To: hub.Topics(slices.Repeat([]string{"a"}, 1000)...), AnyTopic: true}, true},
		"too many topics":      {hub.Message{To: hub.Topics(slices.Repeat([]string{"a"}, 1001)...), AnyTopic: true}, false},
		"an ID that is no one": {hub.Message{To: hub.Topics("a"), ChosenID: "#1"}, false},
	} {
		if err := test.m.Check(); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUpdateHasItsFieldsInTheOrderOfTheProtocol(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	s := selecting(t, "a")
	s.Heartbeat = time.Hour
	c := h.Join(s)
	at := h.Position()
	urn := func() string { return h.Position().URN() }
	for _, test := range []struct {
		m    hub.Message
		want string
	}{
		{hub.Message{Data: []byte("x")}, "id: %s\ndata: x\n\n"},
		{hub.Message{}, "id: %s\ndata: \n\n"},
		{hub.Message{Event: "e", Data: []byte("1\n2\r3\r\n4")}, "event: e\nid: %s\ndata: 1\ndata: 2\ndata: 3\ndata: 4\n\n"},
		{hub.Message{Event: "retry: data: ", HasRetry: true, Retry: 5, ChosenID: "my id"}, "event: retry: data: \nretry: 5\nid: my id\ndata: \n\n"},
		{hub.Message{HasRetry: true, ChosenID: "a"}, "retry: 0\nid: a\ndata: \n\n"},
		{hub.Message{Ephemeral: true, Event: "e", Data: []byte("id: 7")}, "event: e\ndata: id: 7\n\n"},
	} {
		at.Position.Major++
		m := test.m
		m.To, m.Position = hub.Topics("a"), at.Position
		h.Deliver(&m)
		want := test.want
		if strings.Contains(want, "%s") {
			want = fmt.Sprintf(want, urn())
		}
		hubtest.Want(t, c.Blocks(), want)
	}
}

func TestUpdatesAreAllThatIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := selecting(t, "a")
		s.Heartbeat, s.Retry = time.Minute, 300*time.Millisecond
		c := h.Join(s)
		expiring := s
		expiring.Expires = time.Now().Add(90 * time.Second)
		e := h.Join(expiring)
		hubtest.Pause(61 * time.Second)
		hubtest.Want(t, c.Blocks(), ":\n")
		hubtest.Pause(31 * time.Second)
		hubtest.Want(t, e.Blocks(), ":\n", ":\n")
		if e.End() != hub.ErrExpired {
			t.Errorf("a client whose token has run out is ended by %v", e.End())
		}
		h.Drain()
		synctest.Wait()
		hubtest.Want(t, c.Blocks()[:1], ":\nretry: 300\n")
	})
}

func TestLossEndsTheStreamOrIsTold(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	c := h.Join(selecting(t, "a"))
	s := selecting(t, "a")
	s.GapEvents = true
	told := h.Join(s)
	h.Publish(hub.Topics("a"), "1")
	h.Switch(hub.Origin{Epoch: "another"}, "log_lost")
	h.Publish(hub.Topics("a"), "2")
	c.Want("1")
	if c.End() != hub.ErrLossy {
		t.Errorf("the stream of a client that has lost something is ended by %v", c.End())
	}
	told.Want("1", hubtest.Gap("log_lost"), "2")
	if told.End() != nil {
		t.Errorf("it is told, and ended by %v", told.End())
	}
	for range 2 { // a stream that does not take all at once
		slow := h.Join(selecting(t, "a"))
		slow.Block()
		h.Publish(hub.Topics("a"), "3")
		h.Switch(hub.Origin{Epoch: hub.NewEpoch()}, "log_lost")
		h.Publish(hub.Topics("a"), "4")
		slow.Let(1)
		slow.Want("3")
		slow.Open()
		slow.Want()
		if slow.End() != hub.ErrLossy {
			t.Errorf("the stream of a slow client is ended by %v", slow.End())
		}
	}
}

func TestCursorAheadOfAnInstanceIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		var end hub.Position
		var failure error
		asked := 0
		h.Switch(hub.Origin{Epoch: "e", Shared: true, Newest: func(context.Context) (hub.Position, error) {
			asked++
			return end, failure
		}}, "broker_changed")
		h.LogFound()
		await := func(cursor string) (waited time.Duration) {
			s := selecting(t, "a")
			s.LastEventID = cursor
			began := time.Now()
			h.Await(t.Context(), &s)
			return time.Since(began)
		}
		for i, cursor := range []string{"chosen", hub.ID{Epoch: "e", Position: hub.Position{Major: 2}}.URN()} {
			end.Major = uint64(i + 1)
			time.AfterFunc(time.Second, func() { publishAs(h, "a", "chosen", "x") })
			if waited := await(cursor); waited != time.Second {
				t.Errorf("for a message that comes in a second a client with %q waits %v", cursor, waited)
			}
			if waited := await(cursor); waited != 0 {
				t.Errorf("for a message that is there a client waits %v", waited)
			}
		}
		if asked != 1 {
			t.Errorf("the log was asked %d times", asked)
		}
		end = h.Position().Position
		if waited := await("unknown"); waited != 0 {
			t.Errorf("for an ID that the log does not have a client waits %v", waited)
		}
		if end.Major++; await("unknown") != 2*time.Second {
			t.Error("for a log that does not come a client does not wait two seconds")
		}
		if failure = errors.New("out of reach"); await("unknown") != 0 {
			t.Error("for a log that does not answer a client waits")
		}
		time.Sleep(time.Minute)
		asked, failure, end = 0, nil, h.Position().Position
		for range 1000 {
			await("unknown")
		}
		if asked != 50 {
			t.Errorf("in a second the log is asked %d times", asked)
		}
	})
}
