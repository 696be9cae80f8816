package hub_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestDeliveryIsTimedFromTheLogToTheStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		before, _ := h.Publish(hub.Topics("a"), "before")
		h.Publish(hub.Topics("a"), "kept")
		time.Sleep(time.Hour)
		s := hubtest.Returning(hubtest.With("a"), before)
		s.Heartbeat = time.Minute
		c := h.Join(s)
		c.Want("kept") // how long it was kept is not the delivery's doing
		c.Block()
		h.Publish(hub.Topics("a"), "slow")
		time.Sleep(2 * time.Second)
		h.Publish(hub.Topics("a"), "quick")
		time.Sleep(3 * time.Millisecond)
		c.Open()
		c.Want("slow", "quick")
		hubtest.Pause(2 * time.Minute)
		if texts := c.Texts(); len(texts) == 0 || texts[0] != ":heartbeat" { // which is no message
			t.Errorf("a silent client got %v", texts)
		}

		got := h.Stats().Delivery
		if got.Count != 2 || got.Seconds != 2.006 {
			t.Errorf("%d deliveries took %v s together", got.Count, got.Seconds)
		}
		for _, bucket := range got.Buckets {
			want := uint64(0)
			for _, seconds := range []float64{0.003, 2.003} {
				if seconds <= bucket.Bound {
					want++
				}
			}
			if bucket.Count != want {
				t.Errorf("%d took %v s or less, want %d", bucket.Count, bucket.Bound, want)
			}
		}
		if messages, bytes := c.Sent(); messages != 3 || h.Stats().Sent != 3 || bytes < uint64(len("keptslowquick")) {
			t.Errorf("sent %d messages with %d bytes, %d in all", messages, bytes, h.Stats().Sent)
		}
	})
}

func TestDroppedMessagesAreCountedOneByOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue, s.SlowClient = 10, hub.DropOldest
		c := h.Join(s)
		c.Block()
		h.PublishAll("a", 1, 10)
		for i := range 25 {
			h.Publish(hub.Topics("a"), fmt.Sprint("more ", i))
			settle()
		}
		c.Open()
		texts := c.Texts()
		if dropped := h.Stats().DroppedSlow; len(texts) != 11 || texts[0] != hubtest.Gap("slow_client") || dropped != 25 {
			t.Errorf("dropped %d, and then came %q", dropped, texts)
		}
	})
}

func TestWhatHappensToClientsIsCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 1}, MaxClients: 6})
		begin := h.Position().String()
		none := h.Join(hubtest.With("a"))
		h.PublishAll("a", 1, 2)
		h.Join(hubtest.Returning(hubtest.With("a"), begin)) // trimmed
		h.Join(hubtest.Returning(hubtest.With("a"), "?"))
		h.Join(hubtest.Returning(hubtest.With("a"), h.Position().String()))
		slow := h.Join(hubtest.With("b"))
		slow.Block()
		hub.Shrink(h.Hub, 2, 32, 10)
		h.PublishAll("b", 3, 8)
		settle()
		h.PublishAll("b", 9, 9)
		slow.Open()
		slow.Want(hubtest.Gap("slow_client"), "8", "9") // the ring still has the one
		h.Join(hubtest.As("c", "alice"))
		if _, err := h.TryJoin(hubtest.With("a")); !errors.Is(err, hub.ErrHubFull) {
			t.Error(err)
		}
		if _, err := h.TryJoin(hubtest.As("c", "bob")); !errors.Is(err, hub.ErrClientIDOwned) {
			t.Error(err)
		}
		h.Switch(hub.Origin{Epoch: "other"}, "broker_changed")
		h.Lose(hub.Position{Major: 10}, "log_lost")
		none.Leave()
		h.CountRefused()
		h.CountPublished(3)
		h.CountMalformed()
		h.Publish(hub.Topics("x"), "kept")

		got := h.Stats()
		for name, is := range map[string][2]uint64{
			"clients":           {uint64(got.Clients), 5},
			"topics":            {uint64(got.Topics), 3},
			"accepted":          {got.Accepted, 6},
			"limited":           {got.Limited, 1},
			"refused":           {got.Refused, 2},
			"complete":          {got.ResumedComplete, 1},
			"gap":               {got.ResumedGap, 2},
			"published":         {got.Published, 3},
			"malformed":         {got.DroppedMalformed, 1},
			"gaps by trim":      {got.Gaps["history_trimmed"], 1},
			"gaps by ID":        {got.Gaps["unknown_id"], 1},
			"gaps by slowness":  {got.Gaps["slow_client"], 1},
			"gaps by switch":    {got.Gaps["broker_changed"], 6},
			"gaps by loss":      {got.Gaps["log_lost"], 6},
			"clients that left": {got.Disconnects["left"], 1},
		} {
			if is[0] != is[1] {
				t.Errorf("%s: %d; want %d", name, is[0], is[1])
			}
		}
		if _, bytes := h.Size(); got.HistoryBytes != bytes || bytes == 0 {
			t.Errorf("history has %d bytes, or %d", got.HistoryBytes, bytes)
		}
	})
}

func TestEveryEndHasAReasonOfItsOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, cause := range hub.Causes() {
		name := hub.NameOf(cause)
		if seen[name] || name == hub.OtherCause || strings.ToLower(name) != name {
			t.Errorf("%v is called %q", cause, name)
		}
		seen[name] = true
	}
	if name := hub.NameOf(errors.New("any other")); name != hub.OtherCause || seen[name] {
		t.Errorf("any other is called %q", name)
	}
}
