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
	"github.com/caddy-sse/caddy-sse/broker/brokertest"
	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestInstanceStartsWhileRedisIsDown(t *testing.T) {
	for name, hang := range map[string]bool{"refusing": false, "hanging": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := e2etest.RedisServer(t)
			proxy := e2etest.NewProxy(t, server.Addr())
			elsewhere := start(t, server.URL())
			old := elsewhere.publish("old", hub.Topics("a")...)
			if hang {
				proxy.Hold()
			} else {
				proxy.Cut()
			}
			began := time.Now()
			i := launch(t, newOptions(t, proxy.URL(), withTimeout(time.Second)))
			i.awaitReady()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("clients were let in after %v", took)
			}
			fresh := i.subscribe(hubtest.With("a"))
			back := i.subscribe(hubtest.Returning(hubtest.With("a"), old.ID))
			if fresh.Resume != hub.ResumeNone || back.Resume != hub.ResumeGap {
				t.Errorf("clients join with %q and %q", fresh.Resume, back.Resume)
			}
			began = time.Now()
			_, err := i.tryPublish(newPublication("refused", hub.Topics("a")...))
			took := time.Since(began)
			if !errors.Is(err, broker.ErrUnavailable) && !hang || err == nil || took > 8*time.Second {
				t.Errorf("publishing ended after %v with %v", took, err)
			}
			elsewhere.publish("meanwhile", hub.Topics("a")...)
			proxy.Heal()
			began = time.Now()
			i.awaitUp()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the instance found Redis after %v", took)
			}
			i.awaitID(elsewhere.Position().String())
			i.publish("after", hub.Topics("a")...)
			fresh.want(hubtest.Gap("broker_changed"), "after")
			back.want(hubtest.Gap("broker_changed"), "after")
			again := i.subscribe(hubtest.Returning(hubtest.With("a"), old.ID))
			if again.Resume != hub.ResumeComplete {
				t.Errorf("once Redis is there an old ID is resumed with %q", again.Resume)
			}
			again.want("meanwhile", "after")
		})
	}
}

// Publishers have connections of their own, and may reach Redis before the tail does.
func TestFirstMessagesAfterAnOutageReachWaitingClients(t *testing.T) {
	proxy := e2etest.NewProxy(t, e2etest.RedisServer(t).Addr())
	proxy.Cut()
	i := launch(t, newOptions(t, proxy.URL(), withTimeout(time.Second)))
	i.awaitReady()
	e2etest.Await(t, "a few attempts, so that the next one is a while away", func() bool {
		return i.logs.Len() > 0 && !i.LogUp()
	})
	r := i.subscribe(hubtest.With("a"))
	proxy.Heal()
	events := []string{hubtest.Gap("broker_changed")}
	for deadline := time.Now().Add(soon); len(events) < 20; time.Sleep(time.Millisecond) {
		text := "message " + strconv.Itoa(len(events))
		// With a key the message is published once, even if its outcome is unknown at first.
		if _, err := i.tryPublish(withKey(text, text, hub.Topics("a")...)); err == nil {
			events = append(events, text)
		} else if time.Now().After(deadline) {
			t.Fatalf("publishing does not work: %v", err)
		}
	}
	r.want(events...)
}

func TestRedisThatRefusesWritesIsDown(t *testing.T) {
	for name, c := range map[string]struct{ from, to string }{
		"full":      {"CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"},
		"a replica": {"REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"},
		"alone":     {"CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := e2etest.RedisServer(t)
			client := admin(t, server.URL())
			i := start(t, server.URL())
			r := i.subscribe(hubtest.With("a"))
			i.publish("before", hub.Topics("a")...)
			do(t, client, c.from)
			e2etest.Await(t, "the instance to notice", func() bool {
				return !i.LogUp() && i.warnings("out of reach") > 0
			})
			for _, ephemeral := range []bool{false, true} {
				p := withKey("key", "refused", hub.Topics("a")...)
				p.Ephemeral = ephemeral
				if _, err := i.tryPublish(p); !errors.Is(err, broker.ErrUnavailable) {
					t.Errorf("publishing gave %v", err)
				}
			}
			do(t, client, c.to)
			e2etest.Await(t, "the instance to notice", func() bool {
				return i.LogUp() && i.warnings("is in reach") > 0
			})
			i.publish("after", hub.Topics("a")...)
			r.want("before", "after")
		})
	}
}

