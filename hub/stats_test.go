package hub_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestDeliveryIsTimedFromTheLogToTheSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		before, _ := h.Publish(hub.Topics("a"), "before")
		h.Publish(hub.Topics("a"), "kept")
		time.Sleep(time.Hour)
		s := hubtest.Returning(hubtest.With("a"), before)
		s.Heartbeat = time.Minute
		l := h.Enter(s)
		l.Wrote(l.TakeAll()) // how long it was kept is not the delivery's doing

		h.Publish(hub.Topics("a"), "slow")
		time.Sleep(2 * time.Second)
		h.Publish(hub.Topics("a"), "quick")
		batch := l.TakeAll()
		time.Sleep(3 * time.Millisecond) // in which the socket takes them
		l.Wrote(batch)
		time.Sleep(time.Minute)
		l.Wrote(l.TakeAll()) // a heartbeat is no message

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
		if messages, bytes := l.Sent(); messages != 3 || h.Stats().Sent != 3 || bytes < uint64(len("keptslowquick")) {
			t.Errorf("sent %d messages with %d bytes, %d in all", messages, bytes, h.Stats().Sent)
		}
	})
}

func TestDroppedMessagesAreCountedOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		s := hubtest.With("a")
		s.Queue, s.SlowClient = 10, hub.DropOldest
		l := h.Enter(s)
		l.TakeAll()
		l.Stalled.Store(true)
		h.Publish(hub.Topics("a"), "0")
		l.Turn() // and is stuck
		time.Sleep(time.Minute)
		h.PublishAll("a", 1, 10)
		for i := range 25 {
			h.Publish(hub.Topics("a"), fmt.Sprint("more ", i))
			time.Sleep(2 * hub.MaxPatience)
		}
		l.Stalled.Store(false)
		texts := l.Texts()
		if dropped := h.Stats().DroppedSlow; len(texts) != 11 || texts[0] != hubtest.Gap("slow_client") || dropped != 25 {
			t.Errorf("dropped %d, and then came %q", dropped, texts)
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
