package redislog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

const heldHash = "{sse:default}:latest"

// keepingLatest is limits with the newest of each topic below p kept.
func keepingLatest(age time.Duration) hub.Limits {
	return hub.Limits{
		History:  hub.HistoryLimits{Count: 100, Age: time.Hour},
		Policies: []hub.Policy{{Pattern: "p/**", History: &hub.Retention{Latest: true, Age: age}}},
	}
}

// startKeeping starts an instance that keeps the newest of each topic below p.
func startKeeping(t testing.TB, url string, change ...func(*Options)) *instance {
	t.Helper()
	i := launch(t, newOptions(t, url, change...), func(i *instance) { i.Apply(keepingLatest(0)) })
	i.awaitReady()
	return i
}

// values returns what an instance keeps of a topic: "<key>=<data>".
func (i *instance) values(topic string) (values []string) {
	for _, m := range i.ListMessages(topic, 1000) {
		values = append(values, m.Key+"="+m.Data)
	}
	return values
}

func (i *instance) wantValues(topic string, want ...string) {
	i.t.Helper()
	e2etest.Await(i.t, fmt.Sprintf("%s to have %q", topic, want), func() bool {
		return slices.Equal(i.values(topic), want)
	})
}

// value is a message with a key.
func value(data, key string, topics ...string) *broker.Publication {
	p := newPublication(data, hub.Topics(topics...)...)
	p.Message.Key = key
	return p
}

// pushOut publishes so much else that the stream has nothing of before.
func (i *instance) pushOut(n int) {
	i.t.Helper()
	for range n / 500 {
		batch := make([]*broker.Publication, 500)
		for n := range batch {
			batch[n] = newPublication("other", hub.Topics("other")...)
		}
		i.publishAll(batch...)
	}
}

func TestTheNewestOfManyTopicsOutlivesTheStream(t *testing.T) {
	server := e2etest.RedisServer(t)
	maxLen := func(o *Options) { o.MaxLen = 1000 }
	first := startKeeping(t, server.URL(), maxLen)
	const topics = 10_000
	for _, text := range []string{"old", "new"} {
		for from := 0; from < topics; from += 500 {
			var batch []*broker.Publication
			for n := from; n < from+500; n++ {
				batch = append(batch, value(text, "", fmt.Sprint("p/", n)))
			}
			first.publishAll(batch...)
		}
	}
	first.pushOut(200_000)
	client := admin(t, server.URL())
	if n := client.XLen(t.Context(), defaultLog).Val(); n > 2000 {
		t.Fatalf("the stream still has %d messages", n)
	}
	if n := client.HLen(t.Context(), heldHash).Val(); n != 2*topics {
		t.Errorf("%d fields are held for %d topics; want two for each", n, topics)
	}
	second := startKeeping(t, server.URL(), maxLen)
	for _, i := range []*instance{first, second} {
		e2etest.Await(t, "the instance to have read all", func() bool { return i.Position() == first.Position() })
		for n := range topics {
			if got := i.values(fmt.Sprint("p/", n)); len(got) != 1 || got[0] != "=new" {
				t.Fatalf("of topic %d %q are kept; want the newest", n, got)
			}
		}
	}
}

