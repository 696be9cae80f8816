package hub_test

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

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestAClientGetsAMessageOnceHoweverManyOfItsAddressesItReaches(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	many := h.Listen(hubtest.With("a", "b", "room/7", "room/*", "room/**", "**"))
	one := h.Listen(hubtest.With("a"))
	none := h.Listen(hubtest.With("c"))
	if _, receivers := h.Publish(hub.Topics("a", "b", "room/7", "x/y"), "hi"); receivers != 2 {
		t.Errorf("the message counts %d receivers; want 2", receivers)
	}
	hubtest.Want(t, many.Texts(), "hi")
	hubtest.Want(t, one.Texts(), "hi")
	hubtest.Want(t, none.Texts())
	if _, receivers := h.Publish(hub.Topics("nobody"), "hi"); receivers != 1 {
		t.Errorf("a topic that one client's ** matches counts %d receivers; want 1", receivers)
	}
}

func TestMessagesReachTheirTargetAndNobodyElse(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	join := func(clientID, user string) *hubtest.Client {
		s := hubtest.With("topic")
		s.ClientID, s.User = clientID, user
		return h.Listen(s)
	}
	tab1, tab2, other, anonymous := join("c1", "alice"), join("c1", "alice"), join("c2", "alice"), join("c3", "")
	for _, test := range []struct {
		to      hub.Address
		reaches []*hubtest.Client
	}{
		{hub.Address{Kind: hub.ToClient, Name: "c1"}, []*hubtest.Client{tab1, tab2}},
		{hub.Address{Kind: hub.ToClient, Name: "c3"}, []*hubtest.Client{anonymous}},
		{hub.Address{Kind: hub.ToClient, Name: "topic"}, nil},
		{hub.Address{Kind: hub.ToUser, Name: "alice"}, []*hubtest.Client{tab1, tab2, other}},
		{hub.Address{Kind: hub.ToUser, Name: "c3"}, nil},
		{hub.Address{Kind: hub.ToUser, Name: ""}, nil},
		{hub.Address{Kind: hub.ToTopic, Name: "alice"}, nil},
		{hub.Address{Kind: hub.ToBroadcast}, []*hubtest.Client{tab1, tab2, other, anonymous}},
	} {
		if _, receivers := h.Publish([]hub.Address{test.to}, "hi"); receivers != len(test.reaches) {
			t.Errorf("to %v: %d receivers; want %d", test.to, receivers, len(test.reaches))
		}
		for i, l := range []*hubtest.Client{tab1, tab2, other, anonymous} {
			if got := len(l.Texts()) == 1; got != slices.Contains(test.reaches, l) {
				t.Errorf("to %v: reached client %d: %v", test.to, i, got)
			}
		}
	}
}

func TestAClientWithoutTopicsStillGetsWhatIsAddressedToIt(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	s := hubtest.With()
	s.ClientID, s.User = "c", "u"
	l := h.Listen(s)
	h.Publish(hub.Topics("a"), "topic")
	h.Publish([]hub.Address{{Kind: hub.ToClient, Name: "c"}}, "client")
	h.Publish([]hub.Address{{Kind: hub.ToUser, Name: "u"}}, "user")
	h.Publish([]hub.Address{{Kind: hub.ToBroadcast}}, "broadcast")
	hubtest.Want(t, l.Texts(), "client", "user", "broadcast")
}

func TestMessagesComeInTheHubsOrderWithGrowingIDs(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	l := h.Listen(hubtest.With("a", "b"))
	var ids []string
	for i := range 10 {
		id, _ := h.Publish(hub.Topics([]string{"a", "b"}[i%2]), strconv.Itoa(i))
		ids = append(ids, id)
	}
	for i, m := range l.TakeAll() {
		if e := hubtest.Decode(t, m); e.ID != ids[i] || string(e.Data) != strconv.Itoa(i) {
			t.Errorf("message %d has ID %s and data %s; published was %s", i, e.ID, e.Data, ids[i])
		}
	}
}

