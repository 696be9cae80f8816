package redislog

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestReceiversAreCountedOverAllInstances(t *testing.T) {
	server := e2etest.RedisServer(t)
	a, b, c := start(t, server.URL()), start(t, server.URL()), start(t, server.URL())
	awaitPresence(a, b, c)
	person := func(clientID, user string, topics ...string) hub.Subscription {
		s := hubtest.With(topics...)
		s.ClientID, s.User = clientID, user
		return s
	}
	a.subscribe(person("tab", "alice", "news"))
	b.subscribe(person("tab", "alice", "news", "room/1"))
	b.subscribe(person("x", "bob", "room/*"))
	b.subscribe(person("y", "", "room/*", "**"))
	c.subscribe(person("z", "bob", "room/1/**", "a/b"))
	for _, i := range []*instance{a, b, c} { // until each knows the counts of all
		awaitReceivers(t, i, 5, everybody)
		awaitReceivers(t, i, 3, hub.Topics("room/1")...) // one through ** alone, which covers room/*
		awaitReceivers(t, i, 2, hub.Topics("room/1/x")...)
	}
	for _, test := range []struct {
		to   []hub.Address
		want int
	}{
		{hub.Topics("news"), 3}, // a's, b's and **
		{hub.Topics("room/1"), 3},
		{hub.Topics("room/2"), 2},
		{hub.Topics("room/1/x"), 2}, // ** and room/1/**
		{hub.Topics("a/b"), 2},
		{hub.Topics("nobody"), 1}, // **
		{hub.Topics("news", "a/b"), 5},
		{[]hub.Address{{Kind: hub.ToClient, Name: "tab"}}, 2},
		{[]hub.Address{{Kind: hub.ToClient, Name: "z"}}, 1},
		{[]hub.Address{{Kind: hub.ToClient, Name: "nobody"}}, 0},
		{[]hub.Address{{Kind: hub.ToUser, Name: "alice"}}, 2},
		{[]hub.Address{{Kind: hub.ToUser, Name: "bob"}}, 2},
		{[]hub.Address{{Kind: hub.ToUser, Name: "carol"}}, 0},
		{[]hub.Address{everybody}, 5},
	} {
		for n, i := range []*instance{a, b, c} {
			if got := i.publish("x", test.to...).Receivers; got != test.want {
				t.Errorf("to %v instance %d counts %d receivers; want %d", test.to, n, got, test.want)
			}
		}
	}
}

// awaitReceivers waits until an instance counts so many receivers at an address. It returns how long that
// took.
func awaitReceivers(t testing.TB, i *instance, n int, to ...hub.Address) time.Duration {
	t.Helper()
	began := time.Now()
	e2etest.Await(t, fmt.Sprintf("%d receivers of %v", n, to), func() bool {
		p := newPublication("who is there?", to...)
		p.Ephemeral = true
		_, err := i.tryPublish(p)
		return err == nil && p.Receipt.Receivers == n
	})
	return time.Since(began)
}

func TestReceiversAreAtMostASecondOld(t *testing.T) {
	server := e2etest.RedisServer(t)
	a, b := start(t, server.URL()), start(t, server.URL())
	awaitPresence(a, b)
	exact, pattern := hub.Topics("news")[0], hub.Topics("room/1")[0]
	const tries = 5 // the machine may delay some of them
	took := map[string][]time.Duration{}
	for range tries {
		r := b.subscribe(hubtest.With("news", "room/*"))
		took["a new client"] = append(took["a new client"], awaitReceivers(t, a, 1, exact))
		took["a new pattern"] = append(took["a new pattern"], awaitReceivers(t, a, 1, pattern))
		r.leave()
		took["a client that left"] = append(took["a client that left"], awaitReceivers(t, a, 0, exact))
		took["a pattern that is left"] = append(took["a pattern that is left"], awaitReceivers(t, a, 0, pattern))
	}
	for what, took := range took {
		if usual := median(took); usual > 1200*time.Millisecond { // including the time that awaitReceivers takes
			t.Errorf("%s was counted after %v", what, usual)
		}
	}
}

func TestCountsOfADeadInstanceVanish(t *testing.T) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	a, dying := start(t, server.URL()), start(t, proxy.URL())
	closing := []*instance{start(t, server.URL()), start(t, server.URL()), start(t, server.URL())}
	all := append(closing, a, dying)
	for _, i := range all {
		i.subscribe(hubtest.With("news", "room/*"))
	}
	awaitReceivers(t, a, len(all), hub.Topics("news")...)
	awaitReceivers(t, a, len(all), hub.Topics("room/1")...)
	soonest := soon
	for n, i := range closing { // one of them may be too late to remove its counts
		i.stop()
		soonest = min(soonest, awaitReceivers(t, a, len(all)-n-1, hub.Topics("news")...))
	}
	if soonest > deadAfter/2 {
		t.Errorf("the counts of an instance that was closed lived on for %v at least", soonest)
	}
	proxy.Cut()
	if took := awaitReceivers(t, a, 1, hub.Topics("news")...); took > 15*time.Second {
		t.Errorf("the counts of an instance that died lived on for %v", took)
	}
	awaitReceivers(t, a, 1, hub.Topics("room/1")...)
	e2etest.Await(t, "the dead to be forgotten", func() bool {
		return len(do(t, admin(t, server.URL()), "SMEMBERS {sse:default}:instances").([]any)) == 1
	})
	proxy.Heal()
	awaitReceivers(t, a, 2, hub.Topics("news")...)
	awaitReceivers(t, a, 2, hub.Topics("room/1")...)
}

