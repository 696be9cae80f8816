package hub_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
	"github.com/caddy-sse/caddy-sse/topic"
)

// rooms are limits under which rooms have presence, but for one.
func rooms() hub.Limits {
	limits := hubtest.Plenty
	limits.Policies = []hub.Policy{{Pattern: "room/quiet"}, {Pattern: "room/*", Presence: true}}
	return limits
}

// guest is the subscription of somebody with an info.
func guest(clientID, user, info string, topics ...string) hub.Subscription {
	s := hubtest.With(topics...)
	s.ClientID, s.User, s.Info = clientID, user, info
	return s
}

// at returns who is at a topic, in short.
func at(t *testing.T, h *hubtest.Hub, topic string) string {
	t.Helper()
	now, ok := h.PresenceOf(topic)
	if !ok {
		return "no presence"
	}
	names := []string{fmt.Sprint(now.Clients)}
	for _, p := range now.Users {
		names = append(names, p.User+":"+p.Info)
	}
	if now.More {
		names = append(names, "more")
	}
	return strings.Join(names, " ")
}

// change is the data of a presence event.
type change struct {
	Topic        string
	Clients      int
	Joined, Left []hub.Person
	More         bool
}

// changes returns the presence events that a client got since it was looked at last.
func changes(t *testing.T, c *hubtest.Client) (all []change) {
	t.Helper()
	for _, text := range c.Texts() {
		data, ok := strings.CutPrefix(text, "presence ")
		if !ok {
			t.Errorf("got %q", text)
			continue
		}
		var one change
		if err := json.Unmarshal([]byte(data), &one); err != nil {
			t.Errorf("got %q: %v", text, err)
		}
		all = append(all, one)
	}
	return all
}

func TestWhoComesAndGoesIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, rooms())
		ada := h.Join(guest("a", "ada", "Ada", "room/1"))
		hubtest.Pause(time.Second)
		ada.Want(`presence {"topic":"room/1","clients":1,"joined":[{"user":"ada","info":"Ada"}],"left":[]}`)
		bob := h.Join(guest("b", "bob", "", "room/1", "room/quiet", "elsewhere"))
		h.Join(guest("c", "", "A <guest>", "room/1"))
		nobody := h.Join(guest("d", "", "", "room/1"))
		hubtest.Pause(time.Second)
		ada.Want(`presence {"topic":"room/1","clients":4,"joined":[{"info":"A \u003cguest\u003e"},{"user":"bob"}],"left":[]}`)
		if got := at(t, h, "room/1"); got != "4 :A <guest> ada:Ada bob:" {
			t.Errorf("there are %s", got)
		}
		for _, name := range []string{"room/quiet", "elsewhere", "room", "room/1/2"} {
			if got := at(t, h, name); got != "no presence" {
				t.Errorf("at %s there are %s", name, got)
			}
		}
		_ = bob.Leave()
		hubtest.Pause(time.Second)
		ada.Want(`presence {"topic":"room/1","clients":3,"joined":[],"left":[{"user":"bob"}]}`)
		_ = nobody.Leave() // who is not shown counts
		hubtest.Pause(time.Second)
		ada.Want(`presence {"topic":"room/1","clients":2,"joined":[],"left":[]}`)
		hubtest.Pause(time.Hour)
		ada.Want()
	})
}

func TestUsersAndClientIDsCountOnceAndTheirFirstInfoCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, rooms())
		watch := h.Join(guest("w", "", "", "room/1"))
		ada := h.Join(guest("a", "ada", "", "room/1"))
		h.Join(guest("a", "ada", "Ada", "room/1")) // the first that she has
		h.Join(guest("a2", "ada", "Countess", "room/1"))
		tab := h.Join(guest("g", "", "Guest", "room/1"))
		h.Join(guest("g", "", "Ghost", "room/1"))
		hubtest.Pause(time.Second)
		if got := at(t, h, "room/1"); got != "4 :Guest ada:Ada" {
			t.Errorf("there are %s", got)
		}
		changes(t, watch)
		_ = ada.Leave()
		_ = tab.Leave()
		hubtest.Pause(time.Second)
		watch.Want() // nobody has left
		if got := at(t, h, "room/1"); got != "4 :Guest ada:Ada" {
			t.Errorf("there are %s", got)
		}
	})
}

func TestWhoListensByAPatternCountsAndIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, rooms())
		ada := h.Join(guest("a", "ada", "", "room/1"))
		h.Join(guest("b", "bob", "", "room/2"))
		hubtest.Pause(time.Second)
		changes(t, ada)
		all := h.Join(guest("c", "carol", "", "room/*", "room/1")) // once
		hubtest.Pause(time.Second)
		ada.Want(`presence {"topic":"room/1","clients":2,"joined":[{"user":"carol"}],"left":[]}`)
		got := changes(t, all)
		slices.SortFunc(got, func(a, b change) int { return strings.Compare(a.Topic, b.Topic) })
		if len(got) != 2 || got[0].Topic != "room/1" || got[1].Topic != "room/2" || got[1].Clients != 2 {
			t.Errorf("told %+v", got)
		}
		other := h.Join(guest("c", "carol", "", "*/1")) // the same client by another pattern
		far := h.Join(guest("d", "dave", "", "far/**"))
		hubtest.Pause(time.Second)
		ada.Want()
		for name, want := range map[string]string{"room/1": "2 ada: carol:", "room/2": "2 bob: carol:", "room/3": "1 carol:"} {
			if got := at(t, h, name); got != want {
				t.Errorf("at %s there are %s; want %s", name, got, want)
			}
		}
		_ = all.Leave()
		_ = far.Leave()
		hubtest.Pause(time.Second)
		ada.Want()
		_ = other.Leave()
		hubtest.Pause(time.Second)
		ada.Want(`presence {"topic":"room/1","clients":1,"joined":[],"left":[{"user":"carol"}]}`)
	})
}

func TestWhoPollsIsNotPresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, rooms())
		s := guest("a", "ada", "", "room/1", "room/*")
		s.Unseen = true
		h.Join(s)
		if got := at(t, h, "room/1"); got != "0" {
			t.Errorf("there are %s", got)
		}
	})
}

// After a restart all come back at once, and each of their events would go to all of them.
func TestTenThousandWhoComeAtOnceAreAFewEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, rooms())
		watch := h.Join(guest("w", "", "", "room/1"))
		const n = 10_000
		var clients []*hubtest.Client
		for i := range n {
			c := h.Enter(guest(fmt.Sprint("c", i), fmt.Sprint("user", i), "", "room/1"))
			clients = append(clients, c)
			if i%100 == 0 {
				time.Sleep(20 * time.Millisecond) // 2 s in all
			}
		}
		hubtest.Pause(3 * time.Second)
		all := changes(t, watch)
		if len(all) == 0 || len(all) > 5 {
			t.Fatalf("told %d events", len(all))
		}
		for _, c := range all {
			if len(c.Joined) > 100 || len(c.Joined) == 100 && !c.More {
				t.Errorf("told that %d have joined, more %t", len(c.Joined), c.More)
			}
		}
		if last := all[len(all)-1]; last.Clients != n+1 {
			t.Errorf("told of %d clients", last.Clients)
		}
		now, _ := h.PresenceOf("room/1")
		if now.Clients != n+1 || len(now.Users) != 1000 || !now.More {
			t.Errorf("there are %d, %d of them listed, more %t", now.Clients, len(now.Users), now.More)
		}
		for _, c := range clients {
			_ = c.Leave()
		}
		hubtest.Pause(time.Second)
		if all := changes(t, watch); len(all) != 1 || all[0].Clients != 1 || len(all[0].Left) != 100 || !all[0].More {
			t.Errorf("told %d events", len(all))
		}
	})
}

// What changes while very many topics are told is told the next time.
func TestWhoComesWhileOthersAreToldIsToldAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, rooms())
		const n = 3000
		watchers := make([]*hubtest.Client, n)
		for i := range n {
			watchers[i] = h.Enter(guest(fmt.Sprint("w", i), "", "", fmt.Sprint("room/", i)))
			watchers[i].Let(-1)
		}
		time.Sleep(100 * time.Millisecond) // now they are told
		for i := range n {
			h.Enter(guest(fmt.Sprint("c", i), "", "", fmt.Sprint("room/", i)))
		}
		hubtest.Pause(3 * time.Second)
		for i, w := range watchers {
			if all := changes(t, w); len(all) == 0 || all[len(all)-1].Clients != 2 {
				t.Fatalf("at room %d, told %+v", i, all)
			}
		}
	})
}

func TestWhoComesBackAtOnceHasNotLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, rooms())
		watch := h.Join(guest("w", "", "", "room/1"))
		ada := h.Join(guest("a", "ada", "Ada", "room/1"))
		hubtest.Pause(time.Minute)
		changes(t, watch)
		_ = ada.Leave()
		h.Join(guest("a", "ada", "Ada", "room/1"))
		brief := h.Join(guest("b", "bob", "Bob", "room/1"))
		_ = brief.Leave()
		hubtest.Pause(time.Minute)
		watch.Want()
	})
}

func TestReloadTurnsPresenceOnAndOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		const n = 200 // more than are counted in one step
		var last *hubtest.Client
		for i := range n {
			last = h.Join(guest(fmt.Sprint(i), "", "", "room/1", "room/*"))
		}
		if got := at(t, h, "room/1"); got != "no presence" || h.PresenceID() != 0 {
			t.Errorf("there are %s", got)
		}
		h.Apply(rooms())
		hubtest.Pause(time.Second)
		if got := at(t, h, "room/1"); got != fmt.Sprint(n) {
			t.Errorf("there are %s", got)
		}
		if all := changes(t, last); len(all) != 1 || all[0].Clients != n {
			t.Errorf("told %+v", all)
		}
		id, same := h.PresenceID(), rooms()
		same.History.Count = 7
		h.Apply(same)
		if h.PresenceID() != id {
			t.Error("another history changes presence")
		}
		h.Apply(hubtest.Plenty)
		_ = last.Leave()
		if got := at(t, h, "room/1"); got != "no presence" {
			t.Errorf("there are %s", got)
		}
		h.Apply(rooms())
		if got := at(t, h, "room/1"); got != fmt.Sprint(n-1) {
			t.Errorf("there are %s", got)
		}
	})
}

