package memlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/broker/brokertest"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// newTestLog returns a log that feeds a hub.
func newTestLog(t testing.TB, h *hub.Hub) *Log {
	t.Helper()
	log := Open()
	log.Start(h, func() {})
	return log
}

// mustPublish puts a batch into the log and returns the answer to its first message.
func (l *Log) mustPublish(t testing.TB, batch []*broker.Publication) broker.Receipt {
	t.Helper()
	if n, err := l.Publish(t.Context(), batch); err != nil || n != len(batch) {
		t.Fatalf("of %d messages %d were published: %v", len(batch), n, err)
	}
	return batch[0].Receipt
}

func TestReceiptHasTheIDAndTheReceivers(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	log := newTestLog(t, h.Hub)
	a, b := h.Join(hubtest.With("a")), h.Join(hubtest.With("*"))
	for i := range 3 {
		receipt := log.mustPublish(t, brokertest.One("a", fmt.Sprint(i), ""))
		if want := (broker.Receipt{ID: fmt.Sprint(log.Epoch, "-", i+1), Receivers: 2}); receipt != want {
			t.Errorf("the answer is %+v; want %+v", receipt, want)
		}
		for _, l := range []*hubtest.Client{a, b} {
			if told := l.Events()[0]; told.ID != receipt.ID {
				t.Errorf("clients are told %+v, the publisher %s", told, receipt.ID)
			}
		}
	}
	if receipt := log.mustPublish(t, brokertest.One("b", "x", "")); receipt.Receivers != 1 {
		t.Errorf("%d receivers; want 1", receipt.Receivers)
	}
}

func TestEphemeralMessageGetsNoID(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	log := newTestLog(t, h.Hub)
	h.Join(hubtest.With("a"))
	batch := brokertest.One("a", "tick", "")
	batch[0].Ephemeral = true
	if receipt := log.mustPublish(t, batch); receipt != (broker.Receipt{Receivers: 1}) {
		t.Errorf("the answer is %+v", receipt)
	}
}

func TestEveryLogHasItsOwnEpoch(t *testing.T) {
	epochs := make(map[string]bool)
	for range 100 {
		epochs[newTestLog(t, hub.NewHub(hubtest.Plenty)).Epoch] = true
	}
	if len(epochs) != 100 {
		t.Errorf("100 logs have %d epochs", len(epochs))
	}
}

