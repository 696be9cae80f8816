package redislog

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// trimEvery is how often an instance looks for what is too old, or too much.
const trimEvery = time.Minute

// keepTrimming removes from the stream what is too old, and what other programs have added beyond MaxLen.
func (l *Log) keepTrimming() {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	for {
		select {
		case <-l.context.Done():
			return
		case <-ticker.C:
		case <-l.overfull:
		}
		if err := l.trim(l.context); err != nil && l.context.Err() == nil {
			l.logFailure("trimming the log failed", err)
		}
	}
}

// trim removes from the stream what is beyond MaxLen, and what is too old for the hub's history. It goes in
// steps, between which Redis does other things.
func (l *Log) trim(ctx context.Context) error {
	node, err := l.node(ctx, l.publishing)
	if err != nil {
		return err
	}
	keep := int64(-1)
	limits := l.replica.Limits()
	if age := limits.LongestAge(); age > 0 {
		keep = age.Milliseconds() + clockSlop.Milliseconds()
	}
	for removed := 1; removed > 0; {
		if removed, err = trimScript.Run(ctx, node, []string{l.logKey}, l.MaxLen, keep).Int(); err != nil {
			return err
		}
	}
	return nil
}

// trimScript trims the stream, by its length and by the time that Redis itself tells. The newest entry stays:
// by it every tail knows that nothing after it was lost.
//
// KEYS: the log.
//
// ARGV: max_len, how long entries are kept in ms; negative if no entry is ever too old.
//
// It returns how many entries it has removed. There may be more to remove, unless that is 0.
var trimScript = redis.NewScript(`
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not newest then return 0 end
local removed = redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[1])
local time, keep = redis.call('TIME'), tonumber(ARGV[2])
local oldest = time[1] * 1000 - keep
if keep < 0 or oldest <= 0 then return removed end
if oldest > tonumber(string.match(newest[1], '^%d+')) then
	oldest = newest[1]
else
	oldest = string.format('%.0f', oldest)
end
return removed + redis.call('XTRIM', KEYS[1], 'MINID', '~', oldest)
`)

// wantedSince returns the time, by Redis's clock, from which the hub's history keeps messages, less some
// slack, in Unix milliseconds. It returns 0 if messages have no maximum age.
func (l *Log) wantedSince(slack time.Duration) uint64 {
	limits := l.replica.Limits()
	age := limits.LongestAge()
	if age <= 0 {
		return 0
	}
	return uint64(max(0, l.clock.now().Add(-age).Add(-slack).UnixMilli()))
}
