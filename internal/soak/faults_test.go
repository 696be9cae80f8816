package soak

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// fault is something that goes wrong. do returns what mends it.
type fault struct {
	kind string
	do   func(*world) (mend func())
}

// onInstance is a fault of one instance, whichever.
func onInstance(kind string, do func(w *world, i *instance) (mend func())) fault {
	return fault{kind, func(w *world) func() {
		return do(w, w.instances[random(w, func(rng *rand.Rand) int { return rng.IntN(len(w.instances)) })])
	}}
}

// killed is the one after which a hub in memory has another log.
var killed = onInstance("an instance is killed", func(w *world, i *instance) func() {
	w.end(i.server.Kill)
	return i.server.Restart
})

// end ends an instance, and with it the answers that it has asked for. One may begin until the instance is gone.
func (w *world) end(instance func()) {
	w.answers.ends.Add(1)
	instance()
	w.answers.ends.Add(1)
}

// ofInstances are the faults of any world.
func ofInstances(config string) []fault {
	return []fault{
		killed,
		onInstance("an instance exits and comes back", func(w *world, i *instance) func() {
			w.end(i.server.Stop)
			return i.server.Restart
		}),
		onInstance("an instance stands still", func(_ *world, i *instance) func() {
			i.server.Freeze()
			return i.server.Thaw
		}),
		onInstance("a reload", func(w *world, i *instance) func() {
			changed := fmt.Sprintf("history %d", 200000+random(w, func(rng *rand.Rand) int { return rng.IntN(1000) }))
			w.reload(i, strings.Replace(config, "history 200000", changed, 1))
			return func() { w.reload(i, config) }
		}),
		onInstance("a reload with a mistake", func(w *world, i *instance) func() {
			if i.server.Reload(strings.Replace(config, "conflate on", "conflate perhaps", 1)) == nil {
				w.t.Error("a config with a mistake was taken")
			}
			return func() {}
		}),
		onInstance("all lines are cut", func(_ *world, i *instance) func() {
			i.line.Break()
			return func() {}
		}),
		onInstance("nobody gets through", func(_ *world, i *instance) func() {
			i.line.Cut()
			return i.line.Heal
		}),
		onInstance("lines swallow everything", func(_ *world, i *instance) func() {
			i.line.Hold()
			return i.line.Heal
		}),
		onInstance("lines are slow", func(_ *world, i *instance) func() {
			i.line.Slow(30*time.Millisecond, 60_000)
			return i.line.Heal
		}),
	}
}

func (w *world) reload(i *instance, config string) {
	w.t.Helper()
	if err := i.server.Reload(config); err != nil {
		w.t.Errorf("reloading: %v", err)
	}
}

