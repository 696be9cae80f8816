package sse

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// redisLog is a hub's log in Redis. The stream is the log and its order the order; this instance
// publishes to it like any other program and tails it as a replica of its end.
type redisLog struct {
	*RedisBroker
	hub      string
	logKey   string // the stream
	epochKey string // names the log's origin; set by whoever finds that the origin is another
	idemKey  string // + key: the answer given to an idempotency key
	ownerKey string // + client_id: the user it belongs to
	// kickChannel is a pub/sub channel of client_ids whose connections are to be ended, some or all.
	kickChannel string

	publishing redis.UniversalClient
	tailing    redis.UniversalClient
	presence   *presence
	replica    *Hub
	queue      chan *pendingPublish
	tried      chan struct{} // closed when the tail has tried to join the log, and may have
	joined     atomic.Bool   // the replica has what the log kept; what comes from then on is new
	promises   promises
	hearing    *hearing

	ownersDoubted chan struct{}
	unasked       rate.Sometimes // when it is logged that Redis does not say whose client_ids are
	forbidden     rate.Sometimes // when it is logged that Redis forbids something

	context context.Context // ends with Close
	cancel  context.CancelFunc
	severed context.Context // ends when connections must
	sever   context.CancelFunc
	wg      sync.WaitGroup
	reach   // of the tail
	freshness
}

const (
	blockTime  = time.Second     // how long a read waits for the next entry
	closeTime  = time.Second / 2 // how long Redis may take to answer the last publishes
	tailCount  = 256             // entries of one read
	loadCount  = 1000            // entries of one read at the start
	readBytes  = 4 << 20         // of one read, about
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
	trimEvery  = time.Minute
	clockSlop  = time.Minute // how far Redis's clock and ours may differ
)

// Start implements Broker.
func (l *redisLog) Start(h *Hub, ready func()) {
	l.replica = h
	l.complete() // as far as anybody knows
	l.wg.Go(func() { l.tail(sync.OnceFunc(func() { close(l.tried); ready() })) })
	l.wg.Go(l.publishPending)
	l.wg.Go(l.listen)
	l.wg.Go(l.keepPresence)
	l.wg.Go(l.keepOwners)
	l.wg.Go(l.keepTrimming)
}

// Close implements Broker. What is being published is still answered. How connections end is no news.
func (l *redisLog) Close() error {
	l.cancel()
	_ = l.tailing.Close() // it may be waiting for the next entry
	defer time.AfterFunc(closeTime, l.sever).Stop()
	l.wg.Wait()
	l.sever()
	_ = l.publishing.Close()
	return nil
}

// node returns the server that has the log: of a Cluster the master of its slot, asked for anew
// after refresh.
func (l *redisLog) node(ctx context.Context, client redis.UniversalClient) (redis.Cmdable, error) {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, l.logKey)
	}
	return client, nil
}

// refresh looks for the log's master anew, where there is more than one server.
func refresh(ctx context.Context, client redis.UniversalClient) {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		cluster.ReloadState(ctx)
	}
}

// within returns what a call returns, or when ctx ends before it does: go-redis stops waiting at a deadline only.
func (l *redisLog) within(ctx context.Context, call func() error) error {
	returned := make(chan error, 1)
	l.wg.Go(func() { returned <- call() })
	select {
	case err := <-returned:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// logFailure tells of what will be tried again; the operator, if Redis will go on forbidding it.
func (l *redisLog) logFailure(what string, err error) {
	if redis.IsPermissionError(err) {
		l.forbidden.Do(func() {
			l.logger.Warn("redis forbids what is needed; the README has a rule for its ACL",
				zap.String("hub", l.hub), zap.String("what", what), zap.Error(err))
		})
	}
	l.logger.Debug(what, zap.String("hub", l.hub), zap.Error(err))
}

// skipMalformed passes over what some other program wrote, for ever.
func (l *redisLog) skipMalformed(where string, err error) {
	l.logger.Warn("skipping a malformed message in redis", zap.String("hub", l.hub), zap.String("at", where), zap.Error(err))
	l.replica.stats.droppedMalformed.Add(1)
}

// keepTrimming removes from the stream, now and then, what is too old.
func (l *redisLog) keepTrimming() {
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

// trimByAge removes from the stream what is too old for the hub's history. The newest entry stays, as
// the mark by which every tail knows that nothing after it was lost.
func (l *redisLog) trimByAge() error {
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
	if oldest := (Position{Major: wanted}); keep.After(oldest) {
		keep = oldest
	}
	return node.XTrimMinIDApprox(l.context, l.logKey, entryID(keep), 0).Err()
}

// wantedSince returns from when on messages are of use for the hub's history, or from a little earlier, in Unix
// milliseconds; 0 for ever.
func (l *redisLog) wantedSince(earlier time.Duration) uint64 {
	age := l.replica.Limits().History.Age
	if age <= 0 {
		return 0
	}
	return uint64(max(0, time.Now().Add(-age).Add(-earlier).UnixMilli()))
}
