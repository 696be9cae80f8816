package redislog

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// startHolding starts an instance of whose prices one value of a key leaves in an interval.
func startHolding(t *testing.T, url string, interval time.Duration) (*instance, *hubtest.Hub) {
	t.Helper()
	i := launch(t, newOptions(t, url), func(i *instance) {
		i.Apply(hub.Limits{
			History:  hub.HistoryLimits{Count: 1000, Age: time.Hour},
			Policies: []hub.Policy{{Pattern: "prices/*", Conflate: true, Interval: interval}},
		})
	})
	i.awaitReady()
	return i, &hubtest.Hub{T: t, Hub: i.Hub}
}

// enter has a client join that leaves before its instance stops.
func enter(t *testing.T, h *hubtest.Hub, lastEventID string) *hubtest.Client {
	t.Helper()
	c := h.Join(hubtest.Returning(hubtest.With("prices/*"), lastEventID))
	t.Cleanup(func() { _ = c.Leave() })
	return c
}

// Whichever instance it was published on, all clients get the same values under the same IDs, and who goes to another
// instance goes on there.
func TestInstancesHoldTheSameValues(t *testing.T) {
	t.Parallel()
	url := e2etest.RedisServer(t).URL()
	const interval = time.Second
	first, one := startHolding(t, url, interval)
	_, two := startHolding(t, url, interval)
	here, there := enter(t, one, ""), enter(t, two, "")
	var batch []*broker.Publication
	for i := range 100 {
		batch = append(batch, value(fmt.Sprint(i), "", "prices/a"))
	}
	first.publishAll(batch...)
	var lists [2][]hubtest.Event
	for n, c := range []*hubtest.Client{here, there} {
		e2etest.Await(t, "the newest value", func() bool {
			lists[n] = append(lists[n], c.Events()...)
			return len(lists[n]) > 0 && lists[n][len(lists[n])-1].Text == "99"
		})
	}
	hubtest.Want(t, lists[1], lists[0]...)
	hubtest.Want(t, hubtest.TextsOf(lists[0]), "0", "99")

	begin, last := lists[0][0].ID, lists[0][1].ID
	_, third := startHolding(t, url, interval)
	for _, h := range []*hubtest.Hub{two, third} { // the third read it all from the stream
		enter(t, h, begin).WantResume(hub.ResumeComplete, begin, "99")
		enter(t, h, last).WantResume(hub.ResumeComplete, last, "99")
	}
}
