package redislog

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestInstancesAreOneHub(t *testing.T) {
	server := e2etest.RedisServer(t)
	a, b := start(t, server.URL()), start(t, server.URL())
	onA, onB := a.subscribe(hubtest.With("news")), b.subscribe(hubtest.With("news"))
	fromA := a.publish("from a", hub.Topics("news")...)
	fromB := b.publish("from b", hub.Topics("news")...)
	for _, r := range []*reader{onA, onB} {
		r.want("from a", "from b")
		if events := r.got(); events[0].ID != fromA.ID || events[1].ID != fromB.ID {
			t.Errorf("the messages came with the IDs %s and %s; published were %s and %s",
				events[0].ID, events[1].ID, fromA.ID, fromB.ID)
		}
	}
}

func TestEveryInstanceHasTheSameOrder(t *testing.T) {
	server := e2etest.RedisServer(t)
	var instances []*instance
	var readers []*reader
	for range 3 {
		i := start(t, server.URL())
		instances = append(instances, i)
		readers = append(readers, i.subscribe(hubtest.With("a", "b")))
	}
	const each = 100
	var publishers sync.WaitGroup
	for n, i := range instances {
		for p := range 4 {
			publishers.Go(func() {
				for k := range each {
					_, err := i.tryPublish(newPublication(fmt.Sprint(n, p, k), hub.Topics([]string{"a", "b"}[k%2])...))
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	publishers.Wait()
	last := instances[0].publish("last", hub.Topics("a")...)
	var first []string
	for n, r := range readers {
		r.awaitText("last")
		got := r.texts()
		if first == nil {
			first = got
		}
		if len(got) != 3*4*each+1 {
			t.Errorf("instance %d gave %d messages; want %d", n, len(got), 3*4*each+1)
		}
		hubtest.Want(t, got, first...)
		if id := r.lastID(); id != last.ID {
			t.Errorf("instance %d ends with ID %s; want %s", n, id, last.ID)
		}
	}
}

func TestClientResumesExactlyOnAnotherInstance(t *testing.T) {
	server := e2etest.RedisServer(t)
	a, b := start(t, server.URL()), start(t, server.URL())
	there, last := b.subscribe(hubtest.With("a")), ""
	fresh := a.subscribe(hubtest.With("a")).leave() // the ID of a client that has had no message yet
	r := a.subscribe(hubtest.With("a"))
	for i := range 10 {
		a.publish(strconv.Itoa(i), hub.Topics("a")...)
		a.publish("not for me", hub.Topics("b")...)
		if i == 4 {
			r.awaitText("4")
			last = r.leave()
		}
	}
	there.awaitText("9")
	for _, test := range []struct {
		from string
		want []string
	}{{last, hubtest.Numbers(5, 9)}, {fresh, hubtest.Numbers(0, 9)}} {
		back := b.subscribe(hubtest.Returning(hubtest.With("a"), test.from))
		if back.Resume != hub.ResumeComplete {
			t.Errorf("after %s another instance resumes with %q", test.from, back.Resume)
		}
		back.want(test.want...)
	}
}

func TestClientResumesOnALaggingInstanceWithoutAGap(t *testing.T) {
	t.Run("by a position", func(t *testing.T) { resumeOnALaggingInstance(t, hubtest.With("a"), "") })
	selectors, err := hub.ParseSelectors("a")
	if err != nil {
		t.Fatal(err)
	}
	s := hubtest.With()
	s.Form, s.Selectors = hub.Updates, selectors
	t.Run("by a URN", func(t *testing.T) { resumeOnALaggingInstance(t, s, "") })
	t.Run("by an ID that the publisher chose", func(t *testing.T) { resumeOnALaggingInstance(t, s, "chosen") })
}

func resumeOnALaggingInstance(t *testing.T, s hub.Subscription, chosenID string) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	ahead := start(t, server.URL())
	behind := launch(t, newOptions(t, server.URL()), tailingAt(proxy.Addr()))
	behind.awaitUp()
	r := ahead.subscribe(s)
	ahead.publish("1", hub.Topics("a")...)
	behind.awaitID(ahead.Position().String())
	proxy.Hold()
	second := newPublication("2", hub.Topics("a")...)
	second.ChosenID = chosenID
	ahead.publishAll(second)
	r.want("1", "2")
	s.LastEventID = r.leave()
	ahead.publish("3", hub.Topics("a")...)
	arrived := make(chan struct{})
	go func() {
		defer close(arrived)
		behind.Await(t.Context(), &s)
	}()
	select {
	case <-arrived:
		t.Error("the instance was not waited for")
	case <-time.After(100 * time.Millisecond):
	}
	proxy.Heal()
	<-arrived
	back := behind.subscribe(s)
	if back.Resume != hub.ResumeComplete {
		t.Errorf("with the ID %q it is resumed with %q", s.LastEventID, back.Resume)
	}
	back.want("3")
}

func TestInstanceStartsWithWhatTheLogKeeps(t *testing.T) {
	server := e2etest.RedisServer(t)
	a := start(t, server.URL())
	var ids []string
	for i := range 2500 { // several reads
		ids = append(ids, a.publish(strconv.Itoa(i), hub.Topics("a")...).ID)
	}
	a.stop()
	b := start(t, server.URL())
	for _, from := range []int{0, 1000, 2499} {
		r := b.subscribe(hubtest.Returning(hubtest.With("a"), ids[from]))
		if r.Resume != hub.ResumeComplete {
			t.Errorf("after message %d a new instance resumes with %q", from, r.Resume)
		}
		r.want(hubtest.Numbers(from+1, 2499)...)
	}
	if r := b.subscribe(hubtest.With("a")); r.Resume != hub.ResumeNone || r.ID != ids[2499] {
		t.Errorf("a new client begins with %q at %s; want %s", r.Resume, r.ID, ids[2499])
	}
}

func TestEachHubAndPrefixHasItsOwnLog(t *testing.T) {
	server := e2etest.RedisServer(t)
	name := func(hub string) func(*instance) { return func(i *instance) { i.name = hub } }
	prefix := func(p string) func(*Options) { return func(o *Options) { o.Prefix = p } }
	all := map[string]*instance{
		"default":  launch(t, newOptions(t, server.URL())),
		"chat":     launch(t, newOptions(t, server.URL()), name("chat")),
		"other":    launch(t, newOptions(t, server.URL(), prefix("other"))),
		"sse:chat": launch(t, newOptions(t, server.URL(), prefix("sse:chat")), name("x")),
	}
	readers := make(map[string]*reader)
	for name, i := range all {
		i.awaitReady()
		readers[name] = i.subscribe(hubtest.With("a", "**"))
	}
	for channel, n := range map[string]int64{"sse:messages": 2, "other:messages": 1, "sse:chat:messages": 1} {
		awaitSubscribed(t, admin(t, server.URL()), channel, n)
	}
	for name, i := range all {
		if got := i.publish("kept on "+name, hub.Topics("a")...).Receivers; got != 2 { // by topic and pattern
			t.Errorf("hub %s counts %d receivers; want 2", name, got)
		}
		ephemeral := newPublication("passing on "+name, everybody)
		ephemeral.Ephemeral = true
		if got := i.publishAll(ephemeral)[0].Receivers; got != 1 {
			t.Errorf("hub %s counts %d receivers of an ephemeral message; want 1", name, got)
		}
	}
	for name, i := range all {
		i.publish("last", hub.Topics("a")...)
		readers[name].awaitText("last")
		readers[name].awaitText("passing on " + name)
		if got := readers[name].texts(); len(got) != 3 {
			t.Errorf("hub %s gave its client %v", name, got)
		}
	}
	for _, key := range do(t, admin(t, server.URL()), "KEYS *").([]any) {
		if k := key.(string); k[0] != '{' {
			t.Errorf("a key without a hash tag: %s", k)
		}
	}
}
