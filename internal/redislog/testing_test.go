package redislog

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// soon is how long these tests wait for something that should happen at once. It is long, because they load
// the machine.
const soon = 60 * time.Second

// instance is one Caddy: a hub that follows a log in Redis. Tests run several in one process.
type instance struct {
	*hub.Hub
	log   *Log
	t     testing.TB
	name  string // name of the hub
	logs  *observer.ObservedLogs
	ready chan struct{}
	// tailAt is the address where the tail reads; empty for the address where messages go.
	tailAt string
	// ahead is how far the instance's clock is ahead of the right time.
	ahead time.Duration

	mu      sync.Mutex // guards readers
	readers []*reader
	stopped sync.Once
}

// newOptions returns the options of a config with a URL.
func newOptions(t testing.TB, url string, change ...func(*Options)) Options {
	t.Helper()
	o := Options{Prefix: "sse", MaxLen: 100_000, Timeout: 2 * time.Second}
	if url != "" {
		parsed, err := redis.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		o.Addrs, o.Username, o.Password, o.DB = []string{parsed.Addr}, parsed.Username, parsed.Password, parsed.DB
	}
	for _, f := range change {
		f(&o)
	}
	o.Channel = cmp.Or(o.Channel, o.Prefix+":messages")
	return o
}

// withTimeout sets Options.Timeout.
func withTimeout(d time.Duration) func(*Options) {
	return func(o *Options) { o.Timeout = d }
}

// launch starts an instance without waiting for anything.
func launch(t testing.TB, o Options, change ...func(*instance)) *instance {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	o.Logger = zap.New(core)
	i := &instance{
		Hub: hub.NewHub(hubtest.Plenty), t: t, name: defaultHub, logs: logs, ready: make(chan struct{}),
	}
	i.BrokerChanged = func(up bool, err error) {
		if up {
			o.Logger.Info("the broker is in reach")
		} else {
			o.Logger.Warn("the broker is out of reach", zap.Error(err))
		}
	}
	for _, f := range change {
		f(i)
	}
	t.Cleanup(func() {
		i.stop()
		if n := i.present(); n != 0 {
			t.Errorf("with all clients gone the hub counts %d", n)
		}
	})
	i.open(o)
	return i
}

// tailingAt has an instance read the log at another address.
func tailingAt(addr string) func(*instance) {
	return func(i *instance) { i.tailAt = addr }
}

// open opens a log and has the hub follow it.
func (i *instance) open(o Options) {
	i.t.Helper()
	i.log = Open(i.name, o)
	if i.tailAt != "" {
		_ = i.log.tailing.Close()
		client := o.redisOptions()
		client.Addrs = []string{i.tailAt}
		client.ReadTimeout += blockTime
		client.Dialer = i.log.dialer(true)
		i.log.tailing = redis.NewUniversalClient(client)
	}
	i.log.clock.wall = func() time.Time { return time.Now().Add(i.ahead) }
	var once sync.Once
	i.log.Start(i.Hub, func() { once.Do(func() { close(i.ready) }) })
}

// swap replaces the log by another, as a changed config does.
func (i *instance) swap(o Options) {
	i.t.Helper()
	o.Logger = i.log.Logger
	if err := i.log.Close(); err != nil {
		i.t.Error(err)
	}
	i.ready = make(chan struct{})
	i.open(o)
	i.awaitReady()
}

// start starts an instance at a URL and waits until it follows the log.
func start(t testing.TB, url string, change ...func(*Options)) *instance {
	t.Helper()
	i := launch(t, newOptions(t, url, change...))
	i.awaitReady()
	i.awaitUp()
	return i
}

// awaitReady returns when the log has called ready.
func (i *instance) awaitReady() {
	i.t.Helper()
	select {
	case <-i.ready:
	case <-time.After(soon):
		i.t.Fatal("the log is not ready")
	}
}

// awaitUp returns when the log is up.
func (i *instance) awaitUp() {
	i.t.Helper()
	e2etest.Await(i.t, "the instance to reach Redis", i.LogUp)
}

// awaitID returns when the instance has read the log up to an ID.
func (i *instance) awaitID(id string) {
	i.t.Helper()
	to, _ := hub.ParseID(id)
	e2etest.Await(i.t, "the instance to come to "+id, func() bool {
		return !to.Position.After(i.Position().Position)
	})
}

// stop closes the log and ends all clients; the test's end does so too.
func (i *instance) stop() {
	i.stopped.Do(func() {
		if err := i.log.Close(); err != nil {
			i.t.Errorf("closing the log: %v", err)
		}
		i.Close()
		i.mu.Lock()
		defer i.mu.Unlock()
		for _, r := range i.readers {
			r.leave()
		}
	})
}

