package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/broker/brokertest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
	"github.com/caddy-sse/caddy-sse/internal/memlog"
)

func TestAKeyIsRememberedOverAReload(t *testing.T) {
	hub := use(t)
	defer release(t)
	old, young := config(1, memory{}), config(1, memory{})
	mustOffer(t, hub, old)
	publish := func() broker.Receipt {
		batch := brokertest.One("a", "hi", "key")
		if _, err := hub.Publish(t.Context(), batch); err != nil {
			t.Error(err)
		}
		return batch[0].Receipt
	}
	first := publish()
	mustOffer(t, hub, young)
	hub.Withdraw(old)
	if again := publish(); again != first {
		t.Errorf("after the reload the answer is %+v; it was %+v", again, first)
	}
}

// A reload from one broker to another and back, with a request under way.
func TestKeysAreRememberedOverReloadsThatChangeTheBroker(t *testing.T) {
	h := use(t)
	defer release(t)
	settings := config(1, &testBroker{identity: "0"})
	mustOffer(t, h, settings)
	client := &hubtest.Hub{Hub: h.Core, T: t}
	l := client.Join(hubtest.With("a"))
	change := func(identity string) {
		next := config(1, &testBroker{identity: identity})
		mustOffer(t, h, next)
		h.Withdraw(settings)
		settings = next
	}
	request := func(n int) []*broker.Publication {
		var batch []*broker.Publication
		for i := range n {
			p := brokertest.One("a", fmt.Sprint("array ", i), "array")[0]
			p.Index, p.Fingerprint = i, [32]byte{1}
			batch = append(batch, p)
		}
		return batch
	}
	publish := func(batch []*broker.Publication) (receipts []broker.Receipt) {
		t.Helper()
		if n, err := h.Publish(t.Context(), batch); n != len(batch) || err != nil {
			t.Errorf("published %d of %d: %v", n, len(batch), err)
		}
		for _, p := range batch {
			receipts = append(receipts, p.Receipt)
		}
		return receipts
	}
	single, array := publish(brokertest.One("a", "hi", "key")), publish(request(2))
	change("1")
	array = append(array, publish(request(3))[2])
	for i := range maxLeftLogs - 2 {
		change(fmt.Sprint(i + 2))
	}
	hubtest.Want(t, publish(brokertest.One("a", "hi", "key")), single...)
	hubtest.Want(t, publish(request(3)), array...)
	other := brokertest.One("a", "other", "key")
	if n, err := h.Publish(t.Context(), other); n != 0 || !errors.Is(err, broker.ErrKeyReused) {
		t.Errorf("another message under the key: %d, %v", n, err)
	}
	if n, err := h.CheckKeys(t.Context(), other); n != 0 || !errors.Is(err, broker.ErrKeyReused) {
		t.Errorf("another message under the key is checked: %d, %v", n, err)
	}
	got := slices.DeleteFunc(l.Texts(), func(text string) bool { return text == hubtest.Gap("broker_changed") })
	hubtest.Want(t, got, "hi", "array 0", "array 1", "array 2")
	for i := range 3 { // no more than so many are remembered
		change(fmt.Sprint("more ", i))
	}
	if n := len(h.before.logs); n != maxLeftLogs {
		t.Errorf("%d brokers of before are remembered", n)
	}
}

// While the broker of before can't tell whether it knows a key, nobody may publish with one.
func TestAKeyIsRefusedWhileTheBrokerOfBeforeIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left leftLogs
		away := &awayRecords{Log: memlog.Open()}
		left.add(away)
		keyed, plain := brokertest.One("a", "hi", "key"), brokertest.One("a", "hi", "")
		if err := left.recall(t.Context(), keyed); !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("a message with a key: %v", err)
		}
		if err := left.recall(t.Context(), plain); err != nil {
			t.Errorf("a message without a key: %v", err)
		}
		time.Sleep(broker.IdempotencyPeriod)
		synctest.Wait()
		if err := left.recall(t.Context(), keyed); err != nil || !away.closed {
			t.Errorf("after ten minutes: %v, closed: %t", err, away.closed)
		}
		left.closeAll()
	})
}

// awayRecords is a log that can't be asked for its records.
type awayRecords struct {
	*memlog.Log
	closed bool
}

func (a *awayRecords) Records() broker.Records { return a }

func (a *awayRecords) Find(context.Context, string) (*broker.Record, error) {
	return nil, errors.New("it is away")
}

func (a *awayRecords) Close() error { a.closed = true; return nil }
