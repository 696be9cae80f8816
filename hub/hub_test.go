package hub_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// to returns the address of one client, user or everybody.
func to(kind hub.Kind, name string) []hub.Address { return []hub.Address{{Kind: kind, Name: name}} }

// onShards runs a test on a hub with so many shards.
func onShards(t *testing.T, shards int, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(shards + 1)) // publishers have one
	bubble(t, f)
}

func TestAClientGetsAMessageOnceHoweverManyOfItsAddressesItReaches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		many := h.Join(hubtest.With("a", "b", "room/7", "room/*", "room/**", "**"))
		one := h.Join(hubtest.With("a"))
		none := h.Join(hubtest.With("c"))
		h.Publish(hub.Topics("a", "b", "room/7", "x/y"), "hi")
		many.Want("hi")
		one.Want("hi")
		none.Want()
		if _, receivers := h.Publish(hub.Topics("nobody"), "hi"); receivers != 1 {
			t.Errorf("a topic that one client's ** matches counts %d receivers; want 1", receivers)
		}
	})
}

func TestMessagesReachTheirTargetAndNobodyElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		join := func(clientID, user string) *hubtest.Client {
			s := hubtest.With("topic")
			s.ClientID, s.User = clientID, user
			return h.Join(s)
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
			{hub.Address{Kind: hub.ToUser}, nil},
			{hub.Address{Kind: hub.ToTopic, Name: "alice"}, nil},
			{hub.Address{Kind: hub.ToBroadcast}, []*hubtest.Client{tab1, tab2, other, anonymous}},
		} {
			if _, receivers := h.Publish([]hub.Address{test.to}, "hi"); receivers != len(test.reaches) {
				t.Errorf("to %v: %d receivers; want %d", test.to, receivers, len(test.reaches))
			}
			for i, c := range []*hubtest.Client{tab1, tab2, other, anonymous} {
				if got := len(c.Texts()) == 1; got != slices.Contains(test.reaches, c) {
					t.Errorf("to %v: reached client %d: %v", test.to, i, got)
				}
			}
		}
	})
}

func TestAClientWithoutTopicsStillGetsWhatIsAddressedToIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		c := h.Join(hubtest.As("c", "u"))
		h.Publish(hub.Topics("a"), "topic")
		h.Publish(to(hub.ToClient, "c"), "client")
		h.Publish(to(hub.ToUser, "u"), "user")
		h.Publish(to(hub.ToBroadcast, ""), "broadcast")
		c.Want("client", "user", "broadcast")
	})
}

func TestMessagesComeInTheHubsOrderWithGrowingIDs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		c := h.Join(hubtest.With("a", "b"))
		var want []hubtest.Event
		for i := range 10 {
			id, _ := h.Publish(hub.Topics([]string{"a", "b"}[i%2]), strconv.Itoa(i))
			want = append(want, hubtest.Event{Text: strconv.Itoa(i), ID: id})
		}
		hubtest.Want(t, c.Events(), want...)
	})
}

func TestEphemeralMessagesHaveNoIDAndAreNotReplayed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		c := h.Join(hubtest.With("a"))
		h.Publish(hub.Topics("a"), "1")
		h.PublishEphemeral(hub.Topics("a"), "tick")
		last, _ := h.Publish(hub.Topics("a"), "2")
		events := c.Events()
		hubtest.Want(t, hubtest.TextsOf(events), "1", "tick", "2")
		if events[1].ID != "" {
			t.Errorf("an ephemeral message came with ID %s", events[1].ID)
		}
		h.PublishEphemeral(hub.Topics("a"), "tock")
		if got := h.Position().String(); got != last {
			t.Errorf("an ephemeral message moved the log from %s to %s", last, got)
		}
		h.Join(hubtest.Returning(hubtest.With("a"), c.ID)).Want("1", "2")
	})
}

func TestWhatGathersUntilAStreamIsReadyIsHandedOverAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		c := h.Enter(hubtest.With("a"))
		for round := range 3 {
			h.PublishAll("a", 1, 200)
			h.Publish(hub.Topics("b"), "not for it")
			if n := c.Sends(); n != round {
				t.Errorf("in round %d a stream that was not ready was given something", round)
			}
			c.Let(200) // and then it is not ready
			c.Want(hubtest.Numbers(1, 200)...)
			if n := c.Sends(); n != round+1 {
				t.Errorf("in round %d the stream was given frames %d times", round, n-round)
			}
		}
	})
}

// streamOfOne keeps the last frame it was given.
type streamOfOne struct{ last *hub.Frame }

func (s *streamOfOne) Send(frames []*hub.Frame, _ error) (int, bool) {
	if len(frames) > 0 {
		s.last = frames[len(frames)-1]
	}
	return len(frames), true
}

func (s *streamOfOne) Notice(hub.News) bool { return true }
func (s *streamOfOne) Abort()               {}
func (s *streamOfOne) Blocked() bool        { return false }