func TestConcurrentPublishersShareOneOrder(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	log := newTestLog(t, h.Hub)
	s := hubtest.With("a")
	s.Queue = 1 << 20
	l := h.Join(s)
	var play hubtest.Traffic
	var mu sync.Mutex // guards placed
	placed := make(map[string]string)
	for range 4 {
		play.GoLoop(500, func(*rand.Rand) {
			batch := append(brokertest.One("a", hub.NewEpoch(), ""), brokertest.One("a", hub.NewEpoch(), "")...)
			texts := [2]string{string(batch[0].Data), string(batch[1].Data)}
			if n, err := log.Publish(t.Context(), batch); n != 2 || err != nil {
				t.Errorf("of 2 messages %d were published: %v", n, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for i, p := range batch {
				placed[p.Receipt.ID] = texts[i]
			}
		})
	}
	play.Wait()
	all := l.Events()
	if len(all) != 4000 {
		t.Fatalf("of 4000 messages %d came", len(all))
	}
	for i, e := range all {
		if want := fmt.Sprint(log.Epoch, "-", i+1); e.ID != want || placed[e.ID] != e.Text {
			t.Fatalf("message %d has the ID %s and reads %q; its publisher was told so of %q", i+1, e.ID, e.Text, placed[e.ID])
		}
	}
}

func TestPublisherThatStopsWaitingHasPublished(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	log := newTestLog(t, h.Hub)
	l := h.Join(hubtest.With("a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n, err := log.Publish(ctx, append(brokertest.One("a", "x", ""), brokertest.One("a", "y", "")...))
	if n != 2 || err != nil {
		t.Errorf("%d published, %v", n, err)
	}
	hubtest.Want(t, l.Texts(), "x", "y")
}

func TestKeyPublishesOnceAndRepeatsItsAnswer(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	log := newTestLog(t, h.Hub)
	l := h.Join(hubtest.With("a"))
	first := log.mustPublish(t, brokertest.One("a", "hi", "key"))
	h.Join(hubtest.With("a")) // the answer stays as it was
	if again := log.mustPublish(t, brokertest.One("a", "hi", "key")); again != first {
		t.Errorf("the second answer is %+v, the first was %+v", again, first)
	}
	if other := log.mustPublish(t, brokertest.One("a", "hi", "other")); other == first {
		t.Error("another key got the same answer")
	}
	log.mustPublish(t, brokertest.One("a", "hi", ""))
	log.mustPublish(t, brokertest.One("a", "hi", ""))
	hubtest.Want(t, l.Texts(), "hi", "hi", "hi", "hi")

	ephemeral := func() []*broker.Publication {
		batch := brokertest.One("a", "tick", "ephemeral")
		batch[0].Ephemeral = true
		return batch
	}
	log.mustPublish(t, ephemeral())
	if again := log.mustPublish(t, ephemeral()); again != (broker.Receipt{Receivers: 2}) {
		t.Errorf("the answer to a repeated ephemeral message is %+v", again)
	}
	hubtest.Want(t, l.Texts(), "tick")
}

func TestConcurrentUsesOfAKeyPublishOnce(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	log := newTestLog(t, h.Hub)
	l := h.Join(hubtest.With("a"))
	receipts := make(chan broker.Receipt, 100)
	var play hubtest.Traffic
	for range 4 {
		play.GoLoop(25, func(*rand.Rand) { receipts <- log.mustPublish(t, brokertest.One("a", "hi", "key")) })
	}
	play.Wait()
	close(receipts)
	for receipt := range receipts {
		if receipt.ID != log.Epoch+"-1" {
			t.Errorf("an answer is %+v", receipt)
		}
	}
	hubtest.Want(t, l.Texts(), "hi")
}

func TestKeyOfAnotherMessageIsRefusedAndKeepsItsAnswer(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	log := newTestLog(t, h.Hub)
	l := h.Join(hubtest.With("a"))
	first := log.mustPublish(t, brokertest.One("a", "hi", "key"))
	n, err := log.Publish(t.Context(), brokertest.One("a", "ho", "key"))
	if n != 0 || !errors.Is(err, broker.ErrKeyReused) {
		t.Errorf("%d published, %v", n, err)
	}
	if again := log.mustPublish(t, brokertest.One("a", "hi", "key")); again != first {
		t.Errorf("the key's answer was %+v and is %+v", first, again)
	}
	hubtest.Want(t, l.Texts(), "hi")
}

func TestBatchEndsAtTheFirstRefusal(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	log := newTestLog(t, h.Hub)
	l := h.Join(hubtest.With("a"))
	log.mustPublish(t, brokertest.One("a", "0", "key"))
	batch := slices.Concat(
		brokertest.One("a", "1", "before"), brokertest.One("a", "2", "key"), brokertest.One("a", "3", "behind"),
	)
	if n, err := log.Publish(t.Context(), batch); n != 1 || !errors.Is(err, broker.ErrKeyReused) {
		t.Errorf("%d published, %v", n, err)
	}
	hubtest.Want(t, l.Texts(), "0", "1")
	log.mustPublish(t, brokertest.One("a", "something else", "behind")) // its key was not used
}

func TestKeyIsForgottenAfterTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		log := newTestLog(t, h.Hub)
		first := log.mustPublish(t, brokertest.One("a", "hi", "key"))
		time.Sleep(5 * time.Minute)
		log.mustPublish(t, brokertest.One("a", "hi", "later"))
		time.Sleep(5*time.Minute - 1)
		if again := log.mustPublish(t, brokertest.One("a", "hi", "key")); again != first {
			t.Error("the key was forgotten too early")
		}
		time.Sleep(time.Nanosecond)
		if again := log.mustPublish(t, brokertest.One("a", "ho", "key")); again == first {
			t.Error("the key is not forgotten")
		}
		time.Sleep(10 * time.Minute)
		log.mustPublish(t, brokertest.One("a", "hi", "last"))
		if len(log.records.byKey) != 1 || len(log.records.order) != 1 {
			t.Errorf("%d keys are remembered, in an order of %d; want the last one",
				len(log.records.byKey), len(log.records.order))
		}
	})
}

func TestPublishIsRefusedAfterDrain(t *testing.T) {
	shared := hub.NewHub(hub.Limits{History: hub.HistoryLimits{Count: 10}})
	log := Open()
	log.Start(shared, func() {})
	publish := func(key string, ephemeral bool) (*broker.Publication, int, error) {
		m := &hub.Message{To: hub.Topics("a"), Data: []byte("x"), Ephemeral: ephemeral}
		p := &broker.Publication{Message: m, Key: key}
		n, err := log.Publish(t.Context(), []*broker.Publication{p})
		return p, n, err
	}
	before, n, err := publish("key", false)
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	shared.Drain()
	for _, ephemeral := range []bool{false, true} {
		if _, n, err := publish("", ephemeral); n != 0 || !errors.Is(err, hub.ErrDraining) {
			t.Errorf("ephemeral %v: %d messages published, %v; want none and ErrDraining", ephemeral, n, err)
		}
	}
	again, n, err := publish("key", false) // its answer may have been lost
	if n != 1 || err != nil || again.Receipt != before.Receipt {
		t.Errorf("a repeated request: %d, %v, %+v; want %+v", n, err, again.Receipt, before.Receipt)
	}
}