func TestCallsEndWithTheirContextWhileRedisHangs(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL(), withTimeout(10*soon))
	server.Freeze()
	one := func() []*broker.Publication { return brokertest.One("a", "x", "key") }
	for name, ask := range map[string]func(context.Context){
		"a claim":         func(ctx context.Context) { s := hubtest.As("c", "alice"); i.log.Claim(ctx, &s) },
		"a check of keys": func(ctx context.Context) { _, _ = i.log.CheckKeys(ctx, one()) },
		"publishing":      func(ctx context.Context) { _, _ = i.log.Publish(ctx, one()) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		began := time.Now()
		if ask(ctx); time.Since(began) > soon {
			t.Errorf("%s took %v", name, time.Since(began))
		}
	}
}

func TestRedisThatIsDownIsNotHammered(t *testing.T) {
	server := e2etest.RedisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	proxy := e2etest.NewProxy(t, server.Addr())
	i := start(t, proxy.URL())
	awaitSubscribed(t, admin(t, server.URL()), "sse:messages", 1)
	r := i.subscribe(hubtest.With("a"))
	i.publish("before", hub.Topics("a")...)
	server.Kill() // the proxy takes connections and closes them at once
	e2etest.Await(t, "the instance to notice", func() bool { return !i.LogUp() })
	from := proxy.Accepted()
	e2etest.Await(t, "it to try some times", func() bool { return proxy.Accepted() >= from+12 })
	began, from := time.Now(), proxy.Accepted()
	<-time.After(3 * time.Second) // this is the measurement
	perSecond := float64(proxy.Accepted()-from) / time.Since(began).Seconds()
	t.Logf("%.1f connections per second", perSecond)
	if perSecond > 6 {
		t.Errorf("%.1f connections per second", perSecond)
	}
	if n := i.warnings("out of reach"); n != 1 {
		t.Errorf("that Redis is out of reach was logged %d times", n)
	}
	server.Restart()
	began = time.Now()
	i.awaitUp()
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("the instance found Redis after %v", took)
	}
	i.publish("after", hub.Topics("a")...)
	r.want("before", "after")
	if n := i.warnings("is in reach"); n != 1 {
		t.Errorf("that Redis is in reach was logged %d times", n)
	}
	awaitSubscribed(t, admin(t, server.URL()), "sse:messages", 1)
	passing := newPublication("passing", hub.Topics("a")...)
	passing.Ephemeral = true
	i.publishAll(passing)
	r.want("before", "after", "passing")
}

// A Redis that refuses a single command of the tail must not make it loop.
func TestRedisThatForbidsReadingIsNotHammered(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	do(t, client, "ACL SETUSER sse on >secret ~* &* +@all -xread")
	i := launch(t, newOptions(t, "redis://sse:secret@"+server.Addr()))
	i.awaitReady()
	e2etest.Await(t, "the instance to notice", func() bool { return i.warnings("out of reach") > 0 })
	do(t, client, "CONFIG RESETSTAT")
	began := time.Now()
	<-time.After(3 * time.Second) // this is the measurement
	if perSecond := float64(callsOf(t, client, "xinfo|stream")) / time.Since(began).Seconds(); perSecond > 20 {
		t.Errorf("the tail began again %.1f times per second", perSecond)
	}
	do(t, client, "ACL SETUSER sse +xread")
	r := i.subscribe(hubtest.With("a"))
	i.publish("hello", hub.Topics("a")...)
	r.want("hello")
}

