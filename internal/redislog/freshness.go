package redislog

import (
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// freshness is up to when this instance has the log. The tail keeps it, anybody may look.
type freshness struct {
	asOf   atomic.Int64 // in milliseconds since 1970: whatever was in the log by then is here
	behind atomic.Bool  // there was more in the log than the last read gave
}

func (f *freshness) complete() {
	f.asOf.Store(time.Now().UnixMilli())
	f.behind.Store(false)
}

// partial notes that the log has been read up to a position, and goes on.
func (f *freshness) partial(p hub.Position) {
	f.asOf.Store(min(int64(p.Major), time.Now().UnixMilli())) // anybody may have chosen the position
	f.behind.Store(true)
}

// Lag implements Follower. A tail that is well looks at the log once per blockTime at least.
func (l *Log) Lag() time.Duration {
	lag := time.Since(time.UnixMilli(l.asOf.Load()))
	if l.replica.LogInReach() && !l.behind.Load() && lag < 2*blockTime {
		return 0
	}
	return max(0, lag)
}
