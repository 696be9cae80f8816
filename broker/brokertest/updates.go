package brokertest

import (
	"strings"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// What follows tests messages as publishers of Mercure write them: with IDs of their choice, to any topic, and for some
// of those who ask only.

// selecting returns the subscription of a client that chooses topics by selectors, and is granted some.
func (t *trial) selecting(selector string, granted ...string) hub.Subscription {
	t.Helper()
	s := to()
	s.Form = hub.Updates
	var err error
	if s.Selectors, err = hub.ParseSelectors(selector); err == nil {
		s.Granted, err = hub.ParseSelectors(granted...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// updates are a message with a chosen ID, one without, and a private one.
func updates() []*broker.Publication {
	chosen, odd, private := post("chosen"), message("any topic", hub.Topics("rooms/*")...), message("private")
	chosen.ChosenID, chosen.AnyTopic = "urn:chosen \u2603", true
	odd.Event, odd.AnyTopic = "connected", true
	odd.To = append(odd.To, hub.Topics(strings.Repeat("long", 500))...)
	private.To, private.ChosenID = hub.PrivateTopics(common, "users/1"), "secret"
	return []*broker.Publication{chosen, odd, private, post("last")}
}

// wantUpdates checks what clients get of updates that an instance has published: from some of them they come back.
func (i *instance) wantUpdates() {
	i.t.Helper()
	for cursor, want := range map[string]string{
		"urn:chosen \u2603": "any topic, private, last", "secret": "last",
	} {
		s := i.t.selecting("*", "users/{id}")
		s.LastEventID = cursor
		r := i.join(s)
		if r.Resume != hub.ResumeComplete {
			i.t.Errorf("a client that comes back with the ID %q, which a publisher chose, is told %q", cursor, r.Resume)
		}
		r.want("a client that comes back with a chosen ID", strings.Split(want, ", ")...)
	}
	s := to("**")
	s.Since = hub.Since{All: true}
	i.join(s).want("a client that is to get nothing private", "chosen", "any topic", "last")
}

// wantIDs checks the IDs by which a client knows updates.
func (t *trial) wantIDs(events []event, published []*broker.Publication) {
	t.Helper()
	for n, p := range published {
		want := p.ChosenID
		if want == "" {
			want = t.mustParse(p.Receipt.ID).URN()
		}
		if events[n].ID != want {
			t.Errorf("a client knows %q by the ID %q; want %q", p.Data, events[n].ID, want)
		}
	}
}

func checkUpdates(t *trial) {
	i := t.start()
	here, others := i.join(t.selecting("*", "users/{id}")), i.join(to("**"))
	all := updates()
	i.publish(all...)
	t.wantIDs(here.want("a client that asks for all", "chosen", "any topic", "private", "last"), all)
	others.want("a client that is to get nothing private", "chosen", "any topic", "last")
	i.wantUpdates()
}

func checkReopenedUpdates(t *trial) {
	first := t.start()
	first.publish(updates()...)
	first.stop()
	t.start().wantUpdates()
}

func checkSharedUpdates(t *trial) {
	one, other := t.start(), t.start()
	here := other.join(t.selecting("{+any}", "users/1"))
	all := updates()
	one.publish(all...)
	other.wantUpdates() // whether they have come by then or not
	t.wantIDs(here.want("a client of another instance", "chosen", "any topic", "private", "last"), all)
}
