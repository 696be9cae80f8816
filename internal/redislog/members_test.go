package redislog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// withRooms gives rooms presence.
func withRooms(instances ...*instance) {
	limits := hubtest.Plenty
	limits.Policies = []hub.Policy{{Pattern: "room/*", Presence: true}}
	for _, i := range instances {
		i.Apply(limits)
	}
}

// person is the subscription of somebody with an info.
func person(clientID, user, info string, topics ...string) hub.Subscription {
	s := hubtest.With(topics...)
	s.ClientID, s.User, s.Info = clientID, user, info
	return s
}

// present returns who is at a topic, in short.
func (i *instance) presentAt(topic string) string {
	now, _ := i.PresenceOf(topic)
	names := []string{fmt.Sprint(now.Clients)}
	for _, p := range now.Users {
		names = append(names, p.User+":"+p.Info)
	}
	return strings.Join(names, " ")
}

// awaitPresent waits until somebody is at a topic. It returns how long that took.
func awaitPresent(t testing.TB, i *instance, topic, want string) time.Duration {
	t.Helper()
	began := time.Now()
	for got := ""; ; time.Sleep(10 * time.Millisecond) {
		if got = i.presentAt(topic); got == want {
			return time.Since(began)
		}
		if time.Since(began) > soon {
			t.Fatalf("at %s there are %q; want %q", topic, got, want)
		}
	}
}

// presenceTold is the data of a presence event.
type presenceTold struct {
	Clients      int
	Joined, Left []hub.Person
}

// told returns the presence events that a client got.
func (r *reader) told() (all []presenceTold) {
	r.t.Helper()
	for _, e := range r.got() {
		if e.Name != "presence" {
			continue
		}
		var one presenceTold
		if err := json.Unmarshal(e.Data, &one); err != nil {
			r.t.Error(err)
		}
		all = append(all, one)
	}
	return all
}

func TestWhoIsThereIsKnownOnAllInstances(t *testing.T) {
	server := e2etest.RedisServer(t)
	a, b, c := start(t, server.URL()), start(t, server.URL()), start(t, server.URL())
	withRooms(a, b)
	awaitPresence(a, b, c)
	watch := a.subscribe(person("w", "", "", "room/1"))
	ada := b.subscribe(person("a", "ada", "Ada", "room/1", "room/2"))
	awaitPresent(t, a, "room/1", "2 ada:Ada")
	again := a.subscribe(person("a", "ada", "Countess", "room/1")) // the same, elsewhere
	b.subscribe(person("o", "olga", "", "room/*"))
	b.subscribe(person("g", "", "Guest\x00 7", "room/1"))
	c.subscribe(person("c", "carol", "", "room/1")) // where rooms have no presence
	for _, i := range []*instance{a, b} {
		awaitPresent(t, i, "room/1", "4 :Guest\x00 7 ada:Ada olga:")
		awaitPresent(t, i, "room/2", "2 ada:Ada olga:")
		awaitPresent(t, i, "room/3", "1 olga:")
	}
	ada.leave()
	for _, i := range []*instance{a, b} { // she is still there, and her first info with her
		awaitPresent(t, i, "room/2", "1 olga:")
		if got := i.presentAt("room/1"); !strings.Contains(got, "4 ") {
			t.Errorf("at room/1 there are %s", got)
		}
	}
	again.leave()
	awaitPresent(t, b, "room/1", "3 :Guest\x00 7 olga:")
	sum := map[string]bool{}
	e2etest.Await(t, "all to be told", func() bool {
		all := watch.told()
		return len(all) > 0 && all[len(all)-1].Clients == 3
	})
	for _, one := range watch.told() {
		for _, p := range one.Joined {
			sum[p.User+p.Info] = true
		}
		for _, p := range one.Left {
			delete(sum, p.User+p.Info)
		}
	}
	if len(sum) != 2 || !sum["olga"] || !sum["Guest\x00 7"] {
		t.Errorf("the events add up to %v", sum)
	}

	// An instance without presence tells nothing, and reads nothing.
	if c.log.presence.members.of != 0 || len(c.log.presence.members.known) > 0 {
		t.Error("an instance without presence follows that of others")
	}
	for _, name := range admin(t, server.URL()).HKeys(t.Context(), c.log.presence.key(c.log.presence.instance)).Val() {
		if strings.HasPrefix(name, "m:") {
			t.Errorf("an instance without presence tells %q", name)
		}
	}
	withRooms(c) // by a reload
	awaitPresent(t, c, "room/1", "4 :Guest\x00 7 carol: olga:")
	awaitPresent(t, a, "room/1", "4 :Guest\x00 7 carol: olga:")
	c.Apply(hubtest.Plenty)
	awaitPresent(t, a, "room/1", "3 :Guest\x00 7 olga:")

	// Another log has other instances.
	a.swap(newOptions(t, server.URL(), func(o *Options) { o.Prefix = "other" }))
	awaitPresent(t, a, "room/1", "1")
}