func TestPresenceIsAReservedEventWhereThereIsPresence(t *testing.T) {
	h := hubtest.New(t, rooms())
	for _, test := range []struct {
		to   []hub.Address
		want bool
	}{
		{hub.Topics("room/1"), false},
		{hub.Topics("other", "room/1"), false},
		{hub.Topics("room/quiet"), true},
		{hub.Topics("other"), true},
		{[]hub.Address{{Kind: hub.ToUser, Name: "room/1"}}, true},
	} {
		err := h.CheckMessage(&hub.Message{To: test.to, Event: "presence"})
		if (err == nil) != test.want {
			t.Errorf("to %v: %v", test.to, err)
		}
	}
	if h.CheckMessage(&hub.Message{To: hub.Topics("room/1"), Event: "present"}) != nil ||
		h.CheckMessage(&hub.Message{To: hub.Topics("other"), Event: "gap"}) == nil {
		t.Error("other names are checked as anywhere")
	}
}

// Two hubs tell each other their members, as a log has them do. Whatever comes and goes, who adds up the events that it
// was told knows who is there.
func TestEventsAddUpToWhoIsThere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 1))
		hubs := []*hubtest.Hub{hubtest.New(t, rooms()), hubtest.New(t, rooms())}
		names := []string{"room/1", "room/2", "room/*", "*/1", "room/**", "other"}
		type place struct {
			client *hubtest.Client
			on     int
			s      hub.Subscription
		}
		var places []place
		watchers := map[string]*hubtest.Client{}
		for _, name := range []string{"room/1", "room/2"} {
			watchers[name] = hubs[0].Join(guest("w"+name, "", "", name))
		}
		sums := map[string]map[hub.Person]bool{"room/1": {}, "room/2": {}}
		share := func() {
			for i, h := range hubs {
				if news := h.Members(false, time.Now()); len(news) > 0 {
					hubs[1-i].Elsewhere(hubs[1-i].PresenceID(), news)
				}
			}
		}
		for _, h := range hubs {
			h.Members(true, time.Now())
		}
		hubs[1].Elsewhere(1, hubs[0].Members(true, time.Now()))
		for range 300 {
			for range random.IntN(6) {
				if random.IntN(2) == 0 && len(places) > 0 {
					i := random.IntN(len(places))
					_ = places[i].client.Leave()
					places = slices.Delete(places, i, i+1)
					continue
				}
				user := []string{"", "ada", "bob"}[random.IntN(3)]
				id := user + fmt.Sprint(random.IntN(4))
				info := ""
				if user == "" && id < "2" { // whose info is always the same
					info = "guest " + id
				}
				var topics []string
				for _, n := range random.Perm(len(names))[:1+random.IntN(3)] {
					topics = append(topics, names[n])
				}
				on, s := random.IntN(2), guest(id, user, info, topics...)
				places = append(places, place{hubs[on].Enter(s), on, s})
			}
			time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
			share()
		}
		hubtest.Pause(3 * time.Second)
		for name, sum := range sums {
			told := -1
			for _, c := range changes(t, watchers[name]) {
				told = c.Clients
				for _, p := range c.Joined {
					if sum[p] {
						t.Errorf("%v joins %s twice", p, name)
					}
					sum[p] = true
				}
				for _, p := range c.Left {
					if !sum[p] {
						t.Errorf("%v leaves %s twice", p, name)
					}
					delete(sum, p)
				}
			}
			clients, persons := map[string]bool{"w" + name: true}, map[hub.Person]bool{}
			for _, p := range places {
				if !topic.Covered(slices.Concat(p.s.Topics, p.s.Patterns), name) {
					continue
				}
				clients[p.s.ClientID] = true
				if p.s.User != "" || p.s.Info != "" {
					persons[hub.Person{User: p.s.User, Info: p.s.Info}] = true
				}
			}
			for i, h := range hubs {
				now, _ := h.PresenceOf(name)
				listed := map[hub.Person]bool{}
				for _, p := range now.Users {
					listed[p] = true
				}
				if now.Clients != len(clients) || !maps.Equal(listed, persons) {
					t.Errorf("hub %d has %+v at %s; want %d clients, %v", i, now, name, len(clients), persons)
				}
			}
			if told != len(clients) || !maps.Equal(sum, persons) {
				t.Errorf("at %s events tell %d clients and add up to %v; want %d, %v", name, told, sum, len(clients), persons)
			}
		}
		// All leave: nothing may be left of them, here or there.
		for _, p := range places {
			_ = p.client.Leave()
		}
		for _, w := range watchers {
			_ = w.Leave()
		}
		share()
		for i, h := range hubs {
			if got := at(t, h, "room/1") + at(t, h, "room/2"); got != "00" {
				t.Errorf("hub %d still has %s", i, got)
			}
			for m, there := range h.Members(true, time.Now()) {
				t.Errorf("hub %d still tells %v, %t", i, m, there)
			}
		}
	})
}
