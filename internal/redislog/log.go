// Package redislog keeps a hub's log in Redis, for any number of instances. A stream is the log and its order
// is the order. Each instance publishes to the stream like any other program, and tails it as a replica of
// its end.
//
// The tail delivers what the stream has, or tells clients a gap. It checks on every read that the stream is
// still the one it followed. Malformed entries are skipped, counted and logged. A publish that fails says
// whether its outcome is known.
//
// Ephemeral messages, kicks and claims go by pub/sub. An instance that can't listen for a while misses
// messages and kicks, and asks for the owners of client_ids again.
package redislog

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Options are the settings of a log in Redis.
type Options struct {
	// Addrs are the addresses of one server, of the nodes of a Cluster or, with MasterName, of the Sentinels.
	Addrs []string
	// MasterName is the name of the master that the Sentinels watch; empty without Sentinels.
	MasterName string
	// Username and Password are the credentials for Redis; empty for none.
	Username, Password string
	// SentinelUsername and SentinelPassword are the credentials for the Sentinels; empty for none.
	SentinelUsername, SentinelPassword string
	// DB is the number of the database.
	DB int
	// TLS is how to speak TLS with the servers; nil for plain TCP.
	TLS *tls.Config
	// OneServer has all servers use the server name in TLS. Otherwise each must have the name in its address.
	OneServer bool
	// Prefix is what the keys begin with.
	Prefix string
	// Channel is the pub/sub channel of ephemeral messages.
	Channel string
	// MaxLen is about how many messages the stream keeps.
	MaxLen int
	// Timeout is how long a publish may take.
	Timeout time.Duration
	// Logger gets what an operator should know.
	Logger *zap.Logger
}

// redisOptions returns the options of a client of go-redis.
func (o *Options) redisOptions() *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:            slices.Clone(o.Addrs), // a Cluster's client appends to it
		MasterName:       o.MasterName,
		Username:         o.Username,
		Password:         o.Password,
		SentinelUsername: o.SentinelUsername,
		SentinelPassword: o.SentinelPassword,
		DB:               o.DB,
		TLSConfig:        o.TLS,
		ClientName:       "caddy-sse",
		// RESP2 gives the entries of a stream as flat lists, in which a field may be there twice.
		Protocol: 2,
		// A publish must not be sent twice, so go-redis must not retry on its own.
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
func Open(hubName string, o Options) *Log {
	base := "{" + o.Prefix + ":" + hubName + "}:"
	o.Logger = o.Logger.With(zap.String("hub", hubName), zap.Strings("redis", o.Addrs))
	l := &Log{
		Options:  o,
		hubName:  hubName,
		logKey:   base + "log",
		epochKey: base + "epoch",
		heldKey:  base + "latest",
		idemKey:  base + "idem:",

		purgedKey: base + "purged",

		recordBytesKey: base + "idem-bytes",
		maxRecordBytes: broker.MaxRecordBytes,

		ownerKey:      base + "owner:",
		kickChannel:   base + "kick",
		presence:      newPresence(base),
		subscription:  newSubscription(),
		ownersDoubted: newDoubt(),
		overfull:      newDoubt(),
		queue:         make(chan *pendingBatch, maxPending),
		tried:         make(chan struct{}),
		unasked:       rate.Sometimes{Interval: time.Second},
		forbidden:     rate.Sometimes{Interval: time.Minute},
		misconfigured: rate.Sometimes{Interval: time.Minute},
	}
	l.clock.wall = time.Now
	l.context, l.cancel = context.WithCancel(context.Background())
	l.severed, l.sever = context.WithCancel(context.Background())
	publishing, tailing := o.redisOptions(), o.redisOptions()
	publishing.Dialer, tailing.Dialer = l.dialer(false), l.dialer(true)
	tailing.ReadTimeout += blockTime // a read that blocks is silent for blockTime even if the line is well
	l.publishing, l.tailing = redis.NewUniversalClient(publishing), redis.NewUniversalClient(tailing)
	return l
}