func TestWhoIsThereIsAtMostTwoSecondsOld(t *testing.T) {
	server := e2etest.RedisServer(t)
	a, b := start(t, server.URL()), start(t, server.URL())
	withRooms(a, b)
	awaitPresence(a, b)
	var came, left []time.Duration
	for range 5 { // the machine may delay some of them
		r := b.subscribe(person("a", "ada", "", "room/1"))
		came = append(came, awaitPresent(t, a, "room/1", "1 ada:"))
		r.leave()
		left = append(left, awaitPresent(t, a, "room/1", "0"))
	}
	if usual := max(median(came), median(left)); usual > 2*time.Second {
		t.Errorf("who comes and goes is known after %v", usual)
	}
}

func TestClientsOfADeadInstanceHaveLeft(t *testing.T) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	a, dying, closing := start(t, server.URL()), start(t, proxy.URL()), start(t, server.URL())
	withRooms(a, dying, closing)
	const n = 600 // more than are swept in one step
	for i := range n {
		dying.subscribe(person(fmt.Sprint(i), "", "", "room/1"))
	}
	closing.subscribe(person("c", "carol", "", "room/1"))
	awaitPresent(t, a, "room/1", fmt.Sprint(n+1, " carol:"))
	closing.stop()
	awaitPresent(t, a, "room/1", fmt.Sprint(n))
	proxy.Cut()
	if took := awaitPresent(t, a, "room/1", "0"); took > 15*time.Second {
		t.Errorf("the clients of an instance that died were there for %v", took)
	}
	proxy.Heal()
	awaitPresent(t, a, "room/1", fmt.Sprint(n))
}

// When Redis forgets, nobody has left.
func TestNobodyLeavesWhenRedisForgets(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, server.URL())
	withRooms(a, b)
	awaitPresence(a, b)
	watch := a.subscribe(person("w", "", "", "room/1"))
	b.subscribe(person("a", "ada", "Ada", "room/1"))
	gone := b.subscribe(person("g", "", "Gone", "room/1"))
	awaitPresent(t, a, "room/1", "3 :Gone ada:Ada")
	for _, what := range []string{
		"FLUSHALL", "DEL {sse:default}:members", "SET {sse:default}:members spoilt", "DEL {sse:default}:totals", "restart",
	} {
		if what == "restart" {
			server.Kill()
			e2etest.Await(t, "the instances to notice", func() bool { return !a.LogUp() && !b.LogUp() })
			gone.leave() // while nobody can be told
			server.Restart()
			a.awaitUp()
			b.awaitUp()
		} else {
			do(t, client, what)
		}
		marker := b.subscribe(person(what, "marker", "", "room/1")) // when it has come the rest has as well
		e2etest.Await(t, "the marker to come after "+what, func() bool { return strings.Contains(a.presentAt("room/1"), "marker") })
		marker.leave()
		e2etest.Await(t, "the marker to leave after "+what, func() bool { return !strings.Contains(a.presentAt("room/1"), "marker") })
	}
	awaitPresent(t, a, "room/1", "2 ada:Ada")
	for _, one := range watch.told() {
		if slices.Contains(one.Left, hub.Person{User: "ada", Info: "Ada"}) {
			t.Errorf("told that ada has left: %+v", one)
		}
	}
}

// A restart moves all clients to other instances at once.
func TestStormOverInstancesIsAFewEvents(t *testing.T) {
	server := e2etest.RedisServer(t)
	a, b, c := start(t, server.URL()), start(t, server.URL()), start(t, server.URL())
	withRooms(a, b, c)
	awaitPresence(a, b, c)
	watch := a.subscribe(person("w", "", "", "room/1"))
	const n = 10_000
	began := time.Now()
	come := func(i *instance) {
		var coming sync.WaitGroup
		for part := range 4 {
			coming.Go(func() {
				for k := part; k < n; k += 4 {
					i.subscribe(person(fmt.Sprint("c", k), "", "", "room/1"))
				}
			})
		}
		coming.Wait()
	}
	come(b)
	awaitPresent(t, a, "room/1", fmt.Sprint(n+1))
	b.stop()
	come(c)
	awaitPresent(t, a, "room/1", fmt.Sprint(n+1))
	events, seconds := len(watch.told()), int(time.Since(began).Seconds())
	if events == 0 || events > seconds+2 {
		t.Errorf("told %d events in %d seconds", events, seconds)
	}
}

func TestForeignPresenceEventsAreMalformedWhereThereIsPresence(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a := start(t, server.URL())
	withRooms(a)
	watch := a.subscribe(hubtest.With("room/1", "other"))
	awaitSubscribed(t, client, "sse:messages", 1)
	client.XAdd(t.Context(), xadd("topic", "room/1", "event", "presence", "data", "fake"))
	client.Publish(t.Context(), "sse:messages", `{"topic":"room/1","event":"presence","data":"fake"}`)
	e2etest.Await(t, "both to be counted", func() bool { return a.malformed() == 2 })
	client.XAdd(t.Context(), xadd("topic", "other", "event", "presence", "data", "true"))
	e2etest.Await(t, "the other to come", func() bool {
		return slices.ContainsFunc(watch.got(), func(e eventstream.Event) bool { return string(e.Data) == "true" })
	})
	for _, e := range watch.got() {
		if string(e.Data) == "fake" {
			t.Errorf("got %+v", e)
		}
	}
}
