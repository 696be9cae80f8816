package hub_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestDrainTellsEachClientItsOwnRetryThenGivesWhatWaitsThenEnds(t *testing.T) {
	onShards(t, 3, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hubtest.Plenty.History, DrainSpread: 5 * time.Second})
		s := hubtest.With("a")
		s.Retry = 2 * time.Second
		var clients []*hubtest.Client
		for i := range 200 {
			c := h.Join(s)
			if i >= 50 {
				c.Let(1) // the retry of the drain, and no more
				c.Block()
			}
			clients = append(clients, c)
		}
		h.Publish(hub.Topics("a"), "acknowledged")
		for _, c := range clients[:50] {
			c.Want("acknowledged") // these have nothing waiting any more
		}
		h.Drain()
		h.Drain() // as every route of the hub does
		wantRefused(h, s, hub.ErrDraining)
		told := make(map[int]bool)
		for i, c := range clients {
			c.Open()
			got := c.Texts()
			if c.End() != hub.ErrDraining || len(got) == 0 {
				t.Fatalf("client %d got %v and ended for %v", i, got, c.End())
			}
			if i >= 50 { // nothing could be told before
				hubtest.Want(t, got[:1], "acknowledged")
				got = got[1:]
			}
			retry, _ := strconv.Atoi(strings.TrimPrefix(got[0], "retry "))
			if retry < 2000 || retry > 7000 {
				t.Errorf("client %d was told %q; want between 2 and 7 s", i, got[0])
			}
			told[retry] = true
			hubtest.Want(t, got[1:])
		}
		if len(told) < 150 {
			t.Errorf("200 clients were told %d different delays", len(told))
		}
		if cause := context.Cause(h.Context()); cause != hub.ErrDraining {
			t.Errorf("the hub's context ended for %v", cause)
		}
	})
}

func TestDrainTellsTheRetryFirstToThoseWhoTakeIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Retry = 1500 * time.Millisecond
		c := h.Join(s)
		h.Drain()
		hubtest.Want(t, c.Blocks(), "retry: 1500\n") // no empty line, which makes some dispatch an event
		hubtest.Want(t, []error{c.End()}, hub.ErrDraining)
	})
}

func TestDrainsRetryCountsWhateverWaitingMessagesTell(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		start := h.Position().String()
		s := hubtest.With("a")
		s.Retry = time.Second
		live := h.Join(s)
		behind := h.Join(s)
		behind.Block()
		m := &hub.Message{To: hub.Topics("a"), Data: []byte("later"), Retry: 60_000, HasRetry: true}
		m.Position = hub.Position{Major: 1}
		h.Deliver(m)
		catchingUp := h.Enter(hubtest.Returning(s, start))
		h.Publish(hub.Topics("a"), "now")
		h.Drain()
		for _, c := range []*hubtest.Client{live, behind, catchingUp} {
			c.Open()
			got := c.Texts()
			got = slices.DeleteFunc(got, func(text string) bool { return text == "later retry 60000" || text == "now" })
			if len(got) == 0 || got[len(got)-1] != "retry 1000" {
				t.Errorf("a client was told %v", got)
			}
			hubtest.Want(t, []error{c.End()}, hub.ErrDraining)
		}
	})
}

func TestDrainGivesAClientThatIsCatchingUpAllThatWasAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		start := h.Position().String()
		h.PublishAll("a", 1, 1000)
		c := h.Enter(hubtest.Returning(hubtest.With("a"), start))
		c.Let(10)
		c.Want(hubtest.Numbers(1, 10)...)
		h.PublishAll("a", 1001, 1500)
		h.PublishEphemeral(hub.Topics("a"), "tick")
		h.Drain()
		c.Open()
		c.Want(slices.Concat(hubtest.Numbers(11, 1500), []string{"tick", "retry 0"})...)
		hubtest.Want(t, []error{c.End()}, hub.ErrDraining)
	})
}

func TestCloseEndsEveryClientOnceItHasWhatWaits(t *testing.T) {
	onShards(t, 2, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		a, b, behind := h.Join(hubtest.With("a")), h.Join(hubtest.With("b")), h.Join(hubtest.With("a"))
		behind.Block()
		h.Publish(hub.Topics("a"), "last words")
		h.Close()
		h.Publish(hub.Topics("a"), "too late")
		behind.Open()
		a.Want("last words")
		b.Want()
		behind.Want("last words")
		hubtest.Want(t, []error{a.End(), b.End(), behind.End()}, hub.ErrHubClosed, hub.ErrHubClosed, hub.ErrHubClosed)
		wantRefused(h, hubtest.With("a"), hub.ErrHubClosed)
		if cause := context.Cause(h.Context()); cause != hub.ErrHubClosed {
			t.Errorf("the hub's context ended for %v", cause)
		}
		if _, err := h.Append(&hub.Message{To: hub.Topics("a")}, h.Position().Epoch); err != hub.ErrHubClosed {
			t.Errorf("a closed hub took a message: %v", err)
		}
		if _, err := h.DeliverUnlessEnded(&hub.Message{To: hub.Topics("a")}); err != hub.ErrHubClosed {
			t.Errorf("a closed hub took a message: %v", err)
		}
	})
}

func TestAbortCutsWhoIsStillThere(t *testing.T) {
	onShards(t, 3, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		gone, waiting, blocked := h.Join(hubtest.With("a")), h.Join(hubtest.With("b")), h.Join(hubtest.With("c"))
		gone.Leave()
		waiting.Busy()
		blocked.Block()
		h.Publish(hub.Topics("b", "c"), "acknowledged")
		h.Drain()
		aborts := func() []int { return []int{gone.Aborts(), waiting.Aborts(), blocked.Aborts()} }
		hubtest.Want(t, aborts(), 0, 0, 0)
		h.AbortBlocked()
		hubtest.Want(t, aborts(), 0, 0, 1)
		hubtest.Want(t, []error{blocked.Leave()}, hub.ErrDraining) // it had an end already
		h.Abort()
		hubtest.Want(t, aborts(), 0, 1, 1)
	})
}

func TestAnEndedHubIsEmptyOnceAllClientsHaveLeft(t *testing.T) {
	onShards(t, 3, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		var clients []*hubtest.Client
		for range 10 {
			c := h.Join(hubtest.With("a"))
			c.Block()
			clients = append(clients, c)
		}
		h.Publish(hub.Topics("a"), "waits")
		h.Drain()
		if took := timeOf(func() { h.WaitEmpty(time.Second) }); took != time.Second {
			t.Errorf("a hub with clients was waited for %v", took)
		}
		time.AfterFunc(time.Second, func() {
			for _, c := range clients {
				h.Leave(c.Client, nil)
			}
		})
		if took := timeOf(func() { h.WaitEmpty(time.Minute) }); took != time.Second {
			t.Errorf("the last client left after a second, and the hub was waited for %v", took)
		}
	})
}
