package sse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAClientGetsAMessageOnceHoweverManyOfItsAddressesItReaches(t *testing.T) {
	h := newTestHub(t, plenty)
	many := h.join(with("a", "b", "room/7", "room/*", "room/**", "**"))
	one := h.join(with("a"))
	none := h.join(with("c"))
	if _, receivers := h.publish(Topics("a", "b", "room/7", "x/y"), "hi"); receivers != 2 {
		t.Errorf("the message counts %d receivers; want 2", receivers)
	}
	want(t, many.texts(), "hi")
	want(t, one.texts(), "hi")
	want(t, none.texts())
	if _, receivers := h.publish(Topics("nobody"), "hi"); receivers != 1 {
		t.Errorf("a topic that one client's ** matches counts %d receivers; want 1", receivers)
	}
}

func TestMessagesReachTheirTargetAndNobodyElse(t *testing.T) {
	h := newTestHub(t, plenty)
	join := func(clientID, user string) *testClient {
		s := with("topic")
		s.ClientID, s.User = clientID, user
		return h.join(s)
	}
	tab1, tab2, other, anonymous := join("c1", "alice"), join("c1", "alice"), join("c2", "alice"), join("c3", "")
	for _, test := range []struct {
		to      Address
		reaches []*testClient
	}{
		{Address{ToClient, "c1"}, []*testClient{tab1, tab2}},
		{Address{ToClient, "c3"}, []*testClient{anonymous}},
		{Address{ToClient, "topic"}, nil},
		{Address{ToUser, "alice"}, []*testClient{tab1, tab2, other}},
		{Address{ToUser, "c3"}, nil},
		{Address{ToUser, ""}, nil},
		{Address{ToTopic, "alice"}, nil},
		{Address{Kind: ToBroadcast}, []*testClient{tab1, tab2, other, anonymous}},
	} {
		if _, receivers := h.publish([]Address{test.to}, "hi"); receivers != len(test.reaches) {
			t.Errorf("to %v: %d receivers; want %d", test.to, receivers, len(test.reaches))
		}
		for i, l := range []*testClient{tab1, tab2, other, anonymous} {
			if got := len(l.texts()) == 1; got != slices.Contains(test.reaches, l) {
				t.Errorf("to %v: reached client %d: %v", test.to, i, got)
			}
		}
	}
}

func TestAClientWithoutTopicsStillGetsWhatIsAddressedToIt(t *testing.T) {
	h := newTestHub(t, plenty)
	s := with()
	s.ClientID, s.User = "c", "u"
	l := h.join(s)
	h.publish(Topics("a"), "topic")
	h.publish([]Address{{ToClient, "c"}}, "client")
	h.publish([]Address{{ToUser, "u"}}, "user")
	h.publish([]Address{{Kind: ToBroadcast}}, "broadcast")
	want(t, l.texts(), "client", "user", "broadcast")
}

func TestMessagesComeInTheHubsOrderWithGrowingIDs(t *testing.T) {
	h := newTestHub(t, plenty)
	l := h.join(with("a", "b"))
	var ids []string
	for i := range 10 {
		id, _ := h.publish(Topics([]string{"a", "b"}[i%2]), strconv.Itoa(i))
		ids = append(ids, id)
	}
	for i, m := range l.takeAll() {
		if e := decode(t, m); e.ID != ids[i] || string(e.Data) != strconv.Itoa(i) {
			t.Errorf("message %d has ID %s and data %s; published was %s", i, e.ID, e.Data, ids[i])
		}
	}
}