func TestSilentConnectionIsReplaced(t *testing.T) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	i := start(t, proxy.URL(), withTimeout(time.Second))
	elsewhere := start(t, server.URL())
	awaitSubscribed(t, admin(t, server.URL()), "sse:messages", 2)
	r := i.subscribe(hubtest.With("a"))
	i.publish("before", hub.Topics("a")...)
	r.want("before")
	proxy.Hold()
	began := time.Now()
	p := withKey("k", "unknown", hub.Topics("a")...)
	if _, err := i.tryPublish(p); !errors.Is(err, broker.ErrUnknownOutcome) {
		t.Errorf("publishing into a silent line gave %v", err)
	}
	for k := range 10 {
		elsewhere.publish(strconv.Itoa(k), hub.Topics("a")...)
	}
	e2etest.Await(t, "the silence to be found out", func() bool { return !i.LogUp() })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the silence was found out after %v", took)
	}
	proxy.Heal()
	i.awaitUp()
	e2etest.Await(t, "publishing to work", func() bool { _, err := i.tryPublish(p); return err == nil })
	i.publish("last", hub.Topics("a")...)
	r.awaitText("last")
	if n := count(r.got(), "unknown"); n != 1 {
		t.Errorf("a message of unknown outcome that was retried came %d times", n)
	}
	var rest []string
	for _, text := range r.texts() {
		if text != "unknown" {
			rest = append(rest, text)
		}
	}
	hubtest.Want(t, rest, append(append([]string{"before"}, hubtest.Numbers(0, 9)...), "last")...)
	awaitSubscribed(t, admin(t, server.URL()), "sse:messages", 2)
}

func TestPublishWorksAsSoonAsTheLogIsUp(t *testing.T) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	i := start(t, proxy.URL())
	for range 3 {
		proxy.Cut()
		e2etest.Await(t, "the instance to notice", func() bool { return !i.LogUp() })
		for range 100 { // after so many failures in a row go-redis stops connecting
			if _, err := i.tryPublish(newPublication("x", hub.Topics("a")...)); err == nil {
				t.Error("a message was published over a cut line")
			}
		}
		proxy.Heal()
		i.awaitUp()
		i.publish("after", hub.Topics("a")...)
	}
}

