package redislog

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// purge purges topics, which must succeed.
func (i *instance) purge(topics ...string) {
	i.t.Helper()
	if err := i.log.Purge(i.t.Context(), hub.Purge{To: hub.Topics(topics...)}); err != nil {
		i.t.Fatalf("purging %q: %v", topics, err)
	}
}

// dataIn returns the data of the messages in the log.
func dataIn(t testing.TB, client *redis.Client) (all []string) {
	t.Helper()
	for _, m := range client.XRange(t.Context(), defaultLog, "-", "+").Val() {
		if data, ok := m.Values["data"]; ok {
			all = append(all, fmt.Sprint(data))
		}
	}
	return all
}

// wantResume checks what a client is told that comes back, and what it gets.
func (i *instance) wantResume(topic, id string, resume hub.Resume, want ...string) {
	i.t.Helper()
	r := i.subscribe(hubtest.Returning(hubtest.With(topic), id))
	if r.Resume != resume {
		i.t.Errorf("a client that comes back to %s with %s is told %q; want %q", topic, id, r.Resume, resume)
	}
	r.want(want...)
}

func TestAPurgeIsDoneOnEveryInstanceAndInTheStream(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, server.URL())
	here := b.subscribe(hubtest.With("*"))
	first := a.publish("first", hub.Topics("other")...).ID
	for k := range 3 * purgeChunk {
		to := hub.Topics([]string{"x", "y"}[k%2])
		if k == 10 {
			to = hub.Topics("x", "y")
		}
		a.publishAll(newPublication(fmt.Sprint(k), to...))
	}
	here.awaitText(fmt.Sprint(3*purgeChunk - 1))
	a.purge("x")
	left := slices.DeleteFunc(dataIn(t, client), func(text string) bool { return text == "first" })
	if len(left) != 3*purgeChunk/2+1 || left[5] != "10" {
		t.Errorf("the stream has %d messages, the sixth %q", len(left), left[5])
	}
	end := a.publish("end", hub.Topics("x")...).ID
	b.awaitID(end)
	here.awaitText("end")
	if here.gaps() > 0 {
		t.Error("a client that was there is told a gap")
	}
	later := start(t, server.URL())
	for _, i := range []*instance{a, b, later} {
		i.wantResume("x", first, hub.ResumeGap, "end")
		i.wantResume("x", end, hub.ResumeComplete)
		r := i.subscribe(hubtest.Returning(hubtest.With("y"), first))
		if r.awaitText(fmt.Sprint(3*purgeChunk - 1)); len(r.texts()) != 3*purgeChunk/2+1 {
			t.Errorf("the other topic has %d messages", len(r.texts()))
		}
	}
	b.purge("y")
	if left := dataIn(t, client); !slices.Equal(left, []string{"first", "end"}) {
		t.Errorf("a message to both topics stays without them: %q", left)
	}
	a.awaitID(b.Position().String())
	a.wantResume("y", first, hub.ResumeGap)
}

func TestAPurgeOfAKeyLeavesOtherKeysInTheStream(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	i := start(t, server.URL())
	before := i.publish("before", hub.Topics("other")...).ID
	for n, key := range []string{"k", "", "l", "k"} {
		p := newPublication(fmt.Sprint(n), hub.Topics("a")...)
		p.Message.Key = key
		i.publishAll(p)
	}
	for range 2 {
		if err := i.log.Purge(t.Context(), hub.Purge{To: hub.Topics("a"), Key: "k"}); err != nil {
			t.Fatal(err)
		}
		if left := dataIn(t, client); !slices.Equal(left, []string{"before", "1", "2"}) {
			t.Errorf("the stream has %q", left)
		}
	}
	for _, i := range []*instance{i, start(t, server.URL())} {
		i.wantResume("a", before, hub.ResumeGap, "1", "2")
	}
}

// An instance that was cut off goes on with the log where it was. Clients that it has may have missed what was purged.
func TestAnInstanceThatWasCutOffLearnsOfPurges(t *testing.T) {
	server := e2etest.RedisServer(t)
	line := e2etest.NewProxy(t, server.Addr())
	a, b := start(t, server.URL()), start(t, line.URL())
	a.publish("0", hub.Topics("z")...) // the log begins where it did
	here, other := b.subscribe(hubtest.With("x")), b.subscribe(hubtest.With("y"))
	before := a.publish("1", hub.Topics("x")...).ID
	here.want("1")
	epoch := b.Position().Epoch
	line.Cut()
	e2etest.Await(t, "the instance to be cut off", b.LogAway)
	a.publish("2", hub.Topics("x")...)
	a.publish("3", hub.Topics("y")...)
	a.purge("x")
	a.publish("4", hub.Topics("x")...)
	line.Heal()
	b.awaitUp()
	here.want("1", `gap {"reason":"history_trimmed"}`, "4")
	other.want("3")
	b.wantResume("x", before, hub.ResumeGap, "4")
	if now := b.Position().Epoch; now != epoch {
		t.Errorf("the log has another name: %s, %s before", now, epoch)
	}
}