func TestCountsComeBackAfterALoss(t *testing.T) {
	server := e2etest.RedisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, server.URL())
	b.subscribe(hubtest.With("news", "room/*"))
	b.subscribe(hubtest.With("news"))
	for _, what := range []string{
		"", "FLUSHALL", "DEL {sse:default}:instances", "DEL {sse:default}:totals", "DEL {sse:default}:living",
		"DEL " + b.log.presence.key(b.log.presence.instance),
		"SET {sse:default}:totals spoilt", "SET {sse:default}:living spoilt",
		"SET {sse:default}:patterns:gone spoilt",
		"ZADD {sse:default}:living 0 " + b.log.presence.instance, // so that it is taken for dead
		"restart",
	} {
		switch what {
		case "":
		case "restart":
			server.Kill()
			e2etest.Await(t, "the instances to notice", func() bool { return !a.LogUp() && !b.LogUp() })
			server.Restart()
			a.awaitUp()
			b.awaitUp()
		default:
			do(t, client, what)
		}
		e2etest.Await(t, "publishing to work", func() bool {
			_, err := a.tryPublish(newPublication("x", hub.Topics("x")...))
			return err == nil
		})
		if took := awaitReceivers(t, a, 2, hub.Topics("news")...); took > 6*time.Second {
			t.Errorf("after %q the counts came back after %v", what, took)
		}
		awaitReceivers(t, a, 1, hub.Topics("room/1")...)
		e2etest.Await(t, "the instance to say that it lives", func() bool {
			return client.ZScore(t.Context(), b.log.presence.living(), b.log.presence.instance).Val() > 0
		})
		wantTotals(t, client)
	}
}

// wantTotals waits until the totals are what the instances have told.
func wantTotals(t *testing.T, client *redis.Client) {
	t.Helper()
	var totals, sums map[string]int
	counts := func(key string, sums map[string]int) {
		for field, n := range client.HGetAll(t.Context(), key).Val() {
			if isShare(field) {
				n, _ := strconv.Atoi(n)
				sums[field] += n
			}
		}
	}
	deadline := time.Now().Add(soon)
	for {
		totals, sums = make(map[string]int), make(map[string]int)
		counts("{sse:default}:totals", totals)
		for _, key := range client.Keys(t.Context(), "{sse:default}:presence:*").Val() {
			counts(key, sums)
		}
		if maps.Equal(totals, sums) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the totals are %v; the instances have told %v", totals, sums)
		}
		time.Sleep(50 * time.Millisecond) // the interval of the attempts
	}
}

func TestReceiversCostNoRoundTrip(t *testing.T) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	a, b := start(t, proxy.URL()), start(t, server.URL())
	b.subscribe(hubtest.With("news"))
	awaitPresence(a, b)
	a.publish("the script is there", hub.Topics("news")...)
	const latency = 100 * time.Millisecond
	proxy.Slow(latency, 0)
	took := make([]time.Duration, 3)
	for n := range took {
		began := time.Now()
		if got := a.publish("x", hub.Topics("news")...).Receivers; got != 1 {
			t.Errorf("%d receivers; want 1", got)
		}
		took[n] = time.Since(began)
	}
	if best := slices.Min(took); best > 4*latency {
		t.Errorf("publishing took %v, which is more than one round trip of %v", best, 2*latency)
	}
}

func TestPresenceTellsOnlyChanges(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a := start(t, server.URL())
	const clients = 5000
	for range clients {
		a.subscribe(hubtest.With("news"))
	}
	key := a.log.presence.key(a.log.presence.instance)
	e2etest.Await(t, "all clients to be told", func() bool {
		return client.HLen(t.Context(), key).Val() > clients
	})
	awaitRounds(t, a, 1)
	from := callsOf(t, client, "hset")
	awaitRounds(t, a, 4)
	if calls := callsOf(t, client, "hset") - from; calls > 0 {
		t.Errorf("with nothing changed presence was told %d times in four rounds", calls)
	}
	first := a.subscribe(hubtest.With("news"))
	awaitReceivers(t, a, clients+1, hub.Topics("news")...)
	e2etest.Await(t, "a new client to be told", func() bool {
		return client.HGet(t.Context(), key, "t:news").Val() == fmt.Sprint(clients+1)
	})
	first.leave()
	e2etest.Await(t, "a client to be forgotten", func() bool {
		return !client.HExists(t.Context(), key, "c:"+first.client.ClientID).Val()
	})
}

// awaitRounds waits for so many renewals of an instance's presence.
func awaitRounds(t testing.TB, i *instance, n int) {
	t.Helper()
	for range n {
		seen := func() float64 {
			p := i.log.presence
			return i.log.publishing.ZScore(t.Context(), p.living(), p.instance).Val()
		}
		last := seen()
		e2etest.Await(t, "presence to be renewed", func() bool { return seen() > last })
	}
}
