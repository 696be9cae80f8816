package mercure

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// overRedis are the options of hubs that share subscriptions.
func overRedis(url string) string {
	return "anonymous\nsubscriptions\ntransport redis {\nurl " + url + "\n}\n"
}

// watcher keeps the list of who subscribes, as an application does: from the API, and from the events since.
type watcher struct {
	*site
	present map[string]subscription
	stream  *e2etest.Stream
}

// watch begins with what an instance lists.
func (s *site) watch() *watcher {
	s.t.Helper()
	c := s.listed(subscriptionsPath)
	w := &watcher{s, make(map[string]subscription), s.subscribe(
		[]string{everything}, bearer(subscribing(everything)), e2etest.LastEventID(c.LastEventID))}
	if told := cursorOfAnswer(w.stream); told != c.LastEventID {
		s.t.Fatalf("after %s the answer tells %q", c.LastEventID, told)
	}
	for _, one := range c.Subscriptions {
		w.present[one.ID] = one
	}
	return w
}

// of returns how many subscribe to a topic.
func (w *watcher) of(topic string) (n int) {
	for _, one := range w.present {
		if one.Topic == topic {
			n++
		}
	}
	return n
}

// await reads events until so many subscribe to a topic. It returns how long that took.
func (w *watcher) await(topic string, n int) time.Duration {
	w.t.Helper()
	began := time.Now()
	for w.of(topic) != n {
		event, err := w.stream.Next(patience)
		if err != nil {
			w.t.Fatalf("%d subscribe to %s, not %d: %v", w.of(topic), topic, n, err)
		}
		var one subscription
		if err := json.Unmarshal(event.Data, &one); err != nil {
			w.t.Fatal(err)
		}
		if w.present[one.ID] = one; !one.Active {
			delete(w.present, one.ID)
		}
	}
	return time.Since(began)
}

// awaitListed waits until an instance lists so many subscriptions to a topic.
func (s *site) awaitListed(topic string, n int) []subscription {
	s.t.Helper()
	var c collection
	e2etest.Await(s.t, fmt.Sprintf("%d subscriptions to %s are listed", n, topic), func() bool {
		answer := s.api(pathOf(topic), everything)
		if answer.Status != http.StatusOK { // while the log is away
			return false
		}
		answer.Decode(s.t, &c)
		return len(c.Subscriptions) == n
	})
	return c.Subscriptions
}

func TestRule45And48OverInstances(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	a, b := serve(t, overRedis(redis.URL())), serve(t, overRedis(redis.URL()))
	early := a.watch()
	token := signed(subscriberKey, `{"mercure":{"payload":{"user":"<alice>"}}}`)
	alice := b.subscribe([]string{"news", "with space/é"}, bearer(token))
	early.await("with space/é", 1)
	early.await("news", 1)
	// What an event tells is listed by then, on each instance.
	for _, s := range []*site{a, b} {
		for _, topic := range []string{"news", "with space/é"} {
			c := s.listed(pathOf(topic))
			if len(c.Subscriptions) != 1 || string(c.Subscriptions[0].Payload) != `{"user":"<alice>"}` {
				t.Errorf("of %s is listed %+v", topic, c.Subscriptions)
			}
		}
	}
	one := a.listed(pathOf("news")).Subscriptions[0]
	if answer := a.api(one.ID, everything); answer.Status != http.StatusOK {
		t.Errorf("a subscription of another instance: %d %s", answer.Status, answer.Body)
	}
	late := a.watch()
	alice.Close()
	for _, w := range []*watcher{early, late} {
		w.await("news", 0)
		w.await("with space/é", 0)
	}
	if c := a.listed(pathOf("news")); len(c.Subscriptions) != 0 {
		t.Errorf("of who has gone is listed %+v", c.Subscriptions)
	}
	wantRefusal(t, a.api(one.ID, everything), http.StatusNotFound)
}

// However much comes and goes on one instance, who asks the other has all.
func TestRule48ManyComeAndGoElsewhere(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	a, b := serve(t, overRedis(redis.URL())), serve(t, overRedis(redis.URL()))
	done := make(chan bool)
	go func() {
		defer close(done)
		for i := range 120 {
			stream, err := e2etest.Open(t.Context(), b.topics("t"))
			if err != nil {
				t.Error(err)
				return
			}
			if i%2 == 0 {
				stream.Close()
			} else {
				t.Cleanup(stream.Close)
			}
		}
	}()
	var watchers []*watcher
	for range 10 {
		watchers = append(watchers, a.watch())
	}
	<-done
	a.awaitListed("t", 60)
	b.subscribe([]string{"last"})
	for i, w := range watchers {
		if w.await("last", 1); w.of("t") != 60 {
			t.Errorf("who listed as number %d sees %d of 60", i, w.of("t"))
		}
	}
}