// Log is a hub's log in Redis.
type Log struct {
	Options
	hubName string

	logKey   string // the stream
	epochKey string // name of the log's origin; an instance that finds another origin sets it
	heldKey  string // the newest messages of topics and keys that are held beside the stream
	idemKey  string // + idempotency key: the record of its request
	ownerKey string // + client_id: the user it belongs to
	// kickChannel is the pub/sub channel of client_ids whose connections are to end, some or all.
	kickChannel string

	purgedKey string // a hash of what was purged

	recordBytesKey string // how many bytes the records hold
	maxRecordBytes int

	publishing redis.UniversalClient
	tailing    redis.UniversalClient
	replica    *hub.Hub

	queue  chan *pendingBatch
	tried  chan struct{} // closed once the tail has tried to join the log, successfully or not
	joined atomic.Bool   // whether the replica has what the log kept, so that what comes is new

	clock         clock
	acked         acks
	freshness     freshness
	subscription  *subscription
	presence      *presence
	ownersDoubted doubt // raised when Redis may lack owners
	releases      releases
	held          heldNotes
	overfull      doubt // raised when the stream may have grown beyond MaxLen

	exhausted atomic.Bool // whether the log has no room for another entry

	unasked   rate.Sometimes // limits the warning that Redis does not tell owners
	forbidden rate.Sometimes // limits the warning that Redis forbids something
	// misconfigured limits the warning that says what to change in the config.
	misconfigured rate.Sometimes

	context context.Context // ends with Close
	cancel  context.CancelFunc
	severed context.Context // ends when connections must be closed
	sever   context.CancelFunc
	wg      sync.WaitGroup
}

const (
	blockTime  = time.Second     // how long a read waits for the next entry
	closeTime  = time.Second / 2 // how long Redis may take to answer the last publishes
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
)

// Start implements broker.Log.
func (l *Log) Start(h *hub.Hub, ready func()) {
	l.replica = h
	h.ShareGuests(l.presence.hurry.raise)
	l.freshness.hasAll() // nothing else is known yet
	l.wg.Go(func() { l.keepTailing(sync.OnceFunc(func() { close(l.tried); ready() })) })
	l.wg.Go(l.publishPending)
	l.wg.Go(l.keepListening)
	l.wg.Go(l.keepPresence)
	l.wg.Go(l.keepOwners)
	l.wg.Go(l.keepReleasing)
	l.wg.Go(l.keepTrimming)
	l.wg.Go(l.keepHeld)
}

// Close implements broker.Log. Batches that are under way are still published and answered, if Redis is
// quick.
func (l *Log) Close() error {
	l.cancel()
	_ = l.tailing.Close() // it may be waiting for the next entry
	defer time.AfterFunc(closeTime, l.sever).Stop()
	l.wg.Wait()
	l.sever()
	_ = l.publishing.Close()
	return nil
}

// node returns the server that has the log. In a Cluster that is the master of its slot.
func (l *Log) node(ctx context.Context, client redis.UniversalClient) (redis.Cmdable, error) {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, l.logKey)
	}
	return client, nil
}

// refresh has a Cluster's client ask again which server is the master of which slot.
func refresh(ctx context.Context, client redis.UniversalClient) {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		cluster.ReloadState(ctx)
	}
}

// within runs call and returns its error, or that of ctx if ctx ends first. go-redis itself stops waiting
// only at a deadline. Close does not wait for the call, since others than the log's own goroutines ask as well; its
// connection is severed then, which ends it.
func (l *Log) within(ctx context.Context, call func() error) error {
	returned := make(chan error, 1)
	go func() { returned <- call() }()
	select {
	case err := <-returned:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// logFailure logs a failure of something that will be tried again. The operator is warned only if Redis
// forbids it.
func (l *Log) logFailure(what string, err error) {
	err = l.located(err)
	if redis.IsPermissionError(err) {
		l.forbidden.Do(func() {
			l.Logger.Warn("redis forbids what is needed; docs/brokers.md has a rule for its ACL",
				zap.String("what", what), zap.Error(err))
		})
	}
	l.Logger.Debug(what, zap.Error(err))
}

// backoff is the time before the next attempt. It grows with each attempt, and is random so that instances
// differ.
type backoff time.Duration

func (b *backoff) reset() { *b = 0 }

// wait returns when it is time for the next attempt, or when ctx ends.
func (b *backoff) wait(ctx context.Context) {
	*b = min(max(2**b, backoff(minBackoff)), backoff(maxBackoff))
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(*b/2 + rand.N(*b))):
	}
}

// doubt wakes the goroutine that sees to something in Redis, because it may no longer be as it should.
type doubt chan struct{}

func newDoubt() doubt { return make(doubt, 1) }

// raise wakes the goroutine. It never blocks: a doubt that is raised already covers this one.
func (d doubt) raise() {
	select {
	case d <- struct{}{}:
	default:
	}
}