func TestAMessageIsEncodedOnceAndADeliveryAllocatesNothing(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	var clients []*hubtest.Client
	for range 1000 {
		clients = append(clients, h.Listen(hubtest.With("a")))
	}
	h.Publish(hub.Topics("a"), "hi")
	first := clients[0].TakeAll()[0]
	for _, l := range clients[1:] {
		if m := l.TakeAll()[0]; m != first {
			t.Fatal("clients have a message of their own")
		}
	}
	h.Apply(hub.Limits{}) // whose upkeep is not the delivery's
	message := hub.Message{To: hub.Topics("a"), Ephemeral: true, Data: []byte("hi")}
	batch := make([]*hub.Message, 0, 10)
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
	h := hubtest.New(t, hubtest.Plenty)
	l := h.Listen(hubtest.With("a"))
	h.Publish(hub.Topics("a"), "1")
	h.PublishEphemeral(hub.Topics("a"), "tick")
	last, _ := h.Publish(hub.Topics("a"), "2")
	batch := l.TakeAll()
	hubtest.Want(t, hubtest.TextsOf(t, batch), "1", "tick", "2")
	if e := hubtest.Decode(t, batch[1]); e.ID != "" {
		t.Errorf("an ephemeral message came with ID %s", e.ID)
	}
	h.PublishEphemeral(hub.Topics("a"), "tock")
	if got := h.Position().String(); got != last {
		t.Errorf("an ephemeral message moved the log from %s to %s", last, got)
	}
	hubtest.Want(t, h.Enter(hubtest.Returning(hubtest.With("a"), l.ID)).Texts(), "1", "2")
}

func TestAFullHubTakesNoMoreClients(t *testing.T) {
	h := hubtest.New(t, hub.Limits{MaxClients: 2})
	first := h.Listen(hubtest.With("a"))
	h.Listen(hubtest.With("a"))
	if _, err := h.TryEnter(hubtest.With("a")); !errors.Is(err, hub.ErrHubFull) {
		t.Errorf("the third of two clients got %v", err)
	}
	first.Leave()
	h.Listen(hubtest.With("a"))
	if n, _ := h.Size(); n != 2 {
		t.Errorf("the hub counts %d clients; want 2", n)
	}
	h.Apply(hub.Limits{MaxClients: 1}) // those who are there stay
	if _, err := h.TryEnter(hubtest.With("a")); !errors.Is(err, hub.ErrHubFull) {
		t.Errorf("after the limit was lowered a client got %v", err)
	}
	if _, receivers := h.Publish(hub.Topics("a"), "hi"); receivers != 2 {
		t.Errorf("after the limit was lowered %d clients are left; want 2", receivers)
	}
	h.Apply(hub.Limits{})
	h.Listen(hubtest.With("a"))
}

func TestOneSourceMayHaveSoManyClients(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	from := func(source string) hub.Subscription {
		s := hubtest.With("a")
		s.MaxPerSource = 2
		if source != "" {
			s.Source = netip.MustParsePrefix(source)
		}
		return s
	}
	first := h.Listen(from("192.0.2.1/32"))
	h.Listen(from("192.0.2.1/32"))
	if _, err := h.TryEnter(from("192.0.2.1/32")); !errors.Is(err, hub.ErrTooManyFromHere) {
		t.Errorf("the third of two clients got %v", err)
	}
	h.Listen(from("192.0.2.2/32"))
	for range 3 {
		h.Listen(from("")) // comes from nowhere: not counted
	}
	unlimited := from("192.0.2.1/32")
	unlimited.MaxPerSource = 0
	h.Listen(unlimited).Leave()
	if _, err := h.TryEnter(from("192.0.2.1/32")); !errors.Is(err, hub.ErrTooManyFromHere) {
		t.Errorf("the third of two clients got %v", err)
	}
	first.Leave()
	h.Listen(from("192.0.2.1/32"))
}

func TestARefusedClientChangesNothing(t *testing.T) {
	h := hubtest.New(t, hub.Limits{MaxClients: 1})
	anonymous := hubtest.With("a")
	anonymous.ClientID = "c"
	l := h.Listen(anonymous)
	claim := anonymous
	claim.User = "alice"
	if _, err := h.TryEnter(claim); !errors.Is(err, hub.ErrHubFull) {
		t.Fatalf("the full hub answered %v", err)
	}
	h.Publish(hub.Topics("a"), "hi")
	hubtest.Want(t, l.Texts(), "hi")
	if l.End != nil {
		t.Errorf("a client was ended (%v) by one that was refused", l.End)
	}
}