func TestAMessageIsEncodedOnceAndADeliveryAllocatesNothing(t *testing.T) {
	h := newTestHub(t, plenty)
	var clients []*testClient
	for range 1000 {
		clients = append(clients, h.join(with("a")))
	}
	h.publish(Topics("a"), "hi")
	first := clients[0].takeAll()[0]
	for _, l := range clients[1:] {
		if m := l.takeAll()[0]; m != first {
			t.Fatal("clients have a message of their own")
		}
	}
	h.Apply(Limits{}) // whose upkeep is not the delivery's
	message := Message{To: Topics("a"), Ephemeral: true, Data: []byte("hi")}
	batch := make([]*Message, 0, 10)
	perMessage := testing.AllocsPerRun(100, func() {
		m := message
		h.Deliver(&m)
		for _, l := range clients {
			for n := 1; n > 0; {
				batch, _ = l.Take(batch[:0])
				n = len(batch)
			}
		}
	})
	if perMessage > 10 {
		t.Errorf("a message to 1000 clients takes %v allocations", perMessage)
	}
}

func TestEphemeralMessagesHaveNoIDAndAreNotReplayed(t *testing.T) {
	h := newTestHub(t, plenty)
	l := h.join(with("a"))
	h.publish(Topics("a"), "1")
	h.publishEphemeral(Topics("a"), "tick")
	last, _ := h.publish(Topics("a"), "2")
	batch := l.takeAll()
	want(t, textsOf(t, batch), "1", "tick", "2")
	if e := decode(t, batch[1]); e.ID != "" {
		t.Errorf("an ephemeral message came with ID %s", e.ID)
	}
	h.publishEphemeral(Topics("a"), "tock")
	if got := h.Position().String(); got != last {
		t.Errorf("an ephemeral message moved the log from %s to %s", last, got)
	}
	want(t, h.enter(returning(with("a"), l.ID)).texts(), "1", "2")
}

func TestAFullHubTakesNoMoreClients(t *testing.T) {
	h := newTestHub(t, Limits{MaxClients: 2})
	first := h.join(with("a"))
	h.join(with("a"))
	if _, err := h.tryEnter(with("a")); !errors.Is(err, ErrHubFull) {
		t.Errorf("the third of two clients got %v", err)
	}
	first.leave()
	h.join(with("a"))
	if n, _ := h.Size(); n != 2 {
		t.Errorf("the hub counts %d clients; want 2", n)
	}
	h.Apply(Limits{MaxClients: 1}) // those who are there stay
	if _, err := h.tryEnter(with("a")); !errors.Is(err, ErrHubFull) {
		t.Errorf("after the limit was lowered a client got %v", err)
	}
	if _, receivers := h.publish(Topics("a"), "hi"); receivers != 2 {
		t.Errorf("after the limit was lowered %d clients are left; want 2", receivers)
	}
	h.Apply(Limits{})
	h.join(with("a"))
}

func TestOneSourceMayHaveSoManyClients(t *testing.T) {
	h := newTestHub(t, plenty)
	from := func(source string) Subscription {
		s := with("a")
		s.MaxPerSource = 2
		if source != "" {
			s.Source = netip.MustParsePrefix(source)
		}
		return s
	}
	first := h.join(from("192.0.2.1/32"))
	h.join(from("192.0.2.1/32"))
	if _, err := h.tryEnter(from("192.0.2.1/32")); !errors.Is(err, ErrTooManyFromHere) {
		t.Errorf("the third of two clients got %v", err)
	}
	h.join(from("192.0.2.2/32"))
	for range 3 {
		h.join(from("")) // comes from nowhere: not counted
	}
	unlimited := from("192.0.2.1/32")
	unlimited.MaxPerSource = 0
	h.join(unlimited).leave()
	if _, err := h.tryEnter(from("192.0.2.1/32")); !errors.Is(err, ErrTooManyFromHere) {
		t.Errorf("the third of two clients got %v", err)
	}
	first.leave()
	h.join(from("192.0.2.1/32"))
}

func TestARefusedClientChangesNothing(t *testing.T) {
	h := newTestHub(t, Limits{MaxClients: 1})
	anonymous := with("a")
	anonymous.ClientID = "c"
	l := h.join(anonymous)
	claim := anonymous
	claim.User = "alice"
	if _, err := h.tryEnter(claim); !errors.Is(err, ErrHubFull) {
		t.Fatalf("the full hub answered %v", err)
	}
	h.publish(Topics("a"), "hi")
	want(t, l.texts(), "hi")
	if l.end != nil {
		t.Errorf("a client was ended (%v) by one that was refused", l.end)
	}
}

