package redislog

import (
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// freshness is the time up to which this instance has the log. The tail sets it, anybody may read it.
type freshness struct {
	asOf   atomic.Int64 // Unix milliseconds: what was in the log by then is here
	behind atomic.Bool  // whether the log had more than the last read gave
}

// hasAll notes that this instance has all of the log.
func (f *freshness) hasAll() {
	f.asOf.Store(time.Now().UnixMilli())
	f.behind.Store(false)
}

// hasUpTo notes that this instance has the log up to a position, and that there is more.
func (f *freshness) hasUpTo(p hub.Position) {
	f.asOf.Store(min(int64(p.Major), time.Now().UnixMilli())) // any program may have chosen the position
	f.behind.Store(true)
}

// Lag implements broker.Follower. A tail in good health reads the log at least once per blockTime.
func (l *Log) Lag() time.Duration {
	lag := time.Since(time.UnixMilli(l.freshness.asOf.Load()))
	if l.replica.LogInReach() && !l.freshness.behind.Load() && lag < 2*blockTime {
		return 0
	}
	return max(0, lag)
}