func TestAUsersClientIDIsRefusedToOthersWhileItIsConnected(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	alice := h.Listen(hubtest.As("c", "alice"))
	h.Listen(hubtest.As("c", "alice")).Leave() // another tab
	for _, user := range []string{"", "bob"} {
		if _, err := h.TryEnter(hubtest.As("c", user)); !errors.Is(err, hub.ErrClientIDOwned) {
			t.Errorf("user %q got alice's client_id: %v", user, err)
		}
	}
	h.Listen(hubtest.As("d", "bob"))
	alice.Leave() // nothing is left of it
	bob := h.Listen(hubtest.As("c", "bob"))
	if _, err := h.TryEnter(hubtest.As("c", "alice")); !errors.Is(err, hub.ErrClientIDOwned) {
		t.Errorf("alice got bob's client_id: %v", err)
	}
	bob.Leave()
}

func TestAUsersClientIDIsRefusedToOthersWhileMessagesAreKeptForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 10, Age: time.Hour}})
		h.Listen(hubtest.As("c", "alice")).Leave()
		h.Publish([]hub.Address{{Kind: hub.ToClient, Name: "c"}}, "secret")
		hubtest.Pause(59 * time.Minute)
		for _, user := range []string{"", "bob"} {
			if _, err := h.TryEnter(hubtest.As("c", user)); !errors.Is(err, hub.ErrClientIDOwned) {
				t.Errorf("user %q may read alice's messages: %v", user, err)
			}
		}
		h.Listen(hubtest.As("c", "alice")).Leave()
		hubtest.Pause(2 * time.Minute)
		hubtest.Want(t, h.Listen(hubtest.As("c", "bob")).Texts())
	})
}

func TestAFreedClientIDIsAnybodysAgain(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	h.Listen(hubtest.As("c", "alice")).Leave()
	h.Listen(hubtest.As("c", ""))
	h.Listen(hubtest.As("c", "")) // a second tab of the same stranger
	bob := h.Listen(hubtest.As("c", "bob"))
	if _, err := h.TryEnter(hubtest.As("c", "alice")); !errors.Is(err, hub.ErrClientIDOwned) {
		t.Errorf("alice, who had left, got bob's client_id: %v", err)
	}
	bob.Leave()
}

func TestAUserWhoClaimsAClientIDEndsItsAnonymousConnections(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	first, second, other := h.Listen(hubtest.As("c", "")), h.Listen(hubtest.As("c", "")), h.Listen(hubtest.As("d", ""))
	h.Publish(hub.Topics("a"), "before")
	alice := h.Listen(hubtest.As("c", "alice"))
	if _, receivers := h.Publish([]hub.Address{{Kind: hub.ToClient, Name: "c"}}, "for alice"); receivers != 1 {
		t.Errorf("the message counts %d receivers; want 1", receivers)
	}
	hubtest.Want(t, first.Texts(), "before")
	hubtest.Want(t, second.Texts(), "before")
	hubtest.Want(t, []error{first.End, second.End, other.End}, hub.ErrClaimed, hub.ErrClaimed, nil)
	hubtest.Want(t, alice.Texts(), "for alice")
	if cause := first.Leave(); cause != hub.ErrClaimed {
		t.Errorf("the connection is said to have ended for %q", cause)
	}
	if _, err := h.TryEnter(hubtest.As("c", "")); !errors.Is(err, hub.ErrClientIDOwned) {
		t.Errorf("who comes back without being alice got %v", err)
	}
}

func TestAClientThatIsClosedIsToldAndBarredForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		first, second, other := h.Listen(hubtest.As("c", "alice")), h.Listen(hubtest.As("c", "alice")), h.Listen(hubtest.As("d", "alice"))
		h.Publish(hub.Topics("a"), "before")
		if n := h.Kick("c"); n != 2 {
			t.Errorf("%d connections were closed; want 2", n)
		}
		for _, l := range []*hubtest.Client{first, second} {
			hubtest.Want(t, l.Texts(), "before", `closed {"status":"closed"}`)
			hubtest.Want(t, []error{l.End, l.Leave()}, hub.ErrKicked, hub.ErrKicked)
		}
		hubtest.Want(t, other.Texts(), "before")
		hubtest.Want(t, []error{other.End}, nil)
		hubtest.Pause(time.Minute - 1)
		if _, err := h.TryEnter(hubtest.As("c", "alice")); !errors.Is(err, hub.ErrClientIDBarred) {
			t.Errorf("a client that was closed a moment ago got %v", err)
		}
		hubtest.Pause(1)
		h.Listen(hubtest.As("c", "alice"))
		if n := h.Kick("nobody"); n != 0 {
			t.Errorf("%d connections of nobody were closed", n)
		}
	})
}