// as returns the subscription of a user, or of nobody, under a client_id.
func as(clientID, user string) Subscription {
	s := with("a")
	s.ClientID, s.User = clientID, user
	return s
}

func TestAUsersClientIDIsRefusedToOthersWhileItIsConnected(t *testing.T) {
	h := newTestHub(t, plenty)
	alice := h.join(as("c", "alice"))
	h.join(as("c", "alice")).leave() // another tab
	for _, user := range []string{"", "bob"} {
		if _, err := h.tryEnter(as("c", user)); !errors.Is(err, ErrClientIDOwned) {
			t.Errorf("user %q got alice's client_id: %v", user, err)
		}
	}
	h.join(as("d", "bob"))
	alice.leave() // nothing is left of it
	bob := h.join(as("c", "bob"))
	if _, err := h.tryEnter(as("c", "alice")); !errors.Is(err, ErrClientIDOwned) {
		t.Errorf("alice got bob's client_id: %v", err)
	}
	bob.leave()
}

func TestAUsersClientIDIsRefusedToOthersWhileMessagesAreKeptForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, Limits{History: HistoryLimits{Count: 10, Age: time.Hour}})
		h.join(as("c", "alice")).leave()
		h.publish([]Address{{ToClient, "c"}}, "secret")
		pause(59 * time.Minute)
		for _, user := range []string{"", "bob"} {
			if _, err := h.tryEnter(as("c", user)); !errors.Is(err, ErrClientIDOwned) {
				t.Errorf("user %q may read alice's messages: %v", user, err)
			}
		}
		h.join(as("c", "alice")).leave()
		pause(2 * time.Minute)
		want(t, h.join(as("c", "bob")).texts())
	})
}

func TestAFreedClientIDIsAnybodysAgain(t *testing.T) {
	h := newTestHub(t, plenty)
	h.join(as("c", "alice")).leave()
	h.join(as("c", ""))
	h.join(as("c", "")) // a second tab of the same stranger
	bob := h.join(as("c", "bob"))
	if _, err := h.tryEnter(as("c", "alice")); !errors.Is(err, ErrClientIDOwned) {
		t.Errorf("alice, who had left, got bob's client_id: %v", err)
	}
	bob.leave()
}

func TestAUserWhoClaimsAClientIDEndsItsAnonymousConnections(t *testing.T) {
	h := newTestHub(t, plenty)
	first, second, other := h.join(as("c", "")), h.join(as("c", "")), h.join(as("d", ""))
	h.publish(Topics("a"), "before")
	alice := h.join(as("c", "alice"))
	if _, receivers := h.publish([]Address{{ToClient, "c"}}, "for alice"); receivers != 1 {
		t.Errorf("the message counts %d receivers; want 1", receivers)
	}
	want(t, first.texts(), "before")
	want(t, second.texts(), "before")
	want(t, []error{first.end, second.end, other.end}, ErrClaimed, ErrClaimed, nil)
	want(t, alice.texts(), "for alice")
	if cause := first.leave(); cause != ErrClaimed {
		t.Errorf("the connection is said to have ended for %q", cause)
	}
	if _, err := h.tryEnter(as("c", "")); !errors.Is(err, ErrClientIDOwned) {
		t.Errorf("who comes back without being alice got %v", err)
	}
}

func TestAClientThatIsClosedIsToldAndBarredForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		first, second, other := h.join(as("c", "alice")), h.join(as("c", "alice")), h.join(as("d", "alice"))
		h.publish(Topics("a"), "before")
		if n := h.Kick("c"); n != 2 {
			t.Errorf("%d connections were closed; want 2", n)
		}
		for _, l := range []*testClient{first, second} {
			want(t, l.texts(), "before", `closed {"status":"closed"}`)
			want(t, []error{l.end, l.leave()}, ErrKicked, ErrKicked)
		}
		want(t, other.texts(), "before")
		want(t, []error{other.end}, nil)
		pause(time.Minute - 1)
		if _, err := h.tryEnter(as("c", "alice")); !errors.Is(err, ErrClientIDBarred) {
			t.Errorf("a client that was closed a moment ago got %v", err)
		}
		pause(1)
		h.join(as("c", "alice"))
		if n := h.Kick("nobody"); n != 0 {
			t.Errorf("%d connections of nobody were closed", n)
		}
	})
}

