package redislog

import (
	"context"
	"crypto/tls"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// Options are what a log in Redis is opened with.
type Options struct {
	// Addrs are where Redis is: one server, the nodes of a Cluster or, with MasterName, the Sentinels.
	Addrs []string
	// MasterName is the name of the master that the Sentinels watch; empty where there are none.
	MasterName                         string
	Username, Password                 string
	SentinelUsername, SentinelPassword string
	DB                                 int
	// TLS is how to speak TLS with the servers; nil for plain TCP.
	TLS *tls.Config
	// OneServer tells that all servers have the name in TLS; otherwise each has that of its address.
	OneServer bool
	// Prefix is what the keys begin with.
	Prefix string
	// Channel is the pub/sub channel of ephemeral messages.
	Channel string
	// MaxLen is about how many messages the stream keeps.
	MaxLen int
	// Timeout is how long a publish may take.
	Timeout time.Duration
	// Logger is told what an operator should know.
	Logger *zap.Logger
}

// client returns what go-redis is to be told.
func (o *Options) client() *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:            slices.Clone(o.Addrs), // a Cluster's client appends
		MasterName:       o.MasterName,
		Username:         o.Username,
		Password:         o.Password,
		SentinelUsername: o.SentinelUsername,
		SentinelPassword: o.SentinelPassword,
		DB:               o.DB,
		TLSConfig:        o.TLS,
		ClientName:       "caddy-sse",
		// RESP2 has the entries of a stream as flat lists, in which a field may stand twice.
		Protocol: 2,
		// A publish must not be sent twice, so nothing is retried behind our back.
		MaxRetries:               -1,
		DialerRetries:            1,
		ContextTimeoutEnabled:    true,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		DialTimeout:              o.Timeout,
		ReadTimeout:              o.Timeout,
		WriteTimeout:             o.Timeout,
		PoolTimeout:              o.Timeout,
	}
}

// Open returns the log of a hub. It touches no network before Start.
func Open(hub string, o Options) *Log {
	base := "{" + o.Prefix + ":" + hub + "}:"
	l := &Log{
		Options:      o,
		hub:          hub,
		logKey:       base + "log",
		epochKey:     base + "epoch",
		idemKey:      base + "idem:",
		ownerKey:     base + "owner:",
		kickChannel:  base + "kick",
		presence:     newPresence(base),
		subscription: newSubscription(),
		unasked:      rate.Sometimes{Interval: time.Second},
		forbidden:    rate.Sometimes{Interval: time.Minute},
		queue:        make(chan *pendingPublish, maxPending),
		tried:        make(chan struct{}),

		ownersDoubted: make(chan struct{}, 1),
	}
	l.context, l.cancel = context.WithCancel(context.Background())
	l.severed, l.sever = context.WithCancel(context.Background())
	publishing, tailing := o.client(), o.client()
	publishing.Dialer, tailing.Dialer = l.dialer(false), l.dialer(true)
	tailing.ReadTimeout += blockTime // a read that blocks is silent that long; longer, and the line is dead
	l.publishing, l.tailing = redis.NewUniversalClient(publishing), redis.NewUniversalClient(tailing)
	return l
}

// Log is a hub's log in Redis. The stream is the log and its order the order; this instance
// publishes to it like any other program and tails it as a replica of its end.
type Log struct {
	Options
	hub      string
	logKey   string // the stream
	epochKey string // names the log's origin; set by whoever finds that the origin is another
	idemKey  string // + key: the answer given to an idempotency key
	ownerKey string // + client_id: the user it belongs to
	// kickChannel is a pub/sub channel of client_ids whose connections are to be ended, some or all.
	kickChannel string

	publishing   redis.UniversalClient
	tailing      redis.UniversalClient
	presence     *presence
	replica      *hub.Hub
	queue        chan *pendingPublish
	tried        chan struct{} // closed when the tail has tried to join the log, and may have
	joined       atomic.Bool   // the replica has what the log kept; what comes from then on is new
	acked        acks
	subscription *subscription

	ownersDoubted chan struct{}
	unasked       rate.Sometimes // when it is logged that Redis does not say whose client_ids are
	forbidden     rate.Sometimes // when it is logged that Redis forbids something

	context context.Context // ends with Close
	cancel  context.CancelFunc
	severed context.Context // ends when connections must
	sever   context.CancelFunc
	wg      sync.WaitGroup
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
func (l *Log) Start(h *hub.Hub, ready func()) {
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
func (l *Log) Close() error {
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
func (l *Log) node(ctx context.Context, client redis.UniversalClient) (redis.Cmdable, error) {
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
func (l *Log) within(ctx context.Context, call func() error) error {
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
func (l *Log) logFailure(what string, err error) {
	if redis.IsPermissionError(err) {
		l.forbidden.Do(func() {
			l.Logger.Warn("redis forbids what is needed; the README has a rule for its ACL",
				zap.String("hub", l.hub), zap.String("what", what), zap.Error(err))
		})
	}
	l.Logger.Debug(what, zap.String("hub", l.hub), zap.Error(err))
}

// skipMalformed passes over what some other program wrote, for ever.
func (l *Log) skipMalformed(where string, err error) {
	l.Logger.Warn("skipping a malformed message in redis", zap.String("hub", l.hub), zap.String("at", where), zap.Error(err))
	l.replica.CountMalformed()
}

// keepTrimming removes from the stream, now and then, what is too old.
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

// trimByAge removes from the stream what is too old for the hub's history. The newest entry stays, as
// the mark by which every tail knows that nothing after it was lost.
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

// wantedSince returns from when on messages are of use for the hub's history, or from a little earlier, in Unix
// milliseconds; 0 for ever.
func (l *Log) wantedSince(earlier time.Duration) uint64 {
	age := l.replica.Limits().History.Age
	if age <= 0 {
		return 0
	}
	return uint64(max(0, time.Now().Add(-age).Add(-earlier).UnixMilli()))
}