// The subscribers of an instance that is killed have left, and so have those of one that exits or leaves the option out.
func TestSubscribersOfAnInstanceThatIsGoneHaveLeft(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(*site){
		"kill":   func(s *site) { s.Kill() },
		"exit":   func(s *site) { s.Stop() },
		"reload": func(s *site) { check(s.t, s.Reload(siteWith("", inMemory))) },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			redis := e2etest.RedisServer(t)
			a, b := serve(t, overRedis(redis.URL())), serve(t, overRedis(redis.URL()))
			const n = 150
			for range n {
				e2etest.Subscribe(t, b.topics("t"))
			}
			w := a.watch()
			w.await("t", n)
			end(b)
			if took := w.await("t", 0); took > 15*time.Second {
				t.Errorf("they were there for %v", took)
			}
			if c := a.listed(pathOf("t")); len(c.Subscriptions) != 0 {
				t.Errorf("%d are listed", len(c.Subscriptions))
			}
		})
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// All instances die at once. Those that start soon after find who was there, and tell who is gone.
func TestSubscribersOfAllInstancesHaveLeft(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	a, b := serve(t, overRedis(redis.URL())), serve(t, overRedis(redis.URL()))
	e2etest.Subscribe(t, b.topics("t"))
	a.awaitListed("t", 1)
	c := a.listed(subscriptionsPath)
	b.Kill()
	a.Kill()
	a.Restart()
	w := &watcher{a, map[string]subscription{}, a.subscribe(
		[]string{everything}, bearer(subscribing(everything)), e2etest.LastEventID(c.LastEventID))}
	for _, one := range c.Subscriptions {
		w.present[one.ID] = one
	}
	w.await("t", 0)
}

// Subscribers live through a reload: nobody comes or goes.
func TestSubscribersLiveThroughAReload(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	a, b := serve(t, overRedis(redis.URL())), serve(t, overRedis(redis.URL()))
	b.subscribe([]string{"t"})
	w := a.watch()
	w.await("t", 1)
	check(t, b.Reload(siteWith("", overRedis(redis.URL())+"heartbeat 30s\n")))
	b.subscribe([]string{"marker"})
	for w.of("marker") == 0 {
		event, err := w.stream.Next(patience)
		check(t, err)
		var one subscription
		check(t, json.Unmarshal(event.Data, &one))
		if w.present[one.ID] = one; one.Topic == "t" && !one.Active {
			t.Errorf("told %s", event.Data)
		}
	}
	a.awaitListed("t", 1)
}

// An instance that was cut off for so long that the others took it for dead has the same subscribers again, under other
// names.
func TestSubscribersOfAnInstanceThatWasCutOffComeBack(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	line := e2etest.NewProxy(t, redis.Addr())
	a, b := serve(t, overRedis(redis.URL())), serve(t, overRedis(line.URL()))
	b.subscribe([]string{"t"})
	gone := b.subscribe([]string{"gone"})
	w := a.watch()
	w.await("t", 1)
	w.await("gone", 1)
	before := a.awaitListed("t", 1)[0]
	line.Cut()
	w.await("t", 0)
	gone.Close()
	b.subscribe([]string{"new"})
	answer := b.api(subscriptionsPath, everything)
	wantRefusal(t, answer, http.StatusServiceUnavailable)
	line.Heal()
	w.await("t", 1)
	w.await("new", 1)
	w.await("gone", 0)
	for _, s := range []*site{a, b} {
		if after := s.awaitListed("t", 1)[0]; after.Subscriber == before.Subscriber {
			t.Error("who was told to have gone is there again")
		}
		s.awaitListed("new", 1)
		s.awaitListed("gone", 0)
	}
}

// Redis forgets all. Streams end, because something may be missing, and clients come back. The list is whole again, and
// so is what is told from there on.
func TestSubscribersWhenRedisForgets(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t)
	a, b := serve(t, overRedis(redis.URL())), serve(t, overRedis(redis.URL()))
	stays, goes := b.subscribe([]string{"t"}), b.subscribe([]string{"t"})
	a.awaitListed("t", 2)
	redis.Kill()
	goes.Close()
	redis.Restart()           // it has kept nothing
	_ = stays.Ended(patience) // however it ends
	a.awaitListed("t", 0)
	b.subscribe([]string{"t"})
	w := a.watch()
	b.subscribe([]string{"marker"})
	w.await("marker", 1)
	w.await("t", 1)
	a.awaitListed("t", 1)
}
