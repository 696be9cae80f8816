package sse

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeliveryIsTimedFromTheLogToTheSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		before, _ := h.publish(Topics("a"), "before")
		h.publish(Topics("a"), "kept")
		time.Sleep(time.Hour)
		s := returning(with("a"), before)
		s.Heartbeat = time.Minute
		l := h.enter(s)
		l.Wrote(l.takeAll()) // how long it was kept is not the delivery's doing

		h.publish(Topics("a"), "slow")
		time.Sleep(2 * time.Second)
		h.publish(Topics("a"), "quick")
		batch := l.takeAll()
		time.Sleep(3 * time.Millisecond) // in which the socket takes them
		l.Wrote(batch)
		time.Sleep(time.Minute)
		l.Wrote(l.takeAll()) // a heartbeat is no message

		got := h.stats.delivery.histogram()
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
		if messages, bytes := l.Sent(); messages != 3 || h.stats.sent.Load() != 3 || bytes < uint64(len("keptslowquick")) {
			t.Errorf("sent %d messages with %d bytes, %d in all", messages, bytes, h.stats.sent.Load())
		}
	})
}

func TestDroppedMessagesAreCountedOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, plenty)
		s := with("a")
		s.Queue, s.SlowClient = 10, DropOldest
		l := h.enter(s)
		l.takeAll()
		l.blocked.Store(true)
		h.publish(Topics("a"), "0")
		l.take() // and is stuck
		time.Sleep(time.Minute)
		h.publishAll("a", 1, 10)
		for i := range 25 {
			h.publish(Topics("a"), fmt.Sprint("more ", i))
			time.Sleep(2 * maxPatience)
		}
		l.blocked.Store(false)
		texts := l.texts()
		if dropped := h.stats.droppedSlow.Load(); len(texts) != 11 || texts[0] != gap("slow_client") || dropped != 25 {
			t.Errorf("dropped %d, and then came %q", dropped, texts)
		}
	})
}

func TestEveryEndHasAReasonOfItsOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, cause := range causes {
		name := NameOf(cause.err)
		if seen[name] || name != cause.name || strings.ToLower(name) != name {
			t.Errorf("%v is called %q", cause.err, name)
		}
		seen[name] = true
	}
	if name := NameOf(errors.New("any other")); name != otherCause || seen[name] {
		t.Errorf("any other is called %q", name)
	}
}
