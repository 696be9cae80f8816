package redislog

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestStreamKeepsAboutMaxLenMessages(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL(), func(o *Options) { o.MaxLen = 500 })
	r := i.subscribe(hubtest.With("a"))
	var ids []string
	for k := range 30 {
		batch := make([]*broker.Publication, 100)
		for n := range batch {
			batch[n] = newPublication(strconv.Itoa(100*k+n), hub.Topics("a")...)
		}
		for _, receipt := range i.publishAll(batch...) {
			ids = append(ids, receipt.ID)
		}
		r.awaitText(strconv.Itoa(100*k + 99)) // so that the tail does not fall behind
	}
	r.want(hubtest.Numbers(0, 2999)...)
	length := admin(t, server.URL()).XLen(t.Context(), defaultLog).Val()
	if length < 500 || length > 700 {
		t.Errorf("the stream keeps %d messages; want about 500", length)
	}
	// A new instance has what is kept and knows that the rest is gone.
	later := start(t, server.URL())
	if back := later.subscribe(hubtest.Returning(hubtest.With("a"), ids[1000])); back.Resume != hub.ResumeGap {
		t.Errorf("from before what is kept a client resumes with %q", back.Resume)
	}
	back := later.subscribe(hubtest.Returning(hubtest.With("a"), ids[2600]))
	if back.Resume != hub.ResumeComplete {
		t.Fatalf("from within what is kept a client resumes with %q", back.Resume)
	}
	back.want(hubtest.Numbers(2601, 2999)...)
}

