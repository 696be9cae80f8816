package e2etest

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Cluster is a Redis Cluster of three masters.
type Cluster struct {
	Masters []*Redis
	// Replica is one more node, which copies the master that [Cluster.Replicate]
	// names and takes its place when it fails.
	Replica *Redis

	t testing.TB
}

// slots is how many a Cluster has.
const slots = 16384

// RedisCluster starts three masters and a fourth, empty node, and waits until
// they agree. A node counts as failed after three seconds: sooner, a
// machine that is busy would do for a failure.
func RedisCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	for range 4 {
		node := RedisServer(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "3000",
			"--cluster-port", strconv.Itoa(FreePort(t)), "--appendonly", "yes", "--appendfsync", "always",
			"--repl-diskless-sync-delay", "0")
		c.Masters = append(c.Masters, node)
	}
	c.Replica = c.Masters[3]
	first := c.Masters[0]
	for i, node := range c.Masters {
		if i < 3 {
			node.must("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/3), strconv.Itoa((i+1)*slots/3-1))
		}
		if i > 0 {
			first.must("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(node.port), node.must("CONFIG", "GET", "cluster-port")[len("cluster-port\n"):])
		}
	}
	for _, node := range c.Masters {
		c.await("the cluster to agree", func() bool {
			info, err := node.Do(time.Second, "CLUSTER", "INFO")
			nodes, _ := node.Do(time.Second, "CLUSTER", "NODES")
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:4") &&
				!strings.Contains(nodes, "handshake")
		})
	}
	c.Masters = c.Masters[:3]
	return c
}

// Addrs returns host and port of each master.
func (c *Cluster) Addrs() (addrs []string) {
	for _, node := range c.Masters {
		addrs = append(addrs, node.Addr())
	}
	return addrs
}

// MasterOf returns the master whose slots a key belongs to.
func (c *Cluster) MasterOf(key string) *Redis {
	c.t.Helper()
	slot, err := strconv.Atoi(c.Masters[0].must("CLUSTER", "KEYSLOT", key))
	if err != nil {
		c.t.Fatal(err)
	}
	for i, node := range c.Masters {
		if slot >= i*slots/3 && slot < (i+1)*slots/3 {
			return node
		}
	}
	return nil
}

// Replicate makes the fourth node a replica of a master and waits until it has
// all that the master has.
func (c *Cluster) Replicate(master *Redis) {
	c.t.Helper()
	c.Replica.must("CLUSTER", "REPLICATE", master.must("CLUSTER", "MYID"))
	c.await("the replica to copy its master", func() bool {
		replication, _ := c.Replica.Do(time.Second, "INFO", "replication")
		nodes, _ := c.Masters[0].Do(time.Second, "CLUSTER", "NODES")
		return strings.Contains(replication, "master_link_status:up") && strings.Contains(nodes, "slave")
	})
}

// AwaitTakeover waits until the replica has become a master.
func (c *Cluster) AwaitTakeover() {
	c.t.Helper()
	c.await("the replica to take over", func() bool {
		replication, _ := c.Replica.Do(time.Second, "INFO", "replication")
		info, _ := c.Replica.Do(time.Second, "CLUSTER", "INFO")
		return strings.Contains(replication, "role:master") && strings.Contains(info, "cluster_state:ok")
	})
}

// MoveSlot moves the slot of a key from one master to another. The keys named first go first; then it waits as
// long as it is told, and moves the others.
func (c *Cluster) MoveSlot(key string, from, to *Redis, wait time.Duration, first ...string) {
	c.t.Helper()
	slot := from.must("CLUSTER", "KEYSLOT", key)
	source, target := from.must("CLUSTER", "MYID"), to.must("CLUSTER", "MYID")
	to.must("CLUSTER", "SETSLOT", slot, "IMPORTING", source)
	from.must("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
	migrate := []string{"MIGRATE", "127.0.0.1", strconv.Itoa(to.port), "", "0", "5000", "REPLACE", "KEYS"}
	move := func(keys ...string) { from.must(append(slices.Clone(migrate), keys...)...) }
	move(first...)
	time.Sleep(wait)
	for {
		keys := strings.Fields(from.must("CLUSTER", "GETKEYSINSLOT", slot, "1000"))
		if len(keys) == 0 {
			break
		}
		move(keys...)
	}
	for _, node := range []*Redis{to, from} {
		node.must("CLUSTER", "SETSLOT", slot, "NODE", target)
	}
	for _, node := range c.Masters {
		c.await("the nodes to agree on the slot", func() bool {
			nodes, _ := node.Do(time.Second, "CLUSTER", "NODES")
			return !strings.Contains(nodes, "["+slot+"-") && holderOf(nodes, slot) == target
		})
	}
}

// holderOf returns the name of the node that has a slot, by the answer to CLUSTER NODES.
func holderOf(nodes, slot string) string {
	number, _ := strconv.Atoi(slot)
	for line := range strings.Lines(nodes) {
		fields := strings.Fields(line)
		for _, held := range fields[min(8, len(fields)):] {
			first, last, isRange := strings.Cut(held, "-")
			low, err := strconv.Atoi(first)
			high := low
			if isRange {
				high, _ = strconv.Atoi(last)
			}
			if err == nil && low <= number && number <= high {
				return fields[0]
			}
		}
	}
	return ""
}

func (c *Cluster) await(what string, holds func() bool) {
	c.t.Helper()
	awaitHolds(c.t, what, holds)
}

// awaitHolds waits until a condition holds.
func awaitHolds(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// must runs a command that has to work.
func (r *Redis) must(command ...string) string {
	r.t.Helper()
	answer, err := r.Do(patience, command...)
	if err != nil {
		r.t.Fatalf("%s: %v", strings.Join(command, " "), err)
	}
	return answer
}
