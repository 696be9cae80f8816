package redislog

import (
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// clockSlop is a difference between clocks that does no harm.
const clockSlop = time.Minute

// clock knows how this instance's clock differs from that of Redis, which gives out the IDs of entries. It
// may be hours. Until set is called it counts as none.
type clock struct {
	wall  func() time.Time // this instance's clock
	ahead atomic.Int64     // how far it is ahead of Redis's, a time.Duration
}

// set notes what Redis's clock says at this moment.
func (c *clock) set(redis time.Time) { c.ahead.Store(int64(c.wall().Sub(redis))) }

// now returns the time by Redis's clock.
func (c *clock) now() time.Time { return c.wall().Add(-time.Duration(c.ahead.Load())) }

// age returns how old an entry is by its ID, at least 0: any program may have chosen the ID.
func (c *clock) age(p hub.Position) time.Duration {
	now := c.now()
	return now.Sub(time.UnixMilli(int64(min(p.Major, uint64(now.UnixMilli())))))
}

// timeOf returns when, by this instance's clock, Redis gave out a position; at the latest now. A difference
// that does no harm is left, so that instances agree.
func (c *clock) timeOf(p hub.Position) time.Time {
	ahead := time.Duration(c.ahead.Load()).Round(clockSlop)
	now := c.wall().Add(-ahead)
	return time.UnixMilli(int64(min(p.Major, uint64(now.UnixMilli())))).Add(ahead)
}