func TestOwnersAndOldMessagesAreForgottenInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, Limits{History: HistoryLimits{Count: 10, Age: time.Hour}})
		for i := range 100 {
			h.join(as(fmt.Sprint("c", i), "alice")).leave()
			h.publish([]Address{{ToClient, fmt.Sprint("c", i)}}, "hi")
		}
		h.Kick("x")
		pause(time.Hour + 2*sweepInterval)
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.owners) != 0 || len(h.history.logs) != 0 || h.history.bytes != 0 || len(h.barred) != 0 {
			t.Errorf("an hour later the hub holds %d owners, %d logs, %d bytes and %d barred client_ids",
				len(h.owners), len(h.history.logs), h.history.bytes, len(h.barred))
		}
	})
}

func TestDrainTellsEachClientItsOwnRetryThenGivesWhatWaitsThenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, Limits{History: plenty.History, DrainSpread: 5 * time.Second})
		s := with("a")
		s.Retry = 2 * time.Second
		var clients []*testClient
		for range 200 {
			clients = append(clients, h.join(s))
		}
		h.publish(Topics("a"), "acknowledged")
		for _, l := range clients[:50] {
			want(t, l.texts(), "acknowledged") // these have nothing waiting any more
		}
		h.Drain()
		h.Drain() // as every route of the hub does
		if _, err := h.tryEnter(s); !errors.Is(err, ErrDraining) {
			t.Errorf("a draining hub answered a new client %v", err)
		}
		told := make(map[int]bool)
		for i, l := range clients {
			got := l.texts()
			if l.end != ErrDraining || len(got) == 0 {
				t.Fatalf("client %d got %v and ended for %v", i, got, l.end)
			}
			retry, _ := strconv.Atoi(strings.TrimPrefix(got[0], "retry "))
			if retry < 2000 || retry > 7000 {
				t.Errorf("client %d was told %q; want between 2 and 7 s", i, got[0])
			}
			told[retry] = true
			if i >= 50 {
				want(t, got[1:], "acknowledged")
			} else {
				want(t, got[1:])
			}
		}
		if len(told) < 150 {
			t.Errorf("200 clients were told %d different delays", len(told))
		}
		if cause := context.Cause(h.Context()); cause != ErrDraining {
			t.Errorf("the hub's context ended for %v", cause)
		}
	})
}

func TestDrainsRetryCountsWhateverWaitingMessagesTell(t *testing.T) {
	h := newTestHub(t, plenty)
	start := h.Position().String()
	s := with("a")
	s.Retry = time.Second
	l := h.join(s)
	catchingUp := returning(s, start)
	catchingUp.Queue = 1
	h.Deliver(&Message{To: Topics("a"), Data: []byte("later"), Retry: 60_000, HasRetry: true, Position: Position{Major: 1}})
	behind := h.enter(catchingUp)
	h.publish(Topics("a"), "now")
	h.Drain()
	want(t, l.texts(), "retry 1000", "later", "now", "retry 1000")
	want(t, behind.texts(), "retry 1000", "later", "retry 1000", "now")
}

func TestWithoutSpreadDrainTellsTheRetryItself(t *testing.T) {
	h := newTestHub(t, plenty)
	s := with("a")
	s.Retry = 1500 * time.Millisecond
	l := h.join(s)
	h.Drain()
	want(t, l.texts(), "retry 1500")
}

