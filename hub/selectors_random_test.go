package hub_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// update is one message of a random log, as a simple model has it.
type update struct {
	id      string // by which clients with selectors know it
	text    string
	topics  []string
	private bool
}

// goesTo says in the words of the protocol who gets an update.
func (u *update) goesTo(s *hub.Subscription) bool {
	asked := slices.ContainsFunc(u.topics, s.Selectors.Match)
	return asked && (!u.private || slices.ContainsFunc(u.topics, s.Granted.Match))
}

// TestClientsWithSelectorsGetExactlyWhatIsTheirs has random clients come, block, leave and return to a random log, with a
// ring and turns so small that they are mostly late.
func TestClientsWithSelectorsGetExactlyWhatIsTheirs(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { playSelecting(t, rand.New(rand.NewPCG(seed, 7))) })
	}
}

func playSelecting(t *testing.T, random *rand.Rand) {
	h := hubtest.New(t, hubtest.Plenty)
	hub.Shrink(h.Hub, 8, 1+random.IntN(8), 4)
	var log []update
	names := []string{"a", "b", "a/1", "a/2", "b/1", "room/*", "a/{id}"}
	selectors := append([]string{"*", "{x}", "{x}/1", "a{/id}", "{+x}", "nothing"}, names...)
	some := func(from []string) (chosen []string) {
		for range 1 + random.IntN(3) {
			chosen = append(chosen, from[random.IntN(len(from))])
		}
		return chosen
	}
	type visitor struct {
		*hubtest.Client
		s    hub.Subscription
		next int // in the log
	}
	var visitors []*visitor
	check := func(v *visitor) {
		t.Helper()
		v.Open()
		var want []string
		for ; v.next < len(log); v.next++ {
			if u := &log[v.next]; u.goesTo(&v.s) {
				want = append(want, u.id+" "+u.text)
			}
		}
		var got []string
		for _, e := range v.Events() {
			got = append(got, e.ID+" "+e.Text)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("a client with the selectors %q, granted %q, got\n%q; want\n%q",
				v.s.Selectors.Names(), v.s.Granted.Names(), got, want)
		}
	}
	for range 400 {
		switch random.IntN(12) {
		case 0: // somebody comes
			v := &visitor{s: selecting(t, some(selectors)...), next: len(log)}
			if random.IntN(2) == 0 {
				v.s = granted(t, v.s, some(selectors)...)
			}
			switch at := random.IntN(len(log) + 1); {
			case random.IntN(2) == 0:
			case at == len(log):
				v.s.Since, v.next = hub.Since{All: true}, 0
			default:
				v.s.LastEventID, v.next = log[at].id, at+1
			}
			v.Client = h.Enter(v.s)
			if v.s.LastEventID != "" && v.Resume != hub.ResumeComplete {
				t.Fatalf("a client that comes back with %q is told %q", v.s.LastEventID, v.Resume)
			}
			visitors = append(visitors, v)
		case 1: // somebody leaves
			if len(visitors) > 0 {
				i := random.IntN(len(visitors))
				check(visitors[i])
				_ = visitors[i].Leave()
				visitors = slices.Delete(visitors, i, i+1)
			}
		case 2:
			if len(visitors) > 0 {
				visitors[random.IntN(len(visitors))].Block()
			}
		case 3:
			if len(visitors) > 0 {
				check(visitors[random.IntN(len(visitors))])
			}
		default:
			u := update{text: fmt.Sprint(len(log)), topics: some(names), private: random.IntN(2) == 0}
			m := &hub.Message{To: hub.Topics(u.topics...), AnyTopic: true, Data: []byte(u.text)}
			if u.private {
				m.To = hub.PrivateTopics(u.topics...)
			}
			if random.IntN(2) == 0 {
				m.ChosenID = "chosen " + u.text
			}
			p := h.Position()
			p.Position.Major++
			m.Position = p.Position
			if u.id = m.ChosenID; u.id == "" {
				u.id = p.URN()
			}
			h.Deliver(m)
			log = append(log, u)
		}
	}
	for _, v := range visitors {
		check(v)
	}
}
