package redislog

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// at has a broker look for Redis at several addresses.
func at(addrs []string) func(*Options) {
	return func(o *Options) {
		o.Addrs = addrs
	}
}

// wantFewGaps fails the test if a client was told more gaps than there were failovers: Redis copies to
// its replicas after it has answered, so a failover may lose something, once.
func (x *trial) wantFewGaps(gaps map[string]int, most int) {
	x.t.Helper()
	for name, n := range gaps {
		if n > most {
			x.t.Errorf("client %s was told %d gaps; want at most %d", name, n, most)
		}
	}
}

// strike does what puts the log out of every instance's reach, and returns when each has noticed. It may have
// found it again by then.
func (x *trial) strike(fault func()) {
	x.t.Helper()
	before := make([]int, len(x.instances))
	for n, i := range x.instances {
		i.awaitUp() // or it would notice nothing
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
	sentinels.Master.Thaw() // and what it had not been asked yet it is asked now
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

func TestNothingIsLostWhenTheLogsMasterInAClusterRestarts(t *testing.T) {
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