func TestDrainGivesAClientThatIsCatchingUpAllThatWasAcknowledged(t *testing.T) {
	h := newTestHub(t, plenty)
	start := h.Position().String()
	h.publishAll("a", 1, 1000)
	s := returning(with("a"), start)
	s.Queue = 10
	l := h.enter(s)
	want(t, textsOf(t, l.take()), numbers(1, 10)...)
	h.publishAll("a", 1001, 1500)
	h.publishEphemeral(Topics("a"), "tick")
	h.Drain()
	got := l.texts()
	want(t, got[:1], "retry 0")
	want(t, got[1:], append(numbers(11, 1500), "tick")...)
	want(t, []error{l.end}, ErrDraining)
}

func TestCloseEndsEveryClientOnceItHasWhatWaits(t *testing.T) {
	h := newTestHub(t, plenty)
	a, b := h.join(with("a")), h.join(with("b"))
	h.publish(Topics("a"), "last words")
	h.Close()
	want(t, a.texts(), "last words")
	want(t, b.texts())
	want(t, []error{a.end, b.end}, ErrHubClosed, ErrHubClosed)
	if _, err := h.tryEnter(with("a")); !errors.Is(err, ErrHubClosed) {
		t.Errorf("a closed hub answered a new client %v", err)
	}
	if cause := context.Cause(h.Context()); cause != ErrHubClosed {
		t.Errorf("the hub's context ended for %v", cause)
	}
	if _, receivers := h.publish(Topics("a"), "too late"); receivers != 0 {
		t.Errorf("%d clients were to get a message after their end", receivers)
	}
}

func TestAbortCutsWhoIsStillThere(t *testing.T) {
	h := newTestHub(t, plenty)
	gone, waiting, blocked := h.join(with("a")), h.join(with("b")), h.join(with("c"))
	gone.leave()
	h.Drain()
	want(t, textsOf(t, blocked.take()), "retry 0")
	blocked.blocked.Store(true)
	h.AbortBlocked()
	want(t, []int64{gone.aborts.Load(), waiting.aborts.Load(), blocked.aborts.Load()}, 0, 0, 1)
	h.Abort()
	want(t, []int64{gone.aborts.Load(), waiting.aborts.Load(), blocked.aborts.Load()}, 0, 1, 2)
}

// Everything a hub can be asked, at the same time and at random: nothing hangs, nothing races, and
// the accounts are even in the end.
func TestAHubSurvivesEverythingAtOnce(t *testing.T) {
	h := newTestHub(t, Limits{History: HistoryLimits{Count: 50, Bytes: 5000}})
	var play traffic
	for range 4 {
		play.goLoop(150, func(random *rand.Rand) {
			s := with("a", "b", "*")
			s.ClientID, s.Queue, s.QueueBytes = fmt.Sprint(random.IntN(5)), 1+random.IntN(20), 1+random.IntN(500)
			s.Heartbeat, s.SlowClient = time.Millisecond, []SlowClient{Disconnect, DropOldest}[random.IntN(2)]
			s.LastEventID = []string{"", "?", h.Position().String()}[random.IntN(3)]
			s.User = []string{"", "", "alice"}[random.IntN(3)]
			p := newPlayer()
			p.blocked, p.cutAfter = random.IntN(10) == 0, random.IntN(100)
			c, _, err := h.Join(s, p)
			if err == nil {
				h.Leave(c, p.run(c))
			}
		})
		play.goLoop(500, func(random *rand.Rand) {
			to := append(Topics("a", "b")[random.IntN(2):], Address{ToClient, fmt.Sprint(random.IntN(5))})
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(3))*time.Millisecond)
			defer cancel()
			m := &Message{To: to, Ephemeral: random.IntN(3) == 0, Data: make([]byte, random.IntN(100))}
			h.post(ctx, m)
		})
	}
	play.goLoop(20, func(random *rand.Rand) {
		h.Apply(Limits{History: HistoryLimits{Count: random.IntN(50)}, MaxClients: random.IntN(10)})
		h.Listening(random.IntN(2) == 0)
		h.sweep()
		time.Sleep(time.Millisecond)
	})
	if !returnsSoon(play.Wait) {
		t.Fatal("somebody waits for ever")
	}
}