func TestOwnersAndOldMessagesAreForgottenInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 10, Age: time.Hour}})
		for i := range 100 {
			h.Listen(hubtest.As(fmt.Sprint("c", i), "alice")).Leave()
			h.Publish([]hub.Address{{Kind: hub.ToClient, Name: fmt.Sprint("c", i)}}, "hi")
		}
		h.Kick("x")
		hubtest.Pause(time.Hour + 2*hub.SweepInterval)
		_, bytes := h.Size()
		if owners, logs, barred := h.Leftovers(); owners != 0 || logs != 0 || bytes != 0 || barred != 0 {
			t.Errorf("an hour later the hub holds %d owners, %d logs, %d bytes and %d barred client_ids",
				owners, logs, bytes, barred)
		}
	})
}

func TestDrainTellsEachClientItsOwnRetryThenGivesWhatWaitsThenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hubtest.Plenty.History, DrainSpread: 5 * time.Second})
		s := hubtest.With("a")
		s.Retry = 2 * time.Second
		var clients []*hubtest.Client
		for range 200 {
			clients = append(clients, h.Listen(s))
		}
		h.Publish(hub.Topics("a"), "acknowledged")
		for _, l := range clients[:50] {
			hubtest.Want(t, l.Texts(), "acknowledged") // these have nothing waiting any more
		}
		h.Drain()
		h.Drain() // as every route of the hub does
		if _, err := h.TryEnter(s); !errors.Is(err, hub.ErrDraining) {
			t.Errorf("a draining hub answered a new client %v", err)
		}
		told := make(map[int]bool)
		for i, l := range clients {
			got := l.Texts()
			if l.End != hub.ErrDraining || len(got) == 0 {
				t.Fatalf("client %d got %v and ended for %v", i, got, l.End)
			}
			retry, _ := strconv.Atoi(strings.TrimPrefix(got[0], "retry "))
			if retry < 2000 || retry > 7000 {
				t.Errorf("client %d was told %q; want between 2 and 7 s", i, got[0])
			}
			told[retry] = true
			if i >= 50 {
				hubtest.Want(t, got[1:], "acknowledged")
			} else {
				hubtest.Want(t, got[1:])
			}
		}
		if len(told) < 150 {
			t.Errorf("200 clients were told %d different delays", len(told))
		}
		if cause := context.Cause(h.Context()); cause != hub.ErrDraining {
			t.Errorf("the hub's context ended for %v", cause)
		}
	})
}

func TestDrainsRetryCountsWhateverWaitingMessagesTell(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	start := h.Position().String()
	s := hubtest.With("a")
	s.Retry = time.Second
	l := h.Listen(s)
	catchingUp := hubtest.Returning(s, start)
	catchingUp.Queue = 1
	h.Deliver(&hub.Message{To: hub.Topics("a"), Data: []byte("later"), Retry: 60_000, HasRetry: true, Position: hub.Position{Major: 1}})
	behind := h.Enter(catchingUp)
	h.Publish(hub.Topics("a"), "now")
	h.Drain()
	hubtest.Want(t, l.Texts(), "retry 1000", "later", "now", "retry 1000")
	hubtest.Want(t, behind.Texts(), "retry 1000", "later", "retry 1000", "now")
}

func TestWithoutSpreadDrainTellsTheRetryItself(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	s := hubtest.With("a")
	s.Retry = 1500 * time.Millisecond
	l := h.Listen(s)
	h.Drain()
	hubtest.Want(t, l.Texts(), "retry 1500")
}

