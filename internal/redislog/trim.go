package redislog

import (
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// keepTrimming removes from the stream, every trimEvery, what is too old.
func (l *Log) keepTrimming() {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	for {
		select {
		case <-l.context.Done():
			return
		case <-ticker.C:
		}
		if err := l.trimByAge(); err != nil && l.context.Err() == nil {
			l.logFailure("trimming the log failed", err)
		}
	}
}

// trimByAge removes from the stream what is too old for the hub's history. The newest entry stays: by it
// every tail knows that nothing after it was lost.
func (l *Log) trimByAge() error {
	wanted := l.wantedSince(clockSlop)
	if wanted == 0 {
		return nil
	}
	node, err := l.node(l.context, l.publishing)
	if err != nil {
		return err
	}
	newest, err := node.XRevRangeN(l.context, l.logKey, "+", "-", 1).Result()
	if err != nil || len(newest) == 0 {
		return err
	}
	keep, err := parseEntryID(newest[0].ID)
	if err != nil {
		return err
	}
	if oldest := (hub.Position{Major: wanted}); keep.After(oldest) {
		keep = oldest
	}
	return node.XTrimMinIDApprox(l.context, l.logKey, entryID(keep), 0).Err()
}

// wantedSince returns the publish time from which the hub's history keeps messages, less some slack, in Unix
// milliseconds. It returns 0 if messages have no maximum age.
func (l *Log) wantedSince(slack time.Duration) uint64 {
	age := l.replica.Limits().History.Age
	if age <= 0 {
		return 0
	}
	return uint64(max(0, time.Now().Add(-age).Add(-slack).UnixMilli()))
}