func TestAnInstanceForWhichAPurgeWasTrimmedForgetsWhatItKeeps(t *testing.T) {
	server := e2etest.RedisServer(t)
	line := e2etest.NewProxy(t, server.Addr())
	small := func(o *Options) { o.MaxLen = 100 }
	a, b := start(t, server.URL(), small), start(t, line.URL(), small)
	before := a.publish("before", hub.Topics("y")...).ID
	b.awaitID(a.publish("secret", hub.Topics("x")...).ID)
	line.Cut()
	e2etest.Await(t, "the instance to be cut off", b.LogAway)
	a.purge("x")
	var last string
	for k := range 1000 {
		last = a.publish(fmt.Sprint(k), hub.Topics("y")...).ID
	}
	line.Heal()
	b.awaitUp()
	b.awaitID(last)
	b.wantResume("x", before, hub.ResumeGap)
	r := b.subscribe(hubtest.Returning(hubtest.With("x"), "unknown"))
	end := b.publish("end", hub.Topics("x")...)
	r.want("end")
	_ = end
}

// A publisher was told of a message that its own instance had not read when another one purged it. That is no reason to
// give the log up.
func TestAnAcknowledgedMessageMayBePurgedBeforeItIsRead(t *testing.T) {
	server := e2etest.RedisServer(t)
	line := e2etest.NewProxy(t, server.Addr())
	a := start(t, server.URL())
	b := launch(t, newOptions(t, server.URL()), tailingAt(line.Addr()))
	b.awaitReady()
	b.awaitUp()
	here := b.subscribe(hubtest.With("x"))
	b.publish("1", hub.Topics("x")...)
	here.want("1")
	epoch := a.Position().Epoch
	line.Hold()
	p := newPublication("2", hub.Topics("x")...)
	if _, err := b.tryPublish(p); err != nil {
		t.Fatal(err)
	}
	a.awaitID(p.Receipt.ID)
	a.purge("x")
	a.publish("3", hub.Topics("x")...)
	line.Heal()
	here.awaitText("3")
	if here.gaps() == 0 {
		t.Errorf("nothing tells that 2 is missing: %q", here.texts())
	}
	if now := b.Position().Epoch; now != epoch {
		t.Errorf("the log has another name: %s, %s before", now, epoch)
	}
}

func TestAPurgeWithoutRedisRemovesNothing(t *testing.T) {
	server := e2etest.RedisServer(t)
	line := e2etest.NewProxy(t, server.Addr())
	i := start(t, line.URL())
	before := i.publish("0", hub.Topics("y")...).ID
	i.awaitID(i.publish("1", hub.Topics("x")...).ID)
	line.Cut()
	err := i.log.Purge(t.Context(), hub.Purge{To: hub.Topics("x")})
	if !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("without Redis a purge returns %v", err)
	}
	line.Heal()
	i.awaitUp()
	i.wantResume("x", before, hub.ResumeComplete, "1")
}

// The hash of purges has no more than the log has been purged of: neither what was never there, nor what is long gone.
func TestPurgesAreForgottenWithTheirMessages(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	i := start(t, server.URL(), func(o *Options) { o.MaxLen = 1 })
	i.purge("never", "there")
	if n := client.HLen(t.Context(), "{sse:default}:purged").Val(); n != 0 {
		t.Errorf("a purge of nothing is remembered in %d fields", n)
	}
	for k := range 500 {
		topic := fmt.Sprint("t", k)
		for range 2 {
			i.publish("x", hub.Topics(topic)...)
		}
		i.purge(topic)
	}
	if n := client.HLen(t.Context(), "{sse:default}:purged").Val(); n == 0 || n > 300 {
		t.Errorf("of 500 purges %d are remembered; the log has about 100 entries", n)
	}
}

func TestPurgesThatCanNotBeReadAreMalformed(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	i := start(t, server.URL())
	before := i.publish("0", hub.Topics("y")...).ID
	i.publish("1", hub.Topics("x")...)
	for _, fields := range [][]string{
		{"purge", "1-0"},
		{"purge", "x", "topic", "x"},
		{"purge", "99999999999999-0", "topic", "x"},
		{"purge", "1-0", "broadcast", "1"},
		{"purge", "1-0", "topic", "*"},
		{"purge", "1-0", "topic", "x", "newest", "?"},
	} {
		client.XAdd(t.Context(), xadd(fields...))
	}
	i.awaitID(i.publish("2", hub.Topics("x")...).ID)
	if n := i.malformed(); n != 6 {
		t.Errorf("%d messages count as malformed; want 6", n)
	}
	i.wantResume("x", before, hub.ResumeComplete, "1", "2")
}

// What is held beside the stream, because it is the newest of its topic, goes as well.
func TestAPurgeReachesWhatIsHeldBesideTheStream(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	latest := func(i *instance) {
		limits := hubtest.Plenty
		limits.Policies = []hub.Policy{{Pattern: "x", History: &hub.Retention{Latest: true}}}
		i.Hub.Apply(limits)
	}
	small := newOptions(t, server.URL(), func(o *Options) { o.MaxLen = 10 })
	i := launch(t, small, latest)
	i.awaitReady()
	i.awaitUp()
	i.publish("secret", hub.Topics("x")...)
	var last string
	for k := range 500 {
		last = i.publish(fmt.Sprint(k), hub.Topics("y")...).ID
	}
	i.awaitID(last)
	if data := dataIn(t, client); slices.Contains(data, "secret") {
		t.Fatal("the stream was to be trimmed")
	}
	i.purge("x")
	if n := client.HLen(t.Context(), "{sse:default}:latest").Val(); n > 0 {
		t.Errorf("%d fields are held", n)
	}
	later := launch(t, small, latest)
	later.awaitReady()
	later.awaitUp()
	if kept := later.ListMessages("x", 10); len(kept) > 0 {
		t.Errorf("an instance that starts then has %d messages", len(kept))
	}
}