func TestDrainGivesAClientThatIsCatchingUpAllThatWasAcknowledged(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	start := h.Position().String()
	h.PublishAll("a", 1, 1000)
	s := hubtest.Returning(hubtest.With("a"), start)
	s.Queue = 10
	l := h.Enter(s)
	hubtest.Want(t, hubtest.TextsOf(t, l.Turn()), hubtest.Numbers(1, 10)...)
	h.PublishAll("a", 1001, 1500)
	h.PublishEphemeral(hub.Topics("a"), "tick")
	h.Drain()
	got := l.Texts()
	hubtest.Want(t, got[:1], "retry 0")
	hubtest.Want(t, got[1:], append(hubtest.Numbers(11, 1500), "tick")...)
	hubtest.Want(t, []error{l.End}, hub.ErrDraining)
}

func TestCloseEndsEveryClientOnceItHasWhatWaits(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	a, b := h.Listen(hubtest.With("a")), h.Listen(hubtest.With("b"))
	h.Publish(hub.Topics("a"), "last words")
	h.Close()
	hubtest.Want(t, a.Texts(), "last words")
	hubtest.Want(t, b.Texts())
	hubtest.Want(t, []error{a.End, b.End}, hub.ErrHubClosed, hub.ErrHubClosed)
	if _, err := h.TryEnter(hubtest.With("a")); !errors.Is(err, hub.ErrHubClosed) {
		t.Errorf("a closed hub answered a new client %v", err)
	}
	if cause := context.Cause(h.Context()); cause != hub.ErrHubClosed {
		t.Errorf("the hub's context ended for %v", cause)
	}
	if _, receivers := h.Publish(hub.Topics("a"), "too late"); receivers != 0 {
		t.Errorf("%d clients were to get a message after their end", receivers)
	}
}

func TestAbortCutsWhoIsStillThere(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	gone, waiting, blocked := h.Listen(hubtest.With("a")), h.Listen(hubtest.With("b")), h.Listen(hubtest.With("c"))
	gone.Leave()
	h.Drain()
	hubtest.Want(t, hubtest.TextsOf(t, blocked.Turn()), "retry 0")
	blocked.Stalled.Store(true)
	h.AbortBlocked()
	hubtest.Want(t, []int64{gone.Aborted.Load(), waiting.Aborted.Load(), blocked.Aborted.Load()}, 0, 0, 1)
	h.Abort()
	hubtest.Want(t, []int64{gone.Aborted.Load(), waiting.Aborted.Load(), blocked.Aborted.Load()}, 0, 1, 2)
}

// Everything a hub can be asked, at the same time and at random: nothing hangs, nothing races, and
// the accounts are even in the end.
func TestAHubSurvivesEverythingAtOnce(t *testing.T) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 50, Bytes: 5000}})
	var play hubtest.Traffic
	for range 4 {
		play.GoLoop(150, func(random *rand.Rand) {
			s := hubtest.With("a", "b", "*")
			s.ClientID, s.Queue, s.QueueBytes = fmt.Sprint(random.IntN(5)), 1+random.IntN(20), 1+random.IntN(500)
			s.Heartbeat, s.SlowClient = time.Millisecond, []hub.SlowClient{hub.Disconnect, hub.DropOldest}[random.IntN(2)]
			s.LastEventID = []string{"", "?", h.Position().String()}[random.IntN(3)]
			s.User = []string{"", "", "alice"}[random.IntN(3)]
			p := hubtest.NewPlayer()
			p.Stalled, p.CutAfter = random.IntN(10) == 0, random.IntN(100)
			c, _, err := h.Join(s, p)
			if err == nil {
				h.Leave(c, p.Run(c))
			}
		})
		play.GoLoop(500, func(random *rand.Rand) {
			to := append(hub.Topics("a", "b")[random.IntN(2):], hub.Address{Kind: hub.ToClient, Name: fmt.Sprint(random.IntN(5))})
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(3))*time.Millisecond)
			defer cancel()
			m := &hub.Message{To: to, Ephemeral: random.IntN(3) == 0, Data: make([]byte, random.IntN(100))}
			h.Post(ctx, m)
		})
	}
	play.GoLoop(20, func(random *rand.Rand) {
		h.Apply(hub.Limits{History: hub.HistoryLimits{Count: random.IntN(50)}, MaxClients: random.IntN(10)})
		h.Listening(random.IntN(2) == 0)
		h.Sweep()
		time.Sleep(time.Millisecond)
	})
	if !hubtest.ReturnsSoon(play.Wait) {
		t.Fatal("somebody waits for ever")
	}
}
