package e2etest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// MasterName is what the Sentinels call the master they watch.
const MasterName = "mymaster"

// Sentinels are a Redis with a replica, and three Sentinels that watch them.
type Sentinels struct {
	Master, Replica *Redis

	addrs []string
	t     testing.TB
}

// RedisSentinels starts them and waits until they know each other. A master
// counts as failed after half a second.
func RedisSentinels(t testing.TB) *Sentinels {
	t.Helper()
	s := &Sentinels{t: t}
	args := []string{"--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"}
	s.Master = RedisServer(t, args...)
	host, port, _ := strings.Cut(s.Master.Addr(), ":")
	s.Replica = RedisServer(t, append(args, "--replicaof", host+" "+port)...)
	awaitHolds(t, "the replica to copy its master", func() bool {
		replication, _ := s.Replica.Do(time.Second, "INFO", "replication")
		return strings.Contains(replication, "master_link_status:up")
	})
	for range 3 {
		s.startSentinel(host, port)
	}
	for _, addr := range s.addrs {
		awaitHolds(t, "the Sentinels to know each other", func() bool {
			info, _ := do(addr, time.Second, "INFO", "sentinel")
			return strings.Contains(info, "status=ok,address="+s.Master.Addr()+",slaves=1,sentinels=3")
		})
	}
	return s
}

func (s *Sentinels) startSentinel(host, port string) {
	s.t.Helper()
	dir := s.t.TempDir()
	own := FreePort(s.t)
	config := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\n", own, dir) +
		fmt.Sprintf("sentinel monitor %s %s %s 2\n", MasterName, host, port) +
		fmt.Sprintf("sentinel down-after-milliseconds %s 3000\nsentinel failover-timeout %s 3000\n", MasterName, MasterName)
	file, logFile := filepath.Join(dir, "sentinel.conf"), filepath.Join(dir, "sentinel.log")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	proc, err := startProcess(exec.Command(Need(s.t, "redis-server"), file, "--sentinel"), logFile)
	if err != nil {
		s.t.Fatalf("starting redis-sentinel: %v", err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", own)
	s.t.Cleanup(func() {
		proc.kill()
		showLogOnFailure(s.t, "redis-sentinel at "+addr, logFile)
	})
	s.addrs = append(s.addrs, addr)
}

// Addrs returns host and port of each Sentinel.
func (s *Sentinels) Addrs() []string { return s.addrs }

// AwaitFailover waits until the Sentinels have made the replica the master.
func (s *Sentinels) AwaitFailover() {
	s.t.Helper()
	want := strings.Replace(s.Replica.Addr(), ":", "\n", 1)
	for _, addr := range s.addrs {
		awaitHolds(s.t, "the failover", func() bool {
			master, _ := do(addr, time.Second, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName)
			return master == want
		})
	}
}

// TakeBack has the master that has failed come back as the replica of the other, which is the master from then on.
func (s *Sentinels) TakeBack() {
	s.t.Helper()
	s.Master, s.Replica = s.Replica, s.Master
	s.Replica.Restart()
	host, port, _ := strings.Cut(s.Master.Addr(), ":")
	s.Replica.must("REPLICAOF", host, port)
	awaitHolds(s.t, "the old master to copy the new one", func() bool {
		replication, _ := s.Replica.Do(time.Second, "INFO", "replication")
		return strings.Contains(replication, "role:slave") && strings.Contains(replication, "master_link_status:up")
	})
}
