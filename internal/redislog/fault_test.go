package redislog

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestNothingIsLostWhenRedisIsKilledAndComesBack(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	x := newTrial(t, start(t, server.URL()), start(t, server.URL()), start(t, server.URL()))
	for range 3 {
		server.Kill()
		for _, i := range x.instances {
			e2etest.Await(t, "the instance to notice", func() bool { return !i.LogUp() })
		}
		server.Restart()
		for _, i := range x.instances {
			i.awaitUp()
		}
		x.awaitProgress(100)
	}
	x.wantNoGaps(x.conclude())
}

func TestNothingIsLostWhenRedisHangsForTenSeconds(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	x := newTrial(t, start(t, server.URL()), start(t, server.URL()))
	server.Freeze()
	<-time.After(10 * time.Second) // how long Redis is to hang
	server.Thaw()
	x.wantNoGaps(x.conclude())
}

func TestNothingIsLostWhenOneInstanceIsCutOff(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	cut, other := start(t, proxy.URL(), withTimeout(500*time.Millisecond)), start(t, server.URL())
	x := newTrial(t, cut, other)
	for _, fault := range []func(){proxy.Cut, proxy.Hold} {
		fault()
		e2etest.Await(t, "the instance to notice", func() bool { return !cut.LogUp() })
		from := x.answered[1].get()
		e2etest.Await(t, "the other to go on", func() bool { return x.answered[1].get() > from+200 })
		proxy.Heal()
		x.awaitProgress(100)
	}
	x.wantNoGaps(x.conclude())
}

func TestNothingIsLostOnAFarAndSlowLine(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	x := newTrial(t, start(t, proxy.URL()), start(t, server.URL()))
	proxy.Slow(100*time.Millisecond, 50_000)
	x.awaitProgress(30)
	proxy.Cut()
	proxy.Heal()
	proxy.Slow(20*time.Millisecond, 20_000)
	x.awaitProgress(30)
	proxy.Heal()
	x.wantNoGaps(x.conclude())
}

func TestFlushUnderLoadIsToldAsAGap(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	x := newTrial(t, start(t, server.URL()), start(t, server.URL()), start(t, server.URL()))
	for _, command := range []string{
		"FLUSHALL", "DEL " + defaultLog, "XTRIM " + defaultLog + " MAXLEN 0", "DEL {sse:default}:epoch", "FLUSHALL",
	} {
		told := x.gaps()
		do(t, client, command)
		x.awaitProgress(100)
		if strings.HasPrefix(command, "XTRIM") { // every instance may already have had what it removed
			continue
		}
		e2etest.Await(t, "all to be told a gap after "+command, func() bool {
			for name, n := range x.gaps() {
				if n == told[name] {
					return false
				}
			}
			return true
		})
	}
	for name, n := range x.conclude() {
		if n > 20 {
			t.Errorf("client %s was told %d gaps of 4 to 5", name, n)
		}
	}
	epoch := x.instances[0].Position().Epoch
	for _, i := range x.instances {
		if i.Position().Epoch != epoch {
			t.Error("the instances don't agree on the epoch")
		}
	}
}

func TestClientsThatChangeInstancesLoseNothing(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	x := newTrial(t, start(t, server.URL()), start(t, server.URL()), start(t, server.URL()))
	for range 4 {
		x.wander()
	}
	x.awaitProgress(500)
	x.wantNoGaps(x.conclude())
}

func TestClientsThatChangeInstancesAreToldWhatRedisLoses(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	proxy := e2etest.NewProxy(t, server.Addr())
	client := admin(t, server.URL())
	faulty := start(t, proxy.URL(), withTimeout(300*time.Millisecond))
	x := newTrial(t, faulty, start(t, server.URL()), start(t, server.URL()))
	for range 4 {
		x.wander()
	}
	for range 3 {
		proxy.Hold()
		from := x.answered[1].get()
		e2etest.Await(t, "the others to go on", func() bool { return x.answered[1].get() > from+200 })
		do(t, client, "XTRIM "+defaultLog+" MAXLEN 50")
		proxy.Heal()
		x.awaitProgress(50)
		do(t, client, "FLUSHALL")
		x.awaitProgress(50)
		server.Kill()
		server.Restart()
		x.awaitProgress(50)
	}
	x.conclude()
}
