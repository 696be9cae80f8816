package redislog

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// teller is an instance that only tells who listens there, and only when the test says so.
type teller struct {
	*Log
	t testing.TB
}

func newTeller(t testing.TB, url string) *teller {
	l := Open(defaultHub, newOptions(t, url, func(o *Options) { o.Logger = zap.NewNop() }))
	t.Cleanup(func() { _ = l.Close() })
	return &teller{l, t}
}

// tells tells the number of clients at addresses, written as the fields of the hash.
func (l *teller) tells(counts map[string]int) told {
	l.t.Helper()
	r, err := l.tell(l.publishing, counts, nil)
	if errors.Is(err, errUntold) { // it had to join
		r, err = l.tell(l.publishing, counts, nil)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// simulate has so many instances tell the same. They never die.
func simulate(t testing.TB, client *redis.Client, instances int, fields ...any) {
	t.Helper()
	l := newTeller(t, "redis://"+client.Options().Addr)
	for n := range instances {
		name := fmt.Sprint("simulated-", n)
		if _, err := l.callTell(client, name, nil, fields); err != nil {
			t.Fatal(err)
		}
		alive := redis.Z{Score: 1e15, Member: name}
		if err := client.ZAdd(t.Context(), l.presence.living(), alive).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// tenTopics are topics, and what an instance tells that has a client at each.
func tenTopics() (topics []hub.Address, fields []any) {
	for n := range 10 {
		topics = append(topics, hub.Topics(fmt.Sprint("topic/", n))...)
		fields = append(fields, presenceField(topics[n]), 1)
	}
	return topics, fields
}

func TestAPublishAsksRedisNoMoreForThreeHundredInstances(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	i := start(t, server.URL())
	topics, fields := tenTopics()
	const publishes = 500
	asked := func(instances int) (commands int) {
		simulate(t, client, instances, append(fields, "p:topic/*", 1)...)
		awaitReceivers(t, i, instances*20, topics...)
		do(t, client, "CONFIG RESETSTAT")
		for range publishes {
			if n := i.publish("x", topics...).Receivers; n != instances*20 {
				t.Fatalf("%d receivers of %d instances", n, instances)
			}
		}
		return callsOf(t, client, "hget") + callsOf(t, client, "hmget")
	}
	one := asked(1)
	if many := asked(300); one < 2*publishes || many > one+publishes { // heartbeats are among them
		t.Errorf("%d publishes ask %d times with one other instance, %d times with 300", publishes, one, many)
	}
}

func TestMalformedCountsHarmNoMessage(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, server.URL())
	b.subscribe(hubtest.With("news"))
	awaitPresence(a, b)
	awaitReceivers(t, a, 1, hub.Topics("news")...)
	r := a.subscribe(hubtest.With("news"))
	var want []string
	for n, value := range []string{"x", "", "nan", "inf", "-1", "1e300", "0x10", "99999999999999999999", "0.5"} {
		for _, key := range []string{a.log.presence.totals, a.log.presence.key(a.log.presence.instance)} {
			if err := client.HSet(t.Context(), key, "t:news", value).Err(); err != nil {
				t.Fatal(err)
			}
			text := fmt.Sprint(n, key)
			want = append(want, text)
			p := withKey(text, text, hub.Topics("news")...)
			if receipt, err := a.tryPublish(p); err != nil || receipt.Receivers < 1 || receipt.Receivers > 100 {
				t.Errorf("with %q in %s publishing gives %+v, error %v", value, key, receipt, err)
			}
		}
	}
	r.awaitText(want[len(want)-1])
	for _, text := range want {
		if n := count(r.got(), text); n != 1 {
			t.Errorf("%q came %d times", text, n)
		}
	}
	// Who next tells something there finds it out.
	b.subscribe(hubtest.With("news"))
	awaitReceivers(t, a, 3, hub.Topics("news")...)
	wantTotals(t, client)
}

func TestWhatADeadInstanceToldIsTakenBackInPieces(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a := start(t, server.URL())
	a.subscribe(hubtest.With("topic/1", "room/1/*"))
	dying := newTeller(t, server.URL())
	counts := map[string]int{"b:": 5000}
	for n := range 5000 {
		counts[fmt.Sprint("t:topic/", n)] = 2
		counts[fmt.Sprintf("p:room/%d/*", n)] = 1
	}
	dying.tells(counts)
	died := time.Now()
	awaitReceivers(t, a, 3, hub.Topics("topic/1")...)
	awaitReceivers(t, a, 2, hub.Topics("room/1/1")...)
	e2etest.Await(t, "the dead to be forgotten", func() bool {
		return client.ZCard(t.Context(), a.log.presence.living()).Val() == 1
	})
	if took := time.Since(died); took > 15*time.Second {
		t.Errorf("the counts of a dead instance lived on for %v", took)
	}
	awaitReceivers(t, a, 1, hub.Topics("topic/1")...)
	awaitReceivers(t, a, 1, hub.Topics("room/1/1")...)
	awaitReceivers(t, a, 0, hub.Topics("topic/2")...)
	wantTotals(t, client)
	e2etest.Await(t, "the patterns of the dead to be gone", func() bool {
		a.log.presence.mu.Lock()
		defer a.log.presence.mu.Unlock()
		return a.log.presence.patterns.Len() == 0
	})
	// It was not dead: it tells all again.
	if _, err := dying.tell(dying.publishing, map[string]int{}, nil); err == nil {
		t.Error("an instance whose counts were taken back is not told so")
	}
	dying.tells(counts)
	awaitReceivers(t, a, 3, hub.Topics("topic/1")...)
	wantTotals(t, client)
}

func TestWhatIsToldTwiceCountsOnce(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, server.URL())
	for n := range 2 * presenceChunk {
		b.subscribe(hubtest.With("news", fmt.Sprint("topic/", n)))
	}
	awaitReceivers(t, a, 2*presenceChunk, everybody)
	over := []any{"t:over", 1, "u:over", 1}
	if _, err := b.log.callTell(client, b.log.presence.instance, nil, over); err != nil {
		t.Fatal(err)
	}
	awaitReceivers(t, a, 1, hub.Topics("over")...)
	stop := make(chan struct{})
	go func() { // meanwhile nobody sees fewer than there are
		defer close(stop)
		for n := 0; n != 2*presenceChunk && t.Context().Err() == nil; {
			p := newPublication("x", everybody)
			p.Ephemeral = true
			if _, err := a.tryPublish(p); err != nil || p.Receipt.Receivers < 2*presenceChunk {
				t.Errorf("while all is told again there are %d receivers, error %v", p.Receipt.Receivers, err)
				return
			}
			n, _ = client.HGet(t.Context(), a.log.presence.totals, "t:over").Int()
			if n == 0 {
				return
			}
		}
	}()
	b.log.presence.doubted.raise()
	awaitReceivers(t, a, 0, hub.Topics("over")...)
	<-stop
	awaitReceivers(t, a, 2*presenceChunk, hub.Topics("news")...)
	wantTotals(t, client)
}

func TestPatternsAreReadAsTheyChange(t *testing.T) {
	server := e2etest.RedisServer(t)
	a, b := newTeller(t, server.URL()), newTeller(t, server.URL())
	a.tells(nil)
	counts := func(n int) map[string]int {
		counts := make(map[string]int)
		for i := range 12_000 {
			counts[fmt.Sprintf("p:room/%d/*", i)] = n
		}
		return counts
	}
	known := func() int { return a.presence.patterns.Len() }
	b.tells(counts(1))
	if a.tells(nil); known() != 12_000 {
		t.Fatalf("another instance knows %d patterns; want 12000", known())
	}
	if n := a.presence.countPatterns(hub.Topics("room/7/x", "room/7", "room/12000/x")); n != 1 {
		t.Errorf("the patterns have %d clients; want 1", n)
	}
	b.tells(map[string]int{"p:room/1/*": 0, "p:room/2/*": 3, "p:**": 1})
	r := a.tells(map[string]int{"p:own/**": 1})
	if len(r.changed) > 2*4 || r.again {
		t.Errorf("of three patterns that changed %d were told", len(r.changed)/2)
	}
	if n := a.presence.countPatterns(hub.Topics("room/1/x", "room/2/x", "own/x")); n != 1+4+1 {
		t.Errorf("after changes the patterns have %d clients; want 6", n)
	}
	if r := a.tells(nil); len(r.changed) > 0 {
		t.Errorf("with nothing changed %d patterns were told", len(r.changed)/2)
	}
	// More are gone than Redis remembers.
	b.tells(counts(0))
	if a.tells(nil); known() != 1 {
		t.Errorf("of all patterns but one that are gone an instance still knows %d", known()-1)
	}
	client := admin(t, server.URL())
	if n := client.ZCard(t.Context(), "{sse:default}:patterns:gone").Val(); n > 10_000 {
		t.Errorf("Redis remembers %d patterns that are gone", n)
	}
	b.tells(map[string]int{"p:**": 0})
	if a.tells(nil); known() != 0 {
		t.Errorf("an instance knows %d patterns of nobody", known())
	}
}

func TestNothingOfPresenceOutlivesAllInstances(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a, b := newTeller(t, server.URL()), newTeller(t, server.URL())
	a.tells(map[string]int{"t:a": 1, "p:a/*": 1})
	b.tells(map[string]int{"t:b": 1, "p:b/*": 1})
	b.tells(map[string]int{"p:b/*": 0})
	keys := client.Keys(t.Context(), "{sse:default}:*").Val()
	if len(keys) != 2+5 {
		t.Errorf("the keys are %q; want seven", keys)
	}
	for _, key := range keys {
		left := client.PTTL(t.Context(), key).Val()
		switch {
		case strings.HasSuffix(key, ":instances"):
		case strings.Contains(key, ":presence:"):
			if left <= 50*time.Second || left > time.Minute {
				t.Errorf("%s lives for %v; want longer than the totals", key, left)
			}
		case left <= 20*time.Second || left > 30*time.Second:
			t.Errorf("%s lives for %v", key, left)
		}
	}
	// Those that died with all others are forgotten by the next one.
	for _, key := range keys {
		if !strings.HasSuffix(key, ":instances") {
			do(t, client, "DEL "+key)
		}
	}
	c := start(t, server.URL())
	e2etest.Await(t, "the dead to be forgotten", func() bool {
		got := client.SMembers(t.Context(), "{sse:default}:instances").Val()
		return len(got) == 1 && got[0] == c.log.presence.instance
	})
}

// An instance from before there were totals knows the hashes only, and the set of all instances.
func TestOlderInstancesGoOnBesideNewOnes(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	i := start(t, server.URL())
	do(t, client, "HSET {sse:default}:presence:older alive 1 patterns {} t:news 1 c:c 2 b: 2") // first, as that one did
	do(t, client, "SADD {sse:default}:instances older")
	do(t, client, "SET "+ownerOfC+" alice PX 600000")
	i.subscribe(hubtest.With("news"))
	e2etest.Await(t, "an older instance to see the new one", func() bool {
		key := i.log.presence.key(i.log.presence.instance)
		got := client.HMGet(t.Context(), key, "alive", "t:news").Val()
		return got[0] == "1" && got[1] == "1" &&
			client.SIsMember(t.Context(), "{sse:default}:instances", i.log.presence.instance).Val()
	})
	i.publish("x", hub.Topics("news")...)
	if n, err := i.log.Connections(t.Context(), "c", false); n != 2 || err != nil {
		t.Errorf("a client_id has %d connections on an older instance, error %v; want 2", n, err)
	}
	e2etest.Await(t, "presence to be believed", func() bool { _, all := i.log.presence.known(); return all })
	i.wantOwned("bob")
	do(t, client, "DEL {sse:default}:presence:older")
	i.awaitFree("bob").leave()
	if client.SIsMember(t.Context(), "{sse:default}:instances", "older").Val() {
		t.Error("an older instance that is dead is not forgotten")
	}
}

func TestIdleInstancesSayNextToNothing(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, server.URL())
	for n := range 1000 {
		a.subscribe(hubtest.With(fmt.Sprintf("a/%d/*", n)))
		b.subscribe(hubtest.With(fmt.Sprintf("b/%d/**", n)))
	}
	awaitReceivers(t, a, 2000, everybody)
	awaitReceivers(t, b, 2000, everybody)
	awaitReceivers(t, a, 1, hub.Topics("b/999/x")...)
	awaitRounds(t, a, 2) // the last changes are read
	bytes := func() (sum int) {
		for line := range strings.Lines(client.Info(t.Context(), "stats").Val()) {
			for _, name := range []string{"total_net_input_bytes:", "total_net_output_bytes:"} {
				if n, ok := strings.CutPrefix(strings.TrimSpace(line), name); ok {
					var bytes int
					if _, err := fmt.Sscan(n, &bytes); err != nil {
						t.Fatal(err)
					}
					sum += bytes
				}
			}
		}
		return sum
	}
	began, from := time.Now(), bytes()
	<-time.After(5 * time.Second) // eleven rounds
	perSecond := float64(bytes()-from) / time.Since(began).Seconds()
	t.Logf("%.0f bytes/s", perSecond)
	if perSecond > 10_000 {
		t.Errorf("two idle instances send and get %.0f bytes/s", perSecond)
	}
}
