package hub

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/caddy-sse/caddy-sse/topic"
)

// reachedClients returns the IDs of the clients that a message to these addresses reaches, sorted.
func reachedClients(x *index, to ...Address) []string {
	ids := make(map[string]bool)
	x.reached(to, func(set *clientSet) {
		for _, m := range set.members {
			ids[m.client.ClientID] = true
		}
	})
	return slices.Sorted(maps.Keys(ids))
}

// indexed enters a client with an ID, at topics and patterns.
func indexed(x *index, id string, names ...string) *Client {
	c := &Client{Subscriber: with(names...).Subscriber}
	c.ClientID = id
	x.add(c)
	return c
}

func TestAnAddressReachesWhoListensThere(t *testing.T) {
	x := newIndex()
	indexed(x, "1", "a", "room/7")
	indexed(x, "2", "a", "*")
	indexed(x, "3", "room/*", "room/**", "**")
	indexed(x, "4")
	indexed(x, "5", "room/*/x", "/*", "//*", "*/7")
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
		if got := reachedClients(x, test.to...); !slices.Equal(got, test.reaches) {
			t.Errorf("%v reaches %v; want %v", test.to, got, test.reaches)
		}
	}
}

func TestNothingIsLeftOfClientsThatLeft(t *testing.T) {
	x := newIndex()
	a, b := indexed(x, "1", "a", "a/*"), indexed(x, "1", "a", "a/*", "**")
	x.remove(a)
	want(t, reachedClients(x, Topics("a/b", "a")...), "1")
	x.remove(b)
	if len(x.exact) != 0 || len(x.patterns) != 0 {
		t.Errorf("the empty index holds %v and %v", x.exact, x.patterns)
	}
}

func TestChangesAreToldOnceWithTheirNumbers(t *testing.T) {
	x := newIndex()
	indexed(x, "1", "a", "b/*")
	first := map[Address]int{{ToTopic, "a"}: 1, {ToTopic, "b/*"}: 1, {ToClient, "1"}: 1, {Kind: ToBroadcast}: 1}
	if got := x.takeChanges(false); !maps.Equal(got, first) {
		t.Errorf("at first everything is told: got %v, want %v", got, first)
	}
	if got := x.takeChanges(false); len(got) != 0 {
		t.Errorf("without a change there is %v", got)
	}
	c := indexed(x, "2", "a", "b/*", "c")
	x.remove(indexed(x, "3", "d"))
	x.remove(c)
	changed := map[Address]int{
		{ToTopic, "a"}: 1, {ToTopic, "b/*"}: 1, {ToTopic, "c"}: 0, {ToTopic, "d"}: 0,
		{ToClient, "2"}: 0, {ToClient, "3"}: 0, {Kind: ToBroadcast}: 1,
	}
	if got := x.takeChanges(false); !maps.Equal(got, changed) {
		t.Errorf("clients came and went: got %v, want %v", got, changed)
	}
	if got := x.takeChanges(true); !maps.Equal(got, first) {
		t.Errorf("asked for all, it tells %v; want %v", got, first)
	}
}

// Clients come and go at random; each topic reaches exactly those whose topics or patterns match it.
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
	x, clients := newIndex(), []*Client(nil)
	for round := range 3000 {
		if random.IntN(2) == 0 || len(clients) < 5 {
			var names []string
			for range random.IntN(5) {
				names = append(names, name(true))
			}
			clients = append(clients, indexed(x, fmt.Sprint(round), topic.Distinct(names)...))
		} else {
			i := random.IntN(len(clients))
			x.remove(clients[i])
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
		if got := reachedClients(x, Topics(topicName)...); !slices.Equal(got, wanted) {
			t.Fatalf("%q reaches %v; want %v", topicName, got, wanted)
		}
	}
	for _, c := range clients {
		x.remove(c)
	}
	if len(x.exact) != 0 || len(x.patterns) != 0 {
		t.Errorf("the empty index holds %v and %v", x.exact, x.patterns)
	}
}