// malformed returns the number of malformed messages.
func (i *instance) malformed() int64 { return int64(i.Stats().DroppedMalformed) }

// present returns how many clients are connected.
func (i *instance) present() int {
	clients, _ := i.Size()
	return clients
}

// warnings returns how often the instance has logged this.
func (i *instance) warnings(message string) int { return i.logs.FilterMessageSnippet(message).Len() }

// newPublication returns a message for the broker.
func newPublication(text string, to ...hub.Address) *broker.Publication {
	return &broker.Publication{Message: &hub.Message{To: to, Data: []byte(text)}}
}

// withKey returns a message with an idempotency key.
func withKey(key, text string, to ...hub.Address) *broker.Publication {
	p := newPublication(text, to...)
	p.Key, p.Fingerprint = key, sha256.Sum256([]byte(text))
	return p
}

// publish publishes a message and fails the test if that does not work.
func (i *instance) publish(text string, to ...hub.Address) broker.Receipt {
	i.t.Helper()
	return i.publishAll(newPublication(text, to...))[0]
}

// publishAll publishes a batch and returns its receipts.
func (i *instance) publishAll(batch ...*broker.Publication) (receipts []broker.Receipt) {
	i.t.Helper()
	n, err := i.log.Publish(i.t.Context(), batch)
	if err != nil || n != len(batch) {
		i.t.Fatalf("published %d of %d: %v", n, len(batch), err)
	}
	for _, p := range batch {
		receipts = append(receipts, p.Receipt)
	}
	return receipts
}

// tryPublish publishes one message.
func (i *instance) tryPublish(p *broker.Publication) (broker.Receipt, error) {
	_, err := i.log.Publish(i.t.Context(), []*broker.Publication{p})
	return p.Receipt, err
}

// admin returns a client for a test that acts as the operator, or as another program.
func admin(t testing.TB, url string) *redis.Client {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	o.Protocol = 2
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// do runs a command, written as in redis-cli.
func do(t testing.TB, client *redis.Client, command string) any {
	t.Helper()
	value, err := client.Do(t.Context(), words(command)...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatalf("%s: %v", command, err)
	}
	return value
}

// words returns the arguments of a command.
func words(command string) (args []any) {
	for word := range strings.FieldsSeq(command) {
		args = append(args, word)
	}
	return args
}

// callsOf returns how often Redis has carried out a command, calls from scripts included.
func callsOf(t testing.TB, client *redis.Client, command string) (calls int) {
	t.Helper()
	stats := client.Info(t.Context(), "commandstats").Val()
	if _, rest, found := strings.Cut(stats, "cmdstat_"+command+":calls="); found {
		text, _, _ := strings.Cut(rest, ",")
		calls, _ = strconv.Atoi(text)
	}
	return calls
}

// awaitReads returns when Redis has served so many more XREADs.
func awaitReads(t testing.TB, client *redis.Client, n int) {
	t.Helper()
	from := callsOf(t, client, "xread")
	e2etest.Await(t, "the instances to read on", func() bool { return callsOf(t, client, "xread") >= from+n })
}

// defaultLog is the stream of the default hub.
const defaultLog = "{sse:default}:log"

// everybody is the address of broadcasts.
var everybody = hub.Address{Kind: hub.ToBroadcast}

// awaitSubscribed returns when so many connections listen on a channel.
func awaitSubscribed(t testing.TB, client *redis.Client, channel string, n int64) {
	t.Helper()
	e2etest.Await(t, "subscribers of "+channel, func() bool {
		return client.PubSubNumSub(t.Context(), channel).Val()[channel] >= n
	})
}

// awaitPresence returns when the instances know each other and have told their counts.
func awaitPresence(instances ...*instance) {
	for _, i := range instances {
		i.t.Helper()
		for _, other := range instances {
			if i == other {
				continue
			}
			e2etest.Await(i.t, "an instance to know that there are others", func() bool {
				return i.log.presence.hasOthers()
			})
			key := other.log.presence.key(other.log.presence.instance)
			e2etest.Await(i.t, "an instance to have told who listens to it", func() bool {
				told := i.log.publishing.HMGet(i.t.Context(), key, "alive", presenceField(everybody)).Val()
				return told[0] != nil && cmp.Or(told[1], any("0")) == any(strconv.Itoa(other.present()))
			})
		}
	}
}

// xadd returns an XADD of fields that words would split.
func xadd(fields ...string) *redis.XAddArgs {
	return &redis.XAddArgs{Stream: defaultLog, Values: fields}
}

// mustParseEntryID is parseEntryID that must succeed.
func mustParseEntryID(t testing.TB, id string) hub.Position {
	t.Helper()
	p, err := parseEntryID(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