// Other programs need not trim what they add.
func TestMaxLenHoldsWhoeverAdds(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	start(t, server.URL(), func(o *Options) { o.MaxLen = 1000 })
	const added = 50_000 // more than Redis removes in one step
	for k := range added / 1000 {
		pipe := client.Pipeline()
		for n := range 1000 {
			pipe.XAdd(t.Context(), xadd("topic", "a", "data", strconv.Itoa(1000*k+n)))
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	e2etest.Await(t, "the stream to be trimmed", func() bool {
		length := client.XLen(t.Context(), defaultLog).Val()
		return length >= 1000 && length < 1000+tailCount+200
	})
}

func TestTrimmingGoesOnUntilNothingIsLeftToTrim(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	i := start(t, server.URL())
	for range 50 {
		pipe := client.Pipeline()
		for range 1000 {
			pipe.XAdd(t.Context(), xadd("topic", "a", "data", "x"))
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	i.stop()
	i.log.MaxLen = 10
	other := admin(t, server.URL())
	i.log.publishing = other
	if err := i.log.trim(t.Context()); err != nil {
		t.Error(err)
	}
	if got := client.XLen(t.Context(), defaultLog).Val(); got > 200 {
		t.Errorf("%d messages are left of a max_len of 10", got)
	}
}

func TestStreamIsTrimmedByTheHistorysAge(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	old := time.Now().Add(-3 * time.Hour).UnixMilli()
	for k := range 1000 {
		client.XAdd(t.Context(), &redis.XAddArgs{
			Stream: defaultLog, ID: fmt.Sprintf("%d-%d", old, k), Values: []string{"topic", "a", "data", "old"},
		})
	}
	i := launch(t, newOptions(t, server.URL()))
	i.awaitReady()
	i.publish("new", hub.Topics("a")...)
	if err := i.log.trim(t.Context()); err != nil {
		t.Error(err)
	}
	if got := client.XLen(t.Context(), defaultLog).Val(); got != 1001 {
		t.Errorf("of a history without an age %d messages are kept; want all", got)
	}
	limits := hubtest.Plenty
	for _, age := range []time.Duration{100 * 365 * 24 * time.Hour, math.MaxInt64} { // from before Redis counts
		limits.History.Age = age
		i.Apply(limits)
		if err := i.log.trim(t.Context()); err != nil {
			t.Error(err)
		}
		if got := client.XLen(t.Context(), defaultLog).Val(); got != 1001 {
			t.Errorf("of a history of %v %d messages are kept; want all", age, got)
		}
		launch(t, newOptions(t, server.URL()), func(i *instance) { i.Apply(limits) }).awaitUp()
	}
	limits.History.Age = time.Hour
	i.Apply(limits)
	if err := i.log.trim(t.Context()); err != nil {
		t.Error(err)
	}
	if got := client.XLen(t.Context(), defaultLog).Val(); got > 200 { // whole blocks of about 100 go
		t.Errorf("%d messages are kept of a history whose age they are past", got)
	}
}

func TestTrimmingByAgeKeepsTheNewestMessage(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	for k := range 100 { // a whole block
		client.XAdd(t.Context(), &redis.XAddArgs{
			Stream: defaultLog, ID: fmt.Sprintf("1000-%d", k+1), Values: []string{"topic", "a", "data", "old"},
		})
	}
	i := launch(t, newOptions(t, server.URL()))
	i.awaitReady()
	limits := hubtest.Plenty
	limits.History.Age = time.Hour
	i.Apply(limits)
	for range 2 { // an empty stream is no trouble either
		if err := i.log.trim(t.Context()); err != nil {
			t.Error(err)
		}
		do(t, client, "XTRIM "+defaultLog+" MAXLEN 1")
	}
	got := client.XRevRangeN(t.Context(), defaultLog, "+", "-", 1).Val()
	if len(got) != 1 || got[0].ID != "1000-100" {
		t.Errorf("the newest message is %v", got)
	}
	do(t, client, "DEL "+defaultLog)
	if err := i.log.trim(t.Context()); err != nil {
		t.Errorf("trimming a log that is not there: %v", err)
	}
}

// The log of an idle hub becomes empty in time. It is still the same log.
func TestLogThatIsTrimmedEmptyIsStillTheSame(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, server.URL())
	readers := []*reader{a.subscribe(hubtest.With("a")), b.subscribe(hubtest.With("a"))}
	last := a.publish("before", hub.Topics("a")...)
	for _, r := range readers {
		r.want("before")
	}
	do(t, client, "CONFIG RESETSTAT")
	do(t, client, "XTRIM "+defaultLog+" MAXLEN 0")
	awaitReads(t, client, 6) // each instance's next reads, over a second and more
	if infos := callsOf(t, client, "xinfo|stream"); infos > 40 {
		t.Errorf("the instances looked %d times for what became of the log", infos)
	}
	b.publish("after", hub.Topics("a")...)
	for _, r := range readers {
		r.want("before", "after")
	}
	if e := last.ID[:16]; a.Position().Epoch != e {
		t.Errorf("the epoch changed from %s to %s", e, a.Position().Epoch)
	}
	do(t, client, "XTRIM "+defaultLog+" MAXLEN 0")
	awaitReads(t, client, 6)
	// The empty log at a restart: a client that had everything misses nothing.
	c := start(t, server.URL())
	newest := readers[0].lastID()
	if back := c.subscribe(hubtest.Returning(hubtest.With("a"), newest)); back.Resume != hub.ResumeComplete {
		t.Errorf("an instance that found the log empty resumes its newest ID with %q", back.Resume)
	}
	if back := c.subscribe(hubtest.Returning(hubtest.With("a"), last.ID)); back.Resume != hub.ResumeGap {
		t.Errorf("an instance that found the log empty resumes an older ID with %q", back.Resume)
	}
	onC := c.subscribe(hubtest.With("a"))
	c.publish("on c", hub.Topics("a")...)
	onC.want("on c")
	readers[1].want("before", "after", "on c")
}

func TestTrimPastALaggingInstanceIsToldAsAGap(t *testing.T) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	a := start(t, server.URL(), func(o *Options) { o.MaxLen = 200 })
	lagging := start(t, proxy.URL(), withTimeout(300*time.Millisecond))
	onA, r := a.subscribe(hubtest.With("a")), lagging.subscribe(hubtest.With("a"))
	other := lagging.subscribe(hubtest.With("b"))
	first := a.publish("before", hub.Topics("a")...)
	r.want("before")
	proxy.Cut()
	e2etest.Await(t, "the instance to notice", func() bool { return !lagging.LogUp() })
	for k := range 1000 {
		a.publish(strconv.Itoa(k), hub.Topics("a")...)
		if k%50 == 49 {
			onA.awaitText(strconv.Itoa(k)) // so that this instance does not lag
		}
	}
	kept := admin(t, server.URL()).XRange(t.Context(), defaultLog, "-", "+").Val()
	if len(kept) > 400 {
		t.Fatalf("%d messages are still kept", len(kept))
	}
	proxy.Heal()
	a.publish("last", hub.Topics("a")...)
	a.publish("other", hub.Topics("b")...)
	r.awaitText("last")
	wanted := []string{"before", hubtest.Gap("history_trimmed")}
	for _, entry := range kept {
		wanted = append(wanted, entry.Values["data"].(string))
	}
	hubtest.Want(t, r.texts(), append(wanted, "last")...)
	other.want(hubtest.Gap("history_trimmed"), "other")
	if onA.gaps() > 0 {
		t.Error("the instance that did not lag told a gap")
	}
	if a.Position().Epoch != lagging.Position().Epoch {
		t.Error("the epoch changed")
	}
	// Both instances agree on who can resume.
	for _, i := range []*instance{a, lagging} {
		i.awaitID(r.lastID())
		back := i.subscribe(hubtest.Returning(hubtest.With("a"), r.lastID()))
		if back.Resume != hub.ResumeComplete {
			t.Errorf("the newest ID is resumed with %q", back.Resume)
		}
	}
	if back := lagging.subscribe(hubtest.Returning(hubtest.With("a"), first.ID)); back.Resume != hub.ResumeGap {
		t.Errorf("the instance that missed messages resumes with %q from before them", back.Resume)
	}
}

// Redis trims what one call adds beyond max_len before any tail can read it.
func TestBurstBeyondMaxLenIsToldAsAGap(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL(), func(o *Options) { o.MaxLen = 1 })
	r := i.subscribe(hubtest.With("a"))
	next := 0
	for range 3 { // on the fresh log first
		batch := make([]*broker.Publication, maxCallAddresses)
		for k := range batch {
			batch[k] = newPublication(strconv.Itoa(next), hub.Topics("a")...)
			next++
		}
		i.publishAll(batch...)
		r.awaitText(strconv.Itoa(next - 1))
	}
	due, told := 0, false
	for _, text := range r.texts() {
		if strings.HasPrefix(text, "gap") {
			told = true
			continue
		}
		got, err := strconv.Atoi(text)
		if err != nil || got < due || got > due && !told {
			t.Fatalf("%q came where %d was due", text, due)
		}
		due, told = got+1, false
	}
}