func TestTheNewestOfEachKeyIsHeldWhoeverPublishes(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	maxLen := func(o *Options) { o.MaxLen = 100 }
	i, client := startKeeping(t, server.URL(), maxLen), admin(t, server.URL())
	full := value("line 1\nline 2 \"☃\" \x01 \\ /", "k", "p/a", "p/b", "elsewhere", "p/a")
	full.Event, full.Retry, full.HasRetry = "price", 1500, true
	i.publishAll(value("1", "k", "p/a"), value("2", "", "p/a"), full, value("4", "l", "p/b"), value("5", "k", "p/b"))
	do(t, client, "XADD "+defaultLog+" * topic p/c key k data foreign1")
	do(t, client, "XADD "+defaultLog+" * topic p/c key k data foreign2")
	e2etest.Await(t, "what another program has added to be held", func() bool {
		return strings.Contains(client.HGet(t.Context(), heldHash, "m"+client.HGet(t.Context(), heldHash, "tp/c\nk").Val()).Val(), "foreign2")
	})
	if n := client.HLen(t.Context(), heldHash).Val(); n != 5+5 { // p/a: "", k; p/b: k, l; p/c: k
		t.Errorf("%d fields are held: %q", n, client.HGetAll(t.Context(), heldHash).Val())
	}
	i.pushOut(2000)
	later := startKeeping(t, server.URL(), maxLen)
	for _, i := range []*instance{i, later} {
		i.wantValues("p/a", "=2", "k=line 1\nline 2 \"☃\" \x01 \\ /")
		i.wantValues("p/b", "l=4", "k=5")
		i.wantValues("p/c", "k=foreign2")
	}
	m := later.ListMessages("p/a", 10)[1]
	if m.Event != "price" {
		t.Errorf("what is held has come back as %+v", m)
	}
	if back := later.subscribe(hubtest.Returning(hubtest.With("p/a"), m.ID)); back.Resume != hub.ResumeGap {
		t.Errorf("with messages missing in between a client resumes with %q", back.Resume)
	}
}

// What was added while nobody was there is held by the next instance that starts.
func TestWhatIsInTheStreamAlreadyIsHeld(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	do(t, client, "XADD "+defaultLog+" * topic p/a data before")
	i := startKeeping(t, server.URL())
	held := func(topic string) bool { return client.HExists(t.Context(), heldHash, "t"+topic+"\n").Val() }
	e2etest.Await(t, "what was there at the start to be held", func() bool { return held("p/a") })
	// And what a policy is for that comes later.
	i.publish("x", hub.Topics("q/a")...)
	if held("q/a") {
		t.Error("what no policy is for is held")
	}
	limits := keepingLatest(0)
	limits.Policies = append(limits.Policies, hub.Policy{Pattern: "q/*", History: &hub.Retention{Latest: true}})
	i.Apply(limits)
	e2etest.Await(t, "what a new policy is for to be held", func() bool { return held("q/a") })
}

func TestWhatIsTooOldOrTooMuchIsHeldNoLonger(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	i, client := startKeeping(t, server.URL()), admin(t, server.URL())
	for n := range 10 {
		i.publishAll(value(strings.Repeat("x", 1000), strconv.Itoa(n), "p/a", "p/b"))
	}
	kept := func() int64 { return client.HLen(t.Context(), heldHash).Val() }
	if kept() != 30 {
		t.Fatalf("%d fields are held; want 30", kept())
	}
	i.awaitID(i.publish("y", hub.Topics("p/a")...).ID)
	limits := keepingLatest(0)
	limits.History.Bytes = 6000
	i.Apply(limits)
	e2etest.Await(t, "no more to be held than may be kept", func() bool { return kept() < 20 && kept() > 0 })
	i.wantValues("p/a", i.values("p/a")...)
	i.Apply(keepingLatest(time.Millisecond))
	e2etest.Await(t, "what is too old to be taken out", func() bool { return kept() == 0 })
}

// An instance that was away while the stream was trimmed has the newest of all topics.
func TestAnInstanceThatFellBehindGetsTheNewest(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	maxLen := func(o *Options) { o.MaxLen = 100 }
	i := startKeeping(t, server.URL(), maxLen)
	behind := launch(t, newOptions(t, server.URL(), maxLen), tailingAt(proxy.Addr()), func(i *instance) { i.Apply(keepingLatest(0)) })
	behind.awaitReady()
	r := behind.subscribe(hubtest.With("p/a"))
	i.publish("1", hub.Topics("p/a")...)
	r.awaitText("1")
	proxy.Cut()
	i.publish("2", hub.Topics("p/a")...)
	i.publish("3", hub.Topics("p/a")...)
	i.pushOut(2000)
	proxy.Heal()
	r.awaitText("3")
	behind.wantValues("p/a", "=3")
}