func TestWhatIsPublishedDuringADeliveryGoesWithItToThoseBehind(t *testing.T) {
	onShards(t, 1, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		var clients []*hubtest.Client
		for i := range 40 {
			s := hubtest.With("a", "b", "room/*")
			if i%2 == 0 {
				s = hubtest.With("a")
			}
			clients = append(clients, h.Join(s))
		}
		h.Meanwhile(func() {
			h.Publish(hub.Topics("b"), "2")
			h.Publish(hub.Topics("a", "room/1"), "3")
		})
		h.Publish(hub.Topics("a"), "1")
		sends := 0
		for i, c := range clients {
			if i%2 == 0 {
				c.Want("1", "3")
			} else {
				c.Want("1", "2", "3")
			}
			sends += c.Sends()
		}
		if behind := 2*len(clients) - sends; behind < len(clients)/2 {
			t.Errorf("%d of %d clients got all at once", behind, len(clients))
		}
	})
}

func TestWhoIsKickedDuringADeliveryGetsNothingPublishedAfterwards(t *testing.T) {
	onShards(t, 1, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		var clients []*hubtest.Client
		for i := range 40 {
			s := hubtest.With("a")
			s.ClientID = strconv.Itoa(i)
			clients = append(clients, h.Join(s))
		}
		h.Meanwhile(func() {
			h.Kick("39")
			h.Publish(hub.Topics("a"), "2")
		})
		h.Publish(hub.Topics("a"), "1")
		clients[38].Want("1", "2")
		clients[39].Want("1", `closed {"status":"closed"}`)
	})
}

func TestAMessageIsEncodedOnceAndADeliveryAllocatesNothing(t *testing.T) {
	t.Run("plain", func(t *testing.T) { encodedOnce(t, false, 20) })
	t.Run("gzip", func(t *testing.T) { encodedOnce(t, true, 40) })
}

func encodedOnce(t *testing.T, gzip bool, most float64) {
	bubble(t, func(t *testing.T) {
		h := hub.NewHub(hub.Limits{})
		var streams []*streamOfOne
		var clients []*hub.Client
		for range 1000 {
			s := new(streamOfOne)
			sub := hubtest.With("a")
			sub.Gzip = gzip
			c, _, err := h.Join(sub, s)
			if err != nil {
				t.Fatal(err)
			}
			c.Post(1)
			streams, clients = append(streams, s), append(clients, c)
		}
		deliver := func() {
			h.Deliver(&hub.Message{To: hub.Topics("a"), Ephemeral: true, Data: []byte("hi")})
			settle()
		}
		deliver()
		for _, s := range streams {
			if s.last == nil || s.last != streams[0].last {
				t.Fatal("clients have a message of their own, or none")
			}
		}
		if perMessage := testing.AllocsPerRun(100, deliver); perMessage > most {
			t.Errorf("a message to 1000 clients takes %v allocations", perMessage)
		}
		for _, c := range clients {
			h.Leave(c, nil)
		}
		h.Close()
	})
}

func TestAFullHubTakesNoMoreClients(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{MaxClients: 2})
		first := h.Join(hubtest.With("a"))
		h.Join(hubtest.With("a"))
		if _, err := h.TryJoin(hubtest.With("a")); !errors.Is(err, hub.ErrHubFull) {
			t.Errorf("the third of two clients got %v", err)
		}
		first.Leave()
		h.Join(hubtest.With("a"))
		if n, _ := h.Size(); n != 2 {
			t.Errorf("the hub counts %d clients; want 2", n)
		}
		h.Apply(hub.Limits{MaxClients: 1}) // those who are there stay
		if _, err := h.TryJoin(hubtest.With("a")); !errors.Is(err, hub.ErrHubFull) {
			t.Errorf("after the limit was lowered a client got %v", err)
		}
		if _, receivers := h.Publish(hub.Topics("a"), "hi"); receivers != 2 {
			t.Errorf("after the limit was lowered %d clients are left; want 2", receivers)
		}
		h.Apply(hub.Limits{})
		h.Join(hubtest.With("a"))
	})
}

func TestOneSourceMayHaveSoManyClients(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		from := func(source string) hub.Subscription {
			s := hubtest.With("a")
			s.MaxPerSource = 2
			if source != "" {
				s.Source = netip.MustParsePrefix(source)
			}
			return s
		}
		wantRefused := func() {
			t.Helper()
			if _, err := h.TryJoin(from("192.0.2.1/32")); !errors.Is(err, hub.ErrTooManyFromHere) {
				t.Errorf("the third of two clients got %v", err)
			}
		}
		first := h.Join(from("192.0.2.1/32"))
		h.Join(from("192.0.2.1/32"))
		wantRefused()
		h.Join(from("192.0.2.2/32"))
		for range 3 {
			h.Join(from("")) // comes from nowhere: not counted
		}
		unlimited := from("192.0.2.1/32")
		unlimited.MaxPerSource = 0
		h.Join(unlimited).Leave()
		wantRefused()
		first.Leave()
		first.Leave() // counts once
		h.Join(from("192.0.2.1/32"))
		wantRefused()
	})
}

func TestARefusedClientChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{MaxClients: 1})
		squatter := h.Join(hubtest.As("c", ""))
		if _, err := h.TryJoin(hubtest.As("c", "alice")); !errors.Is(err, hub.ErrHubFull) {
			t.Fatalf("the full hub answered %v", err)
		}
		h.Publish(to(hub.ToClient, "c"), "hi")
		squatter.Want("hi")
		hubtest.Want(t, []error{squatter.End()}, nil)
		if l := hub.LeftoversOf(h.Hub); l.Owners != 0 || l.Expiries != 0 {
			t.Errorf("who was refused left %+v behind", l)
		}
	})
}

func TestReceiversAreExactBetweenJoinAndLeave(t *testing.T) {
	onShards(t, 3, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		var clients []*hubtest.Client
		for i := range 20 {
			clients = append(clients, h.Enter(hubtest.With("a", "x/*")))
			if _, n := h.Publish(hub.Topics("x/1"), "hi"); n != i+1 { // nothing has happened but Join
				t.Errorf("of %d clients %d are reached", i+1, n)
			}
		}
		for i, c := range clients {
			c.Leave()
			if _, n := h.Publish(hub.Topics("a"), "hi"); n != len(clients)-i-1 {
				t.Errorf("of %d clients %d are reached", len(clients)-i-1, n)
			}
		}
	})
}

// Everything a hub can be asked, at the same time and at random: nothing hangs, nothing races, and
// the accounts are even in the end.
func TestAHubSurvivesEverythingAtOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 50, Bytes: 5000}})
	hub.Shrink(h.Hub, 50, 4, 10)
	var play hubtest.Traffic
	for range 4 {
		play.GoLoop(100, func(random *rand.Rand) {
			s := hubtest.With("a", "b", "*")
			s.ClientID, s.Queue, s.QueueBytes = fmt.Sprint(random.IntN(5)), 1+random.IntN(20), 1+random.IntN(500)
			s.Heartbeat = time.Millisecond
			s.SlowClient = []hub.SlowClient{hub.CatchUp, hub.Disconnect, hub.DropOldest}[random.IntN(3)]
			s.LastEventID = []string{"", "?", h.Position().String()}[random.IntN(3)]
			s.User = []string{"", "", "alice"}[random.IntN(3)]
			c, err := h.TryEnter(s)
			if err != nil {
				return
			}
			for range random.IntN(5) {
				switch random.IntN(8) {
				case 0:
					c.Panic()
				case 1:
					c.Post(0)
				default:
					c.Allow(random.IntN(40) - 1)
				}
				runtime.Gosched()
			}
			c.Leave()
		})
		play.GoLoop(500, func(random *rand.Rand) {
			to := append(hub.Topics("a", "b")[random.IntN(2):], to(hub.ToClient, fmt.Sprint(random.IntN(5)))...)
			m := &hub.Message{To: to, Ephemeral: random.IntN(3) == 0, Data: make([]byte, random.IntN(100))}
			if receivers, err := h.Append(m, h.Position().Epoch); err == nil {
				h.Wait(t.Context(), receivers)
			}
		})
	}
	play.GoLoop(20, func(random *rand.Rand) {
		h.Apply(hub.Limits{History: hub.HistoryLimits{Count: random.IntN(50)}, MaxClients: random.IntN(10)})
		h.Listening(random.IntN(2) == 0)
		h.Kick(fmt.Sprint(random.IntN(50)))
		h.ListClients(hub.ClientQuery{Limit: 10})
		h.ListTopics("", 10)
		h.Stats()
		h.AbortBlocked()
		runtime.Gosched()
	})
	if !hubtest.ReturnsSoon(play.Wait) {
		t.Fatal("somebody waits for ever")
	}
}

// To find that a topic lies within none of these patterns takes more steps than the hub takes at once.
func TestReceiversAreCountedAmongVeryManyPatternsThatBeginAlike(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		names, topic := []string{""}, ""
		for range 12 {
			for _, name := range names {
				names = append(names, name+"*/")
			}
			for i := range len(names) / 2 {
				names[i] += "a/"
			}
			topic += "a/"
		}
		for some := range slices.Chunk(names, 512) {
			var ending []string
			for _, name := range some {
				ending = append(ending, name+"x")
			}
			h.Join(hubtest.With(ending...))
		}
		h.Publish(hub.Topics(topic+"y"), "nobody's")
		if n := h.Count(hub.Topics(topic + "y")); n != 0 {
			t.Errorf("a message to nobody reaches %d", n)
		}
		all, some := h.Join(hubtest.With("a/**")), h.Join(hubtest.With("*/a/a/**", topic+"y"))
		position := h.Position().Position
		position.Major++
		if n := h.Deliver(&hub.Message{To: hub.Topics(topic+"y", "b"), Data: []byte("hi"), Position: position}); n != 3 {
			t.Errorf("a message to two clients reaches %d addresses", n)
		}
		all.Want("hi")
		some.Want("hi")
	})
}
