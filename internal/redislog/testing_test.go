package redislog

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// soon is how long these tests wait for what ought to happen at once: long, because they load the
// machine.
const soon = 30 * time.Second

// instance is what one Caddy would be: a hub that follows a log in Redis. Several in one process make
// a cluster.
type instance struct {
	*hub.Hub
	log   *Log
	t     testing.TB
	name  string // of the hub
	logs  *observer.ObservedLogs
	ready chan struct{}
	// tailAt is where the tail reads, if it is elsewhere than where messages go.
	tailAt string

	mu      sync.Mutex // guards readers
	readers []*reader
	stopped sync.Once
}

// newOptions returns what a config with a URL says of a log in Redis.
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

// launch starts an instance without waiting for anything.
func launch(t testing.TB, o Options, change ...func(*instance)) *instance {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	o.Logger = zap.New(core)
	i := &instance{Hub: hub.NewHub(hubtest.Plenty), t: t, name: "default", logs: logs, ready: make(chan struct{})}
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

// open makes a log and has the hub follow it.
func (i *instance) open(o Options) {
	i.t.Helper()
	i.log = Open(i.name, o)
	if i.tailAt != "" {
		_ = i.log.tailing.Close()
		client := o.client()
		client.Addrs = []string{i.tailAt}
		client.ReadTimeout += blockTime
		client.Dialer = i.log.dialer(true)
		i.log.tailing = redis.NewUniversalClient(client)
	}
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

func (i *instance) awaitReady() {
	i.t.Helper()
	select {
	case <-i.ready:
	case <-time.After(soon):
		i.t.Fatal("the log is not ready")
	}
}

func (i *instance) awaitUp() {
	i.t.Helper()
	e2etest.Await(i.t, "the instance to reach Redis", i.LogUp)
}

// awaitID returns when the instance has come as far as an ID.
func (i *instance) awaitID(id string) {
	i.t.Helper()
	to, _ := hub.ParseID(id)
	e2etest.Await(i.t, "the instance to come to "+id, func() bool { return !to.Position.After(i.Position().Position) })
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

// malformed returns how many messages of other programs could not be read.
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

// reader is a client whose stream is read at once by a goroutine of its own.
type reader struct {
	hub.Welcome
	covers string // the newest loss that Welcome tells of
	client *hub.Client
	hub    *hub.Hub
	t      testing.TB
	ended  sync.Once
	done   chan struct{} // closed once it has left

	mu      sync.Mutex // guards the rest
	events  []eventstream.Event
	changed chan struct{} // closed and made anew when events grow
}

// Send implements hub.Stream: a reader takes everything.
func (r *reader) Send(frames []*hub.Frame, end error) (taken int, ready bool) {
	r.add(frames)
	if end != nil {
		r.leaveFor(end)
	}
	return len(frames), end == nil
}

// Notice implements hub.Stream.
func (r *reader) Notice(hub.News) (ready bool) { return true }

// Abort implements hub.Stream.
func (r *reader) Abort() { r.leaveFor(hub.ErrAborted) }

// Blocked implements hub.Stream.
func (r *reader) Blocked() bool { return false }

// leaveFor has the client leave, once, without waiting for it.
func (r *reader) leaveFor(cause error) {
	r.ended.Do(func() {
		go func() {
			defer close(r.done)
			_ = r.hub.Leave(r.client, cause)
		}()
	})
}

// subscribe enters a client.
func (i *instance) subscribe(s hub.Subscription) *reader {
	i.t.Helper()
	r := &reader{
		hub: i.Hub, t: i.t,
		done: make(chan struct{}), changed: make(chan struct{}),
	}
	var err error
	if r.client, r.Welcome, err = i.Join(s, r); err != nil {
		i.t.Fatal(err)
	}
	epoch, _ := hub.ParseID(r.ID)
	r.covers = hub.ID{Epoch: epoch.Epoch, Position: r.Lost}.String()
	r.client.Post(1)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.readers = append(i.readers, r)
	return r
}

func (r *reader) add(frames []*hub.Frame) {
	if len(frames) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range frames {
		event, err := eventstream.NewDecoder(strings.NewReader(f.Block()), 1<<30).Next()
		if err != nil {
			r.t.Errorf("the frame %q can't be read: %v", f.Block(), err)
		}
		if event.HasData {
			r.events = append(r.events, event)
		}
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// leave ends the stream from the client's side and returns the last ID it saw.
func (r *reader) leave() (lastID string) {
	r.leaveFor(hub.ErrGone)
	<-r.done
	return r.lastID()
}

func (r *reader) lastID() string {
	id := r.ID
	for _, e := range r.got() {
		if e.ID != "" {
			id = e.ID
		}
	}
	return id
}

// got returns all events so far.
func (r *reader) got() []eventstream.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// texts tells in short what came: the data of messages, "<event> <data>" of others.
func (r *reader) texts() (texts []string) {
	for _, e := range r.got() {
		text := string(e.Data)
		if e.Name != "" {
			text = e.Name + " " + text
		}
		texts = append(texts, text)
	}
	return texts
}

// gaps returns how many gaps the client was told.
func (r *reader) gaps() (n int) {
	for _, e := range r.got() {
		if e.Name == "gap" {
			n++
		}
	}
	return n
}

// await returns when enough has come.
func (r *reader) await(what string, enough func([]eventstream.Event) bool) {
	r.t.Helper()
	deadline := time.NewTimer(soon)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		ok, changed := enough(r.events), r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			r.t.Fatalf("waited in vain for %s; what came is %v", what, hubtest.Brief(r.texts()))
		}
	}
}

// awaitText returns when a message with this data, or a gap so written, has come.
func (r *reader) awaitText(text string) {
	r.t.Helper()
	r.await(text, func(events []eventstream.Event) bool {
		return slices.ContainsFunc(events, func(e eventstream.Event) bool {
			return string(e.Data) == text || e.Name+" "+string(e.Data) == text
		})
	})
}

// want waits for as many events as there are texts, and compares.
func (r *reader) want(texts ...string) {
	r.t.Helper()
	r.await(fmt.Sprint(hubtest.Brief(texts)), func(events []eventstream.Event) bool { return len(events) >= len(texts) })
	hubtest.Want(r.t, r.texts(), texts...)
}

// admin returns a client that plays the operator, or another program.
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

// do runs a command written as one would type it.
func do(t testing.TB, client *redis.Client, command string) any {
	t.Helper()
	value, err := client.Do(t.Context(), words(command)...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatalf("%s: %v", command, err)
	}
	return value
}

// words splits a command as it is typed.
func words(command string) (args []any) {
	for word := range strings.FieldsSeq(command) {
		args = append(args, word)
	}
	return args
}

const defaultLog = "{sse:default}:log" // the stream of the default hub

// everybody is the address of broadcasts.
var everybody = hub.Address{Kind: hub.ToBroadcast}

// awaitSubscribed returns when so many connections listen on a channel.
func awaitSubscribed(t testing.TB, client *redis.Client, channel string, n int64) {
	t.Helper()
	e2etest.Await(t, "subscribers of "+channel, func() bool {
		return client.PubSubNumSub(t.Context(), channel).Val()[channel] >= n
	})
}

type (
	wireEvent = eventstream.Event
)

// count returns how many of the events have this data.
func count(events []eventstream.Event, data string) (n int) {
	for _, e := range events {
		if string(e.Data) == data {
			n++
		}
	}
	return n
}

// awaitPresence returns when the instances know of each other and have told who listens to them.
func awaitPresence(instances ...*instance) {
	for _, i := range instances {
		i.t.Helper()
		for _, other := range instances {
			if i == other {
				continue
			}
			e2etest.Await(i.t, "an instance to be known to another", func() bool {
				return slices.Contains(i.log.presence.others(), other.log.presence.instance)
			})
			key := other.log.presence.key(other.log.presence.instance)
			e2etest.Await(i.t, "an instance to have told who listens to it", func() bool {
				n, _ := i.log.publishing.HGet(i.t.Context(), key, presenceField(everybody)).Int()
				return n == other.present()
			})
		}
	}
}

// xadd is an XADD of fields that can't be typed.
func xadd(fields ...string) *redis.XAddArgs {
	return &redis.XAddArgs{Stream: defaultLog, Values: fields}
}

func mustParseEntryID(t testing.TB, id string) hub.Position {
	t.Helper()
	p, err := parseEntryID(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
