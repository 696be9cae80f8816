package hub

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/caddy-sse/caddy-sse/topic"
)

// both is an index and an audience of the same clients: who is reached, and how many.
type both struct {
	index
	*audience
}

func newBoth() *both {
	b := &both{newIndex(), newAudience()}
	b.kept = func(string) bool { return false }
	return b
}

// enter enters a client with an ID, at topics and patterns.
func (b *both) enter(id string, names ...string) *Client {
	s := with(names...)
	c := &Client{Subscriber: s.Subscriber, patterns: uncovered(s.Patterns)}
	c.ClientID = id
	b.index.add(c)
	b.audience.add(c)
	return c
}

func (b *both) leave(c *Client) {
	b.index.remove(c)
	b.audience.remove(c)
}

// reaches returns the IDs of the clients that a message to these addresses reaches, sorted.
func (b *both) reaches(to ...Address) []string {
	f := &Frame{to: &to[0]}
	f.addressToo(ownAddresses(to[1:])...)
	ids := make(map[string]bool)
	b.index.reached(f, func(set *clientSet) {
		for _, m := range set.members {
			ids[m.client.ClientID] = true
		}
	})
	return slices.Sorted(maps.Keys(ids))
}

// wantEmpty checks that nothing is left of clients that left.
func (b *both) wantEmpty(t *testing.T) {
	t.Helper()
	left := len(b.index.everybody.members) + b.index.patterns.Len()
	for _, names := range b.index.names {
		left += len(names)
	}
	a := b.audience
	left += a.everybody + len(a.topics) + a.all.n + a.patterns.Len()
	for _, names := range a.names {
		left += len(names)
	}
	if left > 0 {
		t.Errorf("of clients that left there is still something: %d", left)
	}
}

func TestAnAddressReachesWhoListensThere(t *testing.T) {
	b := newBoth()
	b.enter("1", "a", "room/7")
	b.enter("2", "a", "*")
	b.enter("3", "room/*", "room/**", "**")
	b.enter("4")
	b.enter("5", "room/*/x", "/*", "//*", "*/7")
	for _, test := range []struct {
		to      []Address
		reaches []string
	}{
		{Topics("a"), []string{"1", "2", "3"}},
		{Topics("b"), []string{"2", "3"}},
		{Topics("a", "b"), []string{"1", "2", "3"}},
		{Topics("room/7"), []string{"1", "3", "5"}},
		{Topics("room/7/x"), []string{"3", "5"}},
		{Topics("room/7/y"), []string{"3"}},
		{Topics("room"), []string{"2", "3"}},
		{Topics("/x"), []string{"3", "5"}},
		{Topics("//x"), []string{"3", "5"}},
		{Topics("///x"), []string{"3"}},
		{[]Address{{ToClient, "4"}}, []string{"4"}},
		{[]Address{{ToClient, "6"}}, nil},
		{[]Address{{ToClient, "a"}}, nil}, // kinds do not mix
		{[]Address{{ToUser, "a"}}, nil},
		{[]Address{{Kind: ToBroadcast}}, []string{"1", "2", "3", "4", "5"}},
	} {
		if got := b.reaches(test.to...); !slices.Equal(got, test.reaches) {
			t.Errorf("%v reaches %v; want %v", test.to, got, test.reaches)
		}
	}
}

func TestPatternsThatOthersCoverAreLeftOut(t *testing.T) {
	for _, test := range [][2][]string{
		{{"a/*", "b/*"}, {"a/*", "b/*"}},
		{{"**", "a/*", "a/b/**", "*"}, {"**"}},
		{{"a/*", "a/**", "a/*/c"}, {"a/**"}},
		{{"a/*", "a/*"}, {"a/*"}},
		{{"*/b", "a/*"}, {"*/b", "a/*"}},
	} {
		want(t, uncovered(test[0]), test[1]...)
	}
}

func TestChangesAreToldOnceWithTheirNumbers(t *testing.T) {
	h := NewHub(Limits{})
	defer h.Close()
	b := &both{newIndex(), h.audience}
	b.enter("1", "a", "b/*")
	first := map[Address]int{{ToTopic, "a"}: 1, {ToTopic, "b/*"}: 1, {ToClient, "1"}: 1, {Kind: ToBroadcast}: 1}
	if got := h.Listening(false); !maps.Equal(got, first) {
		t.Errorf("at first everything is told: got %v, want %v", got, first)
	}
	if got := h.Listening(false); len(got) != 0 {
		t.Errorf("without a change there is %v", got)
	}
	c := b.enter("2", "a", "b/*", "c")
	b.leave(b.enter("3", "d"))
	b.leave(c)
	changed := map[Address]int{
		{ToTopic, "a"}: 1, {ToTopic, "b/*"}: 1, {ToTopic, "c"}: 0, {ToTopic, "d"}: 0,
		{ToClient, "2"}: 0, {ToClient, "3"}: 0, {Kind: ToBroadcast}: 1,
	}
	if got := h.Listening(false); !maps.Equal(got, changed) {
		t.Errorf("clients came and went: got %v, want %v", got, changed)
	}
	if got := h.Listening(true); !maps.Equal(got, first) {
		t.Errorf("asked for all, it tells %v; want %v", got, first)
	}
}

// Clients come and go at random; each topic reaches exactly those whose topics or patterns match it, and counts at
// least those.
func TestTheIndexAgreesWithAskingEveryClient(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	name := func(wild bool) string {
		s := ""
		for i, n := 0, 1+random.IntN(4); i < n; i++ {
			segment := string(rune('a' + random.IntN(3)))
			if wild && random.IntN(3) == 0 {
				segment = "*"
			}
			if wild && i == n-1 && random.IntN(3) == 0 {
				segment = "**"
			}
			if random.IntN(12) == 0 {
				segment = ""
			}
			s += "/" + segment
		}
		return s[random.IntN(2):]
	}
	b, clients := newBoth(), []*Client(nil)
	for round := range 3000 {
		if random.IntN(2) == 0 || len(clients) < 5 {
			var names []string
			for range random.IntN(5) {
				names = append(names, name(true))
			}
			clients = append(clients, b.enter(fmt.Sprint(round), topic.Distinct(names)...))
		} else {
			i := random.IntN(len(clients))
			b.leave(clients[i])
			clients = slices.Delete(clients, i, i+1)
		}
		topicName := name(false)
		var wanted []string
		for _, c := range clients {
			if slices.Contains(c.Topics, topicName) || topic.Covered(c.Patterns, topicName) {
				wanted = append(wanted, c.ClientID)
			}
		}
		slices.Sort(wanted)
		if got := b.reaches(Topics(topicName)...); !slices.Equal(got, wanted) {
			t.Fatalf("%q reaches %v; want %v", topicName, got, wanted)
		}
		if n, all := b.audience.reached(Topics(topicName)); !all || n < len(wanted) || n > 6*len(wanted) {
			t.Fatalf("%q reaches %d, and counts %d", topicName, len(wanted), n)
		}
	}
	for _, c := range clients {
		b.leave(c)
	}
	b.wantEmpty(t)
}
