package redislog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestKeyPublishesOnceOverAllInstances(t *testing.T) {
	server := e2etest.RedisServer(t)
	instances := []*instance{start(t, server.URL()), start(t, server.URL())}
	readers := []*reader{instances[0].subscribe(hubtest.With("a")), instances[1].subscribe(hubtest.With("a"))}
	awaitPresence(instances...)
	const keys, tries = 20, 8
	receipts := make([][tries]broker.Receipt, keys)
	var publishers sync.WaitGroup
	for try := range tries {
		publishers.Go(func() {
			for key := range keys {
				var err error
				p := withKey(strconv.Itoa(key), "text "+strconv.Itoa(key), hub.Topics("a")...)
				if receipts[key][try], err = instances[try%2].tryPublish(p); err != nil {
					t.Error(err)
				}
			}
		})
	}
	publishers.Wait()
	for key, same := range receipts {
		for _, r := range same {
			if r != same[0] || r.Receivers != 2 || r.ID == "" {
				t.Errorf("key %d was answered %v and %v", key, same[0], r)
			}
		}
	}
	instances[0].publish("last", hub.Topics("a")...)
	for _, r := range readers {
		r.awaitText("last")
		if got := r.texts(); len(got) != keys+1 {
			t.Errorf("%d keys published %d messages: %v", keys, len(got)-1, hubtest.Brief(got))
		}
	}
}

func TestEphemeralMessageRepeatsItsAnswer(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL())
	awaitSubscribed(t, admin(t, server.URL()), "sse:messages", 1)
	r := i.subscribe(hubtest.With("a"))
	for range 3 {
		p := withKey("k", "passing", hub.Topics("a")...)
		p.Ephemeral = true
		if got := i.publishAll(p)[0]; got != (broker.Receipt{ID: "", Receivers: 1}) {
			t.Errorf("the answer was %v", got)
		}
	}
	i.publish("last", hub.Topics("a")...)
	last := newPublication("last", hub.Topics("a")...)
	last.Ephemeral = true
	i.publishAll(last)
	r.await("both last ones", func(events []eventstream.Event) bool { return count(events, "last") == 2 })
	if n := count(r.got(), "passing"); n != 1 {
		t.Errorf("the key published %d ephemeral messages", n)
	}
}

func TestKeyOfAnotherMessageIsRefused(t *testing.T) {
	server := e2etest.RedisServer(t)
	a, b := start(t, server.URL()), start(t, server.URL())
	r := a.subscribe(hubtest.With("a"))
	first := a.publishAll(withKey("k", "first", hub.Topics("a")...))[0]
	batch := []*broker.Publication{
		newPublication("before", hub.Topics("a")...),
		withKey("k", "another", hub.Topics("a")...),
		newPublication("after", hub.Topics("a")...),
		withKey("free", "after too", hub.Topics("a")...),
	}
	for name, attempt := range map[string]func(context.Context, []*broker.Publication) (int, error){
		"checked": b.log.CheckKeys, "published": b.log.Publish,
	} {
		if n, err := attempt(t.Context(), batch); n != 1 || !errors.Is(err, broker.ErrKeyReused) {
			t.Errorf("%s %d, error %v; want 1 and ErrKeyReused", name, n, err)
		}
	}
	fine := []*broker.Publication{withKey("k", "first", hub.Topics("a")...), batch[3]}
	if n, err := b.log.CheckKeys(t.Context(), fine); n != 2 || err != nil {
		t.Errorf("of a batch that may be published %d are fine: %v", n, err)
	}
	if batch[0].Receipt.ID == "" || batch[2].Receipt.ID != "" {
		t.Errorf("the receipts are %v and %v", batch[0].Receipt, batch[2].Receipt)
	}
	// The key of the message that was not published is free. The first answer still stands.
	b.publishAll(withKey("free", "last", hub.Topics("a")...))
	if again := b.publishAll(withKey("k", "first", hub.Topics("a")...))[0]; again.ID != first.ID {
		t.Errorf("the key was answered %v and then %v", first, again)
	}
	r.want("first", "before", "last")
}

func TestKeysAreForgottenAfterTheirPeriod(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL())
	i.publishAll(withKey("k", "first", hub.Topics("a")...))
	left := admin(t, server.URL()).PTTL(t.Context(), "{sse:default}:idem:k").Val()
	if left > broker.IdempotencyPeriod || left < broker.IdempotencyPeriod-time.Minute {
		t.Errorf("the key is kept for %v; want %v", left, broker.IdempotencyPeriod)
	}
}