// worlds are the brokers, and how they can be had.
var worlds = []worldKind{
	{"memory", func(w *world) {
		config := w.siteWith("broker memory")
		w.start(1, config)
		w.faults = ofInstances(config)
	}},
	{"bolt", func(w *world) {
		dir := e2etest.SmallDisk(w.t, "256m")
		config := w.siteWith("broker bolt " + filepath.Join(dir, "sse.db"))
		w.start(1, config)
		w.faults = append(ofInstances(config),
			fault{"the disk is full", func(w *world) func() { return fill(w.t, dir) }},
			fault{"another broker, and back", func(w *world) func() {
				w.reload(w.instances[0], w.siteWith("broker memory"))
				return func() { w.reload(w.instances[0], config) }
			}})
	}},
	{"Redis", func(w *world) {
		redis := e2etest.RedisServer(w.t, "--appendonly", "yes", "--appendfsync", "always")
		line := e2etest.NewProxy(w.t, redis.Addr())
		config := w.siteWith("broker redis redis://" + line.Addr())
		w.start(3, config)
		w.lossy = true // who flushes it takes all
		w.faults = append(ofInstances(config),
			fault{"Redis is killed", func(*world) func() { redis.Kill(); return redis.Restart }},
			fault{"Redis stands still", func(*world) func() { redis.Freeze(); return redis.Thaw }},
			fault{"lines to Redis are cut", func(*world) func() { line.Break(); return func() {} }},
			fault{"lines to Redis swallow everything", func(*world) func() { line.Hold(); return line.Heal }},
			fault{"Redis is flushed", func(w *world) func() { w.redis(redis, "FLUSHALL"); return func() {} }},
			fault{"the stream is trimmed", func(w *world) func() {
				w.redis(redis, "XTRIM", "{sse:default}:log", "MAXLEN", "5")
				return func() {}
			}},
			fault{"Redis is full", func(w *world) func() {
				w.redis(redis, "CONFIG", "SET", "maxmemory", "1")
				return func() { w.redis(redis, "CONFIG", "SET", "maxmemory", "0") }
			}})
	}},
	{"Redis with Sentinels", func(w *world) {
		sentinels := e2etest.RedisSentinels(w.t)
		var addresses []string
		for _, addr := range sentinels.Addrs() {
			addresses = append(addresses, "redis://"+addr)
		}
		config := w.siteWith("broker redis " + strings.Join(addresses, " ") + " {\nmaster_name " + e2etest.MasterName + "\n}")
		w.start(2, config)
		w.lossy = true // a replica has not always all
		w.faults = append(ofInstances(config),
			fault{"the master is killed, and its replica takes over", func(*world) func() {
				sentinels.Master.Kill()
				sentinels.AwaitFailover()
				return sentinels.TakeBack
			}},
			fault{"the master is killed, and comes back", func(*world) func() {
				sentinels.Master.Kill()
				return sentinels.Master.Restart
			}},
			fault{"the replica is killed", func(*world) func() {
				sentinels.Replica.Kill()
				return sentinels.Replica.Restart
			}})
	}},
	{"Redis Cluster", func(w *world) {
		cluster := e2etest.RedisCluster(w.t)
		const key = "{sse:default}:log"
		holder := cluster.MasterOf(key)
		var addresses []string
		for _, addr := range cluster.Addrs() {
			addresses = append(addresses, "redis://"+addr)
		}
		config := w.siteWith("broker redis " + strings.Join(addresses, " "))
		w.start(2, config)
		w.faults = append(ofInstances(config),
			fault{"the log moves to another node", func(w *world) func() {
				to := holder
				for to == holder {
					to = cluster.Masters[random(w, func(rng *rand.Rand) int { return rng.IntN(len(cluster.Masters)) })]
				}
				cluster.MoveSlot(key, holder, to, w.between(0, 200*time.Millisecond))
				holder = to
				return func() {}
			}},
			fault{"the log's node is killed, and comes back", func(*world) func() {
				holder.Kill()
				return holder.Restart
			}},
			fault{"another node stands still", func(*world) func() {
				other := cluster.Masters[0]
				if other == holder {
					other = cluster.Masters[1]
				}
				other.Freeze()
				return other.Thaw
			}})
	}},
}

// worldKind makes a world of its kind.
type worldKind struct {
	name  string
	build func(*world)
}

func newWorld(t *testing.T, kind worldKind, rng *rand.Rand) *world {
	t.Helper()
	w := &world{
		t: t, name: kind.name, rng: rng,
		ledger: e2etest.NewLedger(), values: &values{newest: make(map[string]int)},
	}
	w.answers = newAnswers(w)
	kind.build(w)
	return w
}

func (w *world) redis(server *e2etest.Redis, command ...string) {
	w.t.Helper()
	if _, err := server.Do(patience, command...); err != nil {
		w.t.Errorf("%s: %v", strings.Join(command, " "), err)
	}
}

// fill takes what room a disk has, while others write to it.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("filling the disk: %v", err)
	}
	_ = filler.Close()
	return func() {
		if err := os.Remove(filler.Name()); err != nil {
			t.Error(err)
		}
	}
}
