package redislog

import (
	"context"
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

// hasUpTo notes that this instance has the log up to an entry of that age, and that there is more.
func (f *freshness) hasUpTo(age time.Duration) {
	f.asOf.Store(time.Now().Add(-age).UnixMilli())
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

// newest returns the position of the newest entry that the log has now.
func (l *Log) newest(ctx context.Context) (hub.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return hub.Position{}, err
	}
	newest, err := node.XRevRangeN(ctx, l.logKey, "+", "-", 1).Result()
	if err != nil || len(newest) == 0 {
		return hub.Position{}, err
	}
	return parseEntryID(newest[0].ID)
}