func TestPublishersShareCallsToADistantRedis(t *testing.T) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	i := start(t, proxy.URL())
	r := i.subscribe(hubtest.With("a"))
	proxy.Slow(50*time.Millisecond, 0)
	began := time.Now()
	var publishers sync.WaitGroup
	const n, each = 64, 10
	for p := range n {
		publishers.Go(func() {
			for k := range each {
				if _, err := i.tryPublish(newPublication(fmt.Sprint(p, k), hub.Topics("a")...)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	publishers.Wait()
	r.await("all messages", func(events []eventstream.Event) bool { return len(events) == n*each })
	// A call takes two trips, and publishers share calls. One after the other they would take 64 s.
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("%d messages of %d publishers took %v", n*each, n, took)
	}
	if r.gaps() > 0 {
		t.Error("a gap was told")
	}
}

// Each of these messages takes longer than the idle timeout, but bytes arrive all the time.
func TestLargeMessagesComeOverASlowLine(t *testing.T) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	elsewhere := start(t, server.URL())
	slow := launch(t, newOptions(t, server.URL(), withTimeout(time.Second)), tailingAt(proxy.Addr()))
	slow.awaitUp()
	before := slow.warnings("out of reach") // while it began
	r := slow.subscribe(hubtest.With("a"))
	proxy.Slow(5*time.Millisecond, 150_000) // each message takes longer than the idle timeout
	texts := make([]string, 3)
	for k := range texts {
		texts[k] = strings.Repeat(strconv.Itoa(k), 400_000)
		elsewhere.publish(texts[k], hub.Topics("a")...)
	}
	r.await("all messages", func(events []eventstream.Event) bool { return len(events) >= len(texts) })
	for k, e := range r.got() {
		if string(e.Data) != texts[k] {
			t.Errorf("event %d is %q with %d bytes", k, e.Name, len(e.Data))
		}
	}
	if n := slow.warnings("out of reach") - before; n != 0 {
		t.Errorf("the slow line counted as dead %d times", n)
	}
}

func TestLargeEphemeralMessagesComeOverASlowLine(t *testing.T) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	elsewhere, slow := start(t, server.URL()), start(t, proxy.URL(), withTimeout(time.Second))
	awaitSubscribed(t, admin(t, server.URL()), "sse:messages", 2)
	r := slow.subscribe(hubtest.With("a"))
	proxy.Slow(5*time.Millisecond, 150_000)
	texts := make([]string, 3)
	for k := range texts {
		p := newPublication(strings.Repeat(strconv.Itoa(k), 400_000), hub.Topics("a")...)
		texts[k], p.Ephemeral = string(p.Data), true
		elsewhere.publishAll(p)
	}
	r.want(texts...)
}

func TestRedisThatHangsDoesNotDelayClose(t *testing.T) {
	server := e2etest.RedisServer(t)
	var instances []*instance
	for range 4 {
		instances = append(instances, start(t, server.URL(), withTimeout(20*time.Second)))
	}
	server.Freeze()
	defer server.Thaw()
	errs := make(chan error, len(instances))
	for n, i := range instances {
		go func() {
			_, err := i.tryPublish(newPublication("x", hub.Topics("a")...))
			errs <- err
		}()
		if n%2 == 0 { // every other one is also telling its presence
			e2etest.Await(t, "the message to be under way", func() bool { return len(i.log.queue) == 0 })
		}
	}
	var closing sync.WaitGroup
	for _, i := range instances {
		closing.Go(func() {
			began := time.Now()
			i.stop()
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("closing took %v", took)
			}
		})
	}
	closing.Wait()
	for range instances {
		if err := <-errs; !errors.Is(err, broker.ErrUnavailable) && !errors.Is(err, broker.ErrUnknownOutcome) {
			t.Errorf("a message under way was answered %v", err)
		}
	}
}

func TestLagIsHowFarAnInstanceMayBeBehind(t *testing.T) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	i := launch(t, newOptions(t, server.URL(), withTimeout(500*time.Millisecond)), tailingAt(proxy.Addr()))
	i.awaitUp()
	r := i.subscribe(hubtest.With("a"))
	i.publish("1", hub.Topics("a")...)
	r.want("1")
	if lag := i.log.Lag(); lag != 0 {
		t.Errorf("an instance that has all is %v behind", lag)
	}
	proxy.Hold()
	held := time.Now()
	i.publish("2", hub.Topics("a")...)
	e2etest.Await(t, "the lag to show", func() bool { return i.log.Lag() > 0 })
	for _, up := range []bool{true, false} {
		if !up {
			e2etest.Await(t, "the instance to notice", func() bool { return !i.LogUp() })
		}
		if lag, atMost := i.log.Lag(), time.Since(held)+2*blockTime; lag < time.Second/2 || lag > atMost {
			t.Errorf("the instance is %v behind, at most %v", lag, atMost)
		}
	}
	proxy.Heal()
	r.want("1", "2")
	e2etest.Await(t, "the lag to be over", func() bool { return i.log.Lag() == 0 })
	many := make([]*broker.Publication, 5*tailCount)
	for n := range many {
		many[n] = newPublication(hubtest.Numbers(n, n)[0], hub.Topics("a")...)
	}
	proxy.Slow(0, 20_000)
	i.publishAll(many...)
	e2etest.Await(t, "the lag of many messages to show", func() bool { return i.log.Lag() > 0 })
	proxy.Heal()
	r.awaitText(hubtest.Numbers(len(many)-1, len(many)-1)[0])
	e2etest.Await(t, "the lag to be over", func() bool { return i.log.Lag() == 0 })
}