func TestPublishersShareCalls(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL())
	client := admin(t, server.URL())
	i.publish("loads the script", hub.Topics("b")...)
	r := i.subscribe(hubtest.With("a"))
	do(t, client, "CONFIG RESETSTAT")
	const publishers, each = 64, 50
	var running sync.WaitGroup
	for n := range publishers {
		running.Go(func() {
			for k := range each {
				if _, err := i.tryPublish(newPublication(fmt.Sprintf("%d/%d", n, k), hub.Topics("a")...)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	calls := callsOf(t, client, "evalsha") + callsOf(t, client, "eval")
	t.Logf("%d calls for %d messages", calls, publishers*each)
	if calls > publishers*each/8 {
		t.Errorf("%d messages of %d publishers took %d calls", publishers*each, publishers, calls)
	}
	r.await("all messages", func(events []eventstream.Event) bool { return len(events) == publishers*each })
	next := make(map[string]int)
	for _, text := range r.texts() {
		publisher, k, _ := strings.Cut(text, "/")
		if got, _ := strconv.Atoi(k); got != next[publisher] {
			t.Errorf("publisher %s: message %d came where %d was due", publisher, got, next[publisher])
		}
		next[publisher]++
	}
}

func TestBatchOfAnySizeIsPublished(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL())
	const n = 20_000 // a call of five times as many would have more arguments than Redis before 7 takes
	batch := make([]*broker.Publication, n)
	for k := range batch {
		batch[k] = newPublication(strconv.Itoa(k), hub.Topics("a")...)
	}
	do(t, admin(t, server.URL()), "CONFIG RESETSTAT")
	i.publishAll(batch...)
	if got := admin(t, server.URL()).XLen(t.Context(), defaultLog).Val(); got != n {
		t.Errorf("the log has %d messages; want %d", got, n)
	}
	if calls := callsOf(t, admin(t, server.URL()), "evalsha"); calls < n/maxCallAddresses {
		t.Errorf("%d messages went in %d calls", n, calls)
	}
	for k := 1; k < n; k++ {
		before, _ := hub.ParseID(batch[k-1].Receipt.ID)
		after, _ := hub.ParseID(batch[k].Receipt.ID)
		if !after.Position.After(before.Position) {
			t.Fatalf("message %d got %v after %v", k, after, before)
		}
	}
}

func TestOneCallCarriesBoundedData(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL(), withTimeout(soon))
	do(t, admin(t, server.URL()), "CONFIG RESETSTAT")
	large := strings.Repeat("x", 1<<20)
	var running sync.WaitGroup
	for range 32 {
		running.Go(func() {
			if _, err := i.tryPublish(newPublication(large, hub.Topics("a")...)); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if calls := callsOf(t, admin(t, server.URL()), "evalsha"); calls < 8 {
		t.Errorf("32 MiB went in %d calls; a slow link would time out with all of them", calls)
	}
}

func TestBadKeyHarmsNoOtherMessage(t *testing.T) {
	server := e2etest.RedisServer(t)
	a, b := start(t, server.URL()), start(t, server.URL())
	client := admin(t, server.URL())
	do(t, client, "RPUSH {sse:default}:idem:bad x")
	r := a.subscribe(hubtest.With("a"))
	b.subscribe(hubtest.With("a"))
	awaitPresence(a, b)
	n, err := a.log.Publish(t.Context(), []*broker.Publication{
		newPublication("1", hub.Topics("a")...),
		withKey("bad", "2", hub.Topics("a")...),
		newPublication("3", hub.Topics("a")...),
	})
	if n != 1 || !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("published %d, error %v; want 1, ErrUnavailable", n, err)
	}
	// Messages don't depend on presence, even if it is damaged.
	do(t, client, "SET {sse:default}:presence:"+b.log.presence.instance+" spoilt")
	a.publish("4", hub.Topics("a")...)
	r.want("1", "4")
	awaitReceivers := func() {
		t.Helper()
		e2etest.Await(t, "presence to mend", func() bool {
			return a.publish("more", hub.Topics("a")...).Receivers == 2
		})
	}
	awaitReceivers()
	// Nor does it stay damaged if it is about to be told anew, and nothing has given the key a time to live.
	do(t, client, "SET {sse:default}:presence:"+b.log.presence.instance+" spoilt")
	b.log.presence.doubted.raise()
	awaitReceivers()
}

func TestPublishIsBoundedInTimeWhileRedisHangs(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL(), withTimeout(time.Second))
	r := i.subscribe(hubtest.With("a"))
	i.publish("before", hub.Topics("a")...)
	server.Freeze()
	const publishers = 16
	errs := make([]error, publishers)
	var running sync.WaitGroup
	for n := range publishers {
		running.Go(func() {
			began := time.Now()
			_, errs[n] = i.tryPublish(withKey(strconv.Itoa(n), "message "+strconv.Itoa(n), hub.Topics("a")...))
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("publishing took %v", took)
			}
			if !errors.Is(errs[n], broker.ErrUnavailable) && !errors.Is(errs[n], broker.ErrUnknownOutcome) {
				t.Errorf("publishing to a Redis that hangs gave %v", errs[n])
			}
		})
	}
	running.Wait()
	server.Thaw()
	for n, err := range errs {
		if errors.Is(err, broker.ErrUnavailable) {
			continue // the message was not published, and must not be
		}
		e2etest.Await(t, "Redis to take messages again", func() bool {
			_, err := i.tryPublish(withKey(strconv.Itoa(n), "message "+strconv.Itoa(n), hub.Topics("a")...))
			return err == nil
		})
	}
	e2etest.Await(t, "Redis to take the last message", func() bool {
		_, err := i.tryPublish(withKey("last", "last", hub.Topics("a")...))
		return err == nil
	})
	r.awaitText("last")
	for n, err := range errs {
		want := 1
		if errors.Is(err, broker.ErrUnavailable) {
			want = 0
		}
		if got := count(r.got(), "message "+strconv.Itoa(n)); got != want {
			t.Errorf("message %d, first answered %v, came %d times", n, err, got)
		}
	}
	if r.gaps() > 0 {
		t.Error("the client was told a gap")
	}
}

func TestPublishEndsWithItsContext(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL(), withTimeout(20*time.Second))
	server.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := i.log.Publish(ctx, []*broker.Publication{newPublication("x", hub.Topics("a")...)})
	if err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("publishing ended after %v with %v", time.Since(began), err)
	}
	server.Thaw()
}
