package redislog

import (
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// at sets Options.Addrs.
func at(addrs []string) func(*Options) {
	return func(o *Options) {
		o.Addrs = addrs
	}
}

// wantFewGaps fails the test if a client was told more gaps than most. Redis answers before it copies to its
// replicas, so each failover may lose something once.
func (x *trial) wantFewGaps(gaps map[string]int, most int) {
	x.t.Helper()
	for name, n := range gaps {
		if n > most {
			x.t.Errorf("client %s was told %d gaps; want at most %d", name, n, most)
		}
	}
}

// strike makes a fault that puts the log out of reach, and returns when every instance has noticed. By then
// an instance may have found the log again.
func (x *trial) strike(fault func()) {
	x.t.Helper()
	before := make([]int, len(x.instances))
	for n, i := range x.instances {
		i.awaitUp() // an instance that is down already would not notice
		before[n] = i.warnings("out of reach")
	}
	fault()
	for n, i := range x.instances {
		e2etest.Await(x.t, "the instance to notice", func() bool { return i.warnings("out of reach") > before[n] })
	}
}

func TestNothingIsLostSilentlyWhenSentinelsFailOver(t *testing.T) {
	t.Parallel()
	sentinels := e2etest.RedisSentinels(t)
	instances := make([]*instance, 3)
	for n := range instances {
		instances[n] = start(t, "", at(sentinels.Addrs()), func(o *Options) { o.MasterName = e2etest.MasterName })
	}
	x := newTrial(t, instances...)
	x.failover = true
	x.strike(sentinels.Master.Kill)
	sentinels.AwaitFailover()
	x.awaitProgress(300)
	x.wantFewGaps(x.conclude(), 1)
}

func TestNothingIsLostSilentlyWhenAFrozenMasterComesBackAsAReplica(t *testing.T) {
	t.Parallel()
	sentinels := e2etest.RedisSentinels(t)
	instances := make([]*instance, 2)
	for n := range instances {
		instances[n] = start(t, "", at(sentinels.Addrs()), func(o *Options) { o.MasterName = e2etest.MasterName })
	}
	x := newTrial(t, instances...)
	x.failover = true
	x.strike(sentinels.Master.Freeze)
	sentinels.AwaitFailover()
	x.awaitProgress(100)
	sentinels.Master.Thaw() // now it gets what was sent to it while it was frozen
	x.awaitProgress(300)
	x.wantFewGaps(x.conclude(), 2)
}

func TestNothingIsLostSilentlyWhenAClusterFailsOver(t *testing.T) {
	t.Parallel()
	cluster := e2etest.RedisCluster(t)
	master := cluster.MasterOf(defaultLog)
	cluster.Replicate(master)
	instances := make([]*instance, 3)
	for n := range instances {
		instances[n] = start(t, "", at(cluster.Addrs()))
	}
	x := newTrial(t, instances...)
	x.failover = true
	for range 2 {
		x.wander()
	}
	x.strike(master.Kill)
	cluster.AwaitTakeover()
	x.awaitProgress(300)
	x.conclude()
}

func TestNothingIsLostWhenTheMasterInAClusterRestarts(t *testing.T) {
	t.Parallel()
	cluster := e2etest.RedisCluster(t)
	x := newTrial(t, start(t, "", at(cluster.Addrs())), start(t, "", at(cluster.Addrs())))
	master := cluster.MasterOf(defaultLog)
	for range 2 {
		x.strike(master.Kill)
		master.Restart()
		x.awaitProgress(100)
	}
	x.wantNoGaps(x.conclude())
}

// While a slot moves, its keys are at two servers. Instances notice at different times, and clients that move
// between them are ahead of some.
func TestClientsThatMoveWhileTheSlotMovesAreToldNoGap(t *testing.T) {
	t.Parallel()
	cluster := e2etest.RedisCluster(t)
	x := newTrial(t, start(t, "", at(cluster.Addrs())), start(t, "", at(cluster.Addrs())))
	for range 4 {
		x.wander()
	}
	here := cluster.MasterOf(defaultLog)
	away := cluster.Masters[0]
	if away == here {
		away = cluster.Masters[1]
	}
	for range 2 {
		// Long enough that reads that wait at the old server end, and short of how long a client is waited for.
		cluster.MoveSlot(defaultLog, here, away, 1500*time.Millisecond, defaultLog)
		here, away = away, here
		x.awaitProgress(100)
	}
	x.wantNoGaps(x.conclude())
	for _, i := range x.instances {
		if n := i.warnings("out of reach"); n > 0 {
			t.Errorf("an instance took the log for lost %d times", n)
		}
	}
}
