package hub_test

import (
	"fmt"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// keepsLatest is limits with little history, and the newest of each topic below p kept.
func keepsLatest() hub.Limits {
	return hub.Limits{
		History:  hub.HistoryLimits{Count: 3},
		Policies: []hub.Policy{{Pattern: "p/*", History: &hub.Retention{Latest: true}}},
	}
}

func TestWhoMissedAValueThatWasReplacedIsToldAGap(t *testing.T) {
	h := hubtest.New(t, keepsLatest())
	one, _ := h.Publish(hub.Topics("p/a"), "1")
	two, _ := h.Publish(hub.Topics("p/a"), "2")
	three, _ := h.Publish(hub.Topics("p/a"), "3")
	missed := h.Join(hubtest.Returning(hubtest.With("p/a"), one))
	missed.WantResume(hub.ResumeGap, one, "3")
	has := h.Join(hubtest.Returning(hubtest.With("p/a"), two))
	has.WantResume(hub.ResumeComplete, two, "3")
	all := h.Join(hubtest.Returning(hubtest.With("p/a"), three))
	all.WantResume(hub.ResumeComplete, three)
}

// Whose ID the hub does not know is told a gap, and gets the newest of each topic, however many there are.
func TestAnUnknownIDGetsTheNewestOfAllTopics(t *testing.T) {
	for _, topics := range []int{5, 200} { // few are merged, and of many all is looked through
		h := hubtest.New(t, keepsLatest())
		var want []string
		for n := range topics {
			h.Publish(hub.Topics(fmt.Sprint("p/", n)), "old")
		}
		for n := range topics {
			want = append(want, fmt.Sprint(n))
			h.Publish(hub.Topics(fmt.Sprint("p/", n)), fmt.Sprint(n))
		}
		for range 1000 {
			h.Publish(hub.Topics("other"), "other")
		}
		c := h.Join(hubtest.Returning(hubtest.With("p/*"), "garbage"))
		c.Want(want...)
	}
}

// A reload has what is kept follow the policies that are new.
func TestAReloadLetsOtherPoliciesHoldForWhatIsKept(t *testing.T) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 1000}})
	for n := range 900 {
		h.Publish(hub.Topics(fmt.Sprint("p/", n%3)), fmt.Sprint(n))
	}
	kept := func() (n int) {
		for i := range 3 {
			n += len(h.ListMessages(fmt.Sprint("p/", i), 1000))
		}
		return n
	}
	if kept() != 900 {
		t.Fatalf("%d messages are kept", kept())
	}
	h.Apply(keepsLatest())
	if kept() != 3 {
		t.Errorf("%d messages are kept of three topics, of which the newest are; want 3", kept())
	}
	for n := range 3 {
		if m := h.ListMessages(fmt.Sprint("p/", n), 9); len(m) != 1 || m[0].Data != fmt.Sprint(897+n) {
			t.Errorf("of topic %d %+v is kept", n, m)
		}
	}
	h.Apply(hub.Limits{History: hub.HistoryLimits{Count: 2}})
	for n := range 10 {
		h.Publish(hub.Topics("p/0"), fmt.Sprint(n))
	}
	if m := h.ListMessages("p/0", 9); len(m) != 2 {
		t.Errorf("%d messages are kept; want two, without a policy", len(m))
	}
	h.Apply(hub.Limits{History: hub.HistoryLimits{Count: 2}, Policies: []hub.Policy{{Pattern: "p/1", History: &hub.Retention{}}}})
	if m := h.ListMessages("p/1", 9); len(m) != 0 {
		t.Errorf("%d messages are kept of a topic without history", len(m))
	}
}

func TestTheNewestOfManyTopicsOutlivesAllElse(t *testing.T) {
	limits := keepsLatest()
	limits.History.Bytes = 16 << 20
	h := hubtest.New(t, limits)
	const topics = 10_000
	for _, text := range []string{"old", "new"} {
		for n := range topics {
			h.Publish(hub.Topics(fmt.Sprint("p/", n)), text)
		}
	}
	for n := range 200_000 {
		h.Publish(hub.Topics(fmt.Sprint("other/", n%50_000)), "other")
	}
	for n := range topics {
		if m := h.ListMessages(fmt.Sprint("p/", n), 9); len(m) != 1 || m[0].Data != "new" {
			t.Fatalf("of topic %d %+v is kept", n, m)
		}
	}
	if _, bytes := h.Size(); bytes > limits.History.Bytes {
		t.Errorf("%d bytes are kept; the limit is %d", bytes, limits.History.Bytes)
	}
}
