package redislog

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
	"github.com/redis/go-redis/v9"
)

func TestRedisStreamKeepsAboutMaxLenMessages(t *testing.T) {
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
		r.awaitText(strconv.Itoa(100*k + 99)) // or it might fall behind so far that it misses some
	}
	r.want(hubtest.Numbers(0, 2999)...)
	length := admin(t, server.URL()).XLen(t.Context(), defaultLog).Val()
	if length < 500 || length > 700 {
		t.Errorf("the stream keeps %d messages; want about 500", length)
	}
	// A new instance has what is kept, and knows that the rest is gone.
	later := start(t, server.URL())
	if back := later.subscribe(hubtest.Returning(hubtest.With("a"), ids[1000])); back.Resume != hub.ResumeGap {
		t.Errorf("from before what is kept a client resumes with %q", back.Resume)
	}
	if back := later.subscribe(hubtest.Returning(hubtest.With("a"), ids[2600])); back.Resume != hub.ResumeComplete {
		t.Errorf("from within what is kept a client resumes with %q", back.Resume)
	} else {
		back.want(hubtest.Numbers(2601, 2999)...)
	}
}

func TestRedisStreamIsTrimmedByTheHistorysAge(t *testing.T) {
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
	if err := i.log.trimByAge(); err != nil {
		t.Error(err)
	}
	if got := client.XLen(t.Context(), defaultLog).Val(); got != 1001 {
		t.Errorf("of a history without an age %d messages are kept; want all", got)
	}
	limits := hubtest.Plenty
	for _, age := range []time.Duration{100 * 365 * 24 * time.Hour, math.MaxInt64} { // from before Redis counts
		limits.History.Age = age
		i.Apply(limits)
		if err := i.log.trimByAge(); err != nil {
			t.Error(err)
		}
		if got := client.XLen(t.Context(), defaultLog).Val(); got != 1001 {
			t.Errorf("of a history of %v %d messages are kept; want all", age, got)
		}
		launch(t, newOptions(t, server.URL()), func(i *instance) { i.Apply(limits) }).awaitUp()
	}
	limits.History.Age = time.Hour
	i.Apply(limits)
	if err := i.log.trimByAge(); err != nil {
		t.Error(err)
	}
	if got := client.XLen(t.Context(), defaultLog).Val(); got > 200 { // whole blocks of about 100 go
		t.Errorf("%d messages are kept of a history whose age they are past", got)
	}
}

func TestTrimmingByAgeNeverTakesTheNewestMessageOfARedisLog(t *testing.T) {
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
		if err := i.log.trimByAge(); err != nil {
			t.Error(err)
		}
		do(t, client, "XTRIM "+defaultLog+" MAXLEN 1")
	}
	if got := client.XRevRangeN(t.Context(), defaultLog, "+", "-", 1).Val(); len(got) != 1 || got[0].ID != "1000-100" {
		t.Errorf("the newest message is %v", got)
	}
	do(t, client, "DEL "+defaultLog)
	if err := i.log.trimByAge(); err != nil {
		t.Errorf("trimming a log that is not there: %v", err)
	}
}

// An idle hub's log runs empty by and by. It is the same log as ever.
func TestARedisLogThatAgedAwayIsNotALostOne(t *testing.T) {
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

// awaitReads returns when Redis has served so many more XREADs.
func awaitReads(t testing.TB, client *redis.Client, n int) {
	t.Helper()
	from := callsOf(t, client, "xread")
	e2etest.Await(t, "the instances to read on", func() bool { return callsOf(t, client, "xread") >= from+n })
}

func TestRedisLogTrimmedPastALaggingInstanceIsToldAsAGap(t *testing.T) {
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	a := start(t, server.URL(), func(o *Options) { o.MaxLen = 200 })
	lagging := start(t, proxy.URL(), withTimeout(300*time.Millisecond))
	onA, r, other := a.subscribe(hubtest.With("a")), lagging.subscribe(hubtest.With("a")), lagging.subscribe(hubtest.With("b"))
	first := a.publish("before", hub.Topics("a")...)
	r.want("before")
	proxy.Cut()
	e2etest.Await(t, "the instance to notice", func() bool { return !lagging.LogUp() })
	for k := range 1000 {
		a.publish(strconv.Itoa(k), hub.Topics("a")...)
		if k%50 == 49 {
			onA.awaitText(strconv.Itoa(k)) // it is not to lag itself
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
		if back := i.subscribe(hubtest.Returning(hubtest.With("a"), r.lastID())); back.Resume != hub.ResumeComplete {
			t.Errorf("the newest ID is resumed with %q", back.Resume)
		}
	}
	if back := lagging.subscribe(hubtest.Returning(hubtest.With("a"), first.ID)); back.Resume != hub.ResumeGap {
		t.Errorf("the instance that missed messages resumes with %q from before them", back.Resume)
	}
}

// What one call adds beyond max_len is trimmed before any tail could see it.
func TestARedisBurstBeyondMaxLenIsNotLostSilently(t *testing.T) {
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

func TestRedisLoadsALargeLogSoonAndInLittleMemory(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	const n = 100_000
	for k := 0; k < n; k += 1000 {
		pipe := client.Pipeline()
		for m := k; m < k+1000; m++ {
			pipe.XAdd(t.Context(), xadd("topic", "topic-"+strconv.Itoa(m%100), "data", "message "+strconv.Itoa(m)))
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	i := start(t, server.URL())
	took := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%d messages of 14 bytes were loaded in %v and take %d bytes each", n, took, each)
	if took > 15*time.Second || each > 1000 {
		t.Errorf("loading took %v, and %d bytes each", took, each)
	}
	r := i.subscribe(hubtest.Returning(hubtest.With("topic-99"), hub.ID{Epoch: i.Position().Epoch, Position: hub.Position{}}.String()))
	r.awaitText("message 99999")
	if got := len(r.got()); got != n/100 || r.Resume != hub.ResumeComplete {
		t.Errorf("a client gets %d of %d, resumed with %q", got, n/100, r.Resume)
	}
}

func TestRedisFlushIsToldEverywhereAndLiveGoesOn(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, server.URL())
	for round, command := range []string{"FLUSHALL", "DEL " + defaultLog, "DEL {sse:default}:epoch", "FLUSHALL"} {
		epoch := a.Position().Epoch
		readers := []*reader{a.subscribe(hubtest.With("a")), b.subscribe(hubtest.With("a"))}
		old := a.publish("before", hub.Topics("a")...)
		for _, r := range readers {
			r.want("before")
		}
		do(t, client, command)
		if round < 3 { // else it is found out without anybody publishing
			b.publish("after", hub.Topics("a")...)
		}
		for n, r := range readers {
			r.await("a gap", func(events []wireEvent) bool {
				return slices.ContainsFunc(events, func(e wireEvent) bool { return e.Name == "gap" })
			})
			if round == 3 {
				continue
			}
			r.awaitText("after")
			if got := r.texts(); got[1] != hubtest.Gap("log_lost") && got[1] != hubtest.Gap("history_trimmed") || count(r.got(), "after") != 1 {
				t.Errorf("after %s the client of instance %d got %v", command, n, got)
			}
		}
		e2etest.Await(t, "the instances to agree", func() bool { return a.Position() == b.Position() })
		if a.Position().Epoch == epoch {
			t.Errorf("after %s the epoch is the old one", command)
		}
		a.publish("more", hub.Topics("a")...)
		for _, i := range []*instance{a, b} {
			if back := i.subscribe(hubtest.Returning(hubtest.With("a"), old.ID)); back.Resume != hub.ResumeGap {
				t.Errorf("after %s an old ID is resumed with %q", command, back.Resume)
			}
		}
		for _, r := range readers {
			r.awaitText("more")
			b.awaitID(r.lastID())
			if back := b.subscribe(hubtest.Returning(hubtest.With("a"), r.lastID())); back.Resume != hub.ResumeComplete {
				t.Errorf("after %s a new ID is resumed with %q", command, back.Resume)
			}
			r.leave()
		}
	}
}

func TestRedisRestoredFromAnOlderCopyIsToldAsAGap(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, server.URL())
	readers := []*reader{a.subscribe(hubtest.With("a")), b.subscribe(hubtest.With("a"))}
	a.publish("old", hub.Topics("a")...)
	do(t, client, "SAVE")
	copied, err := os.ReadFile(filepath.Join(server.Dir(), "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	newer := a.publish("newer", hub.Topics("a")...)
	for _, r := range readers {
		r.want("old", "newer")
	}
	server.Kill()
	if err := os.WriteFile(filepath.Join(server.Dir(), "dump.rdb"), copied, 0o600); err != nil {
		t.Fatal(err)
	}
	server.Restart()
	for _, r := range readers {
		r.awaitText(hubtest.Gap("log_lost"))
	}
	e2etest.Await(t, "the instances to agree", func() bool { return a.Position() == b.Position() })
	b.publish("after", hub.Topics("a")...)
	c := start(t, server.URL())
	for n, i := range []*instance{a, b, c} {
		back := i.subscribe(hubtest.Returning(hubtest.With("a"), newer.ID))
		if back.Resume != hub.ResumeGap {
			t.Errorf("instance %d resumes the ID of a message that is lost with %q", n, back.Resume)
		}
		back.awaitText("after")
	}
	for _, r := range readers {
		r.want("old", "newer", hubtest.Gap("log_lost"), "after")
	}
}

// A stream that is deleted and written to again within a millisecond gives out the same IDs again.
func TestARedisLogThatGivesOutPositionsAgainIsToldAsAGap(t *testing.T) {
	for _, command := range []string{"DEL " + defaultLog, "FLUSHALL"} {
		t.Run(command, func(t *testing.T) {
			server := e2etest.RedisServer(t)
			client := admin(t, server.URL())
			instances := []*instance{start(t, server.URL()), start(t, server.URL())}
			var readers []*reader
			for _, i := range instances {
				readers = append(readers, i.subscribe(hubtest.With("a")))
			}
			const at = " 1000-"
			do(t, client, "XADD "+defaultLog+at+"0 topic a data old-0")
			do(t, client, "XADD "+defaultLog+at+"1 topic a data old-1")
			for _, r := range readers {
				r.want("old-0", "old-1")
			}
			_, err := client.TxPipelined(t.Context(), func(pipe redis.Pipeliner) error {
				for _, c := range []string{command, "XADD " + defaultLog + at + "0 topic a data new-0", "XADD " + defaultLog + at + "1 topic a data new-1"} {
					pipe.Do(t.Context(), words(c)...)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			do(t, client, "XADD "+defaultLog+" * topic a data last")
			for _, r := range readers {
				r.want("old-0", "old-1", hubtest.Gap("log_lost"), "new-0", "new-1", "last")
			}
			e2etest.Await(t, "the instances to agree", func() bool { return instances[0].Position() == instances[1].Position() })
		})
	}
}

// The publisher was told that the message is in the log, but nobody has read it yet when Redis comes
// back without it.
func TestRedisThatLostWhatNobodyHadReadIsToldAsAGap(t *testing.T) {
	for _, published := range []bool{false, true} { // on the restored log, so that it looks newer
		t.Run(fmt.Sprint("published on top ", published), func(t *testing.T) {
			server := e2etest.RedisServer(t)
			proxy := e2etest.NewProxy(t, server.Addr())
			client := admin(t, server.URL())
			i := launch(t, newOptions(t, server.URL(), withTimeout(time.Second)), func(i *instance) { i.tailAt = proxy.Addr() })
			i.awaitUp()
			r := i.subscribe(hubtest.With("a"))
			i.publish("old", hub.Topics("a")...)
			r.want("old")
			do(t, client, "SAVE")
			copied, err := os.ReadFile(filepath.Join(server.Dir(), "dump.rdb"))
			if err != nil {
				t.Fatal(err)
			}
			proxy.Hold()
			i.publish("lost", hub.Topics("a")...)
			proxy.Cut() // and what was on its way is gone
			server.Kill()
			if err := os.WriteFile(filepath.Join(server.Dir(), "dump.rdb"), copied, 0o600); err != nil {
				t.Fatal(err)
			}
			server.Restart()
			if published {
				do(t, client, "XADD "+defaultLog+" * topic a data on-top")
			}
			proxy.Heal()
			r.awaitText(hubtest.Gap("log_lost"))
			wanted := []string{"old", hubtest.Gap("log_lost")}
			if published {
				r.awaitText("on-top")
				wanted = append(wanted, "on-top")
			}
			hubtest.Want(t, r.texts(), wanted...)
		})
	}
}

func TestASwappedRedisLogGoesOnWithoutAGap(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	i := start(t, server.URL())
	maxLen := func(n int) func(*Options) { return func(o *Options) { o.MaxLen = n } }
	r := i.subscribe(hubtest.With("a"))
	do(t, client, "CONFIG RESETSTAT")
	i.swap(newOptions(t, server.URL(), maxLen(5000))) // while the log is empty
	awaitReads(t, client, 2)
	if gets := callsOf(t, client, "xinfo|stream"); gets > 20 {
		t.Errorf("over an empty log the new tail looked %d times what it is", gets)
	}
	i.publish("1", hub.Topics("a")...)
	r.want("1")
	i.swap(newOptions(t, server.URL(), maxLen(77)))
	i.publish("2", hub.Topics("a")...)
	do(t, client, "XADD "+defaultLog+" * rubbish 1")
	e2etest.Await(t, "the malformed entry to be counted", func() bool { return i.malformed() == 1 })
	i.swap(newOptions(t, server.URL()))
	i.publish("3", hub.Topics("a")...)
	r.want("1", "2", "3")
	do(t, client, "XTRIM "+defaultLog+" MAXLEN 0")
	i.swap(newOptions(t, server.URL(), maxLen(78)))
	i.publish("4", hub.Topics("a")...)
	r.want("1", "2", "3", "4")
	i.swap(newOptions(t, server.URL(), func(o *Options) { o.Prefix = "other" }))
	i.publish("5", hub.Topics("a")...)
	r.want("1", "2", "3", "4", hubtest.Gap("broker_changed"), "5")
}

func TestAnEntryThatIsDeletedIsNoOtherLog(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	i := start(t, server.URL())
	first := i.publish("1", hub.Topics("a")...)
	last := i.publish("2", hub.Topics("a")...)
	i.awaitID(last.ID)
	r := i.subscribe(hubtest.With("a"))
	_, entry, _ := strings.Cut(last.ID, "-")
	do(t, client, "XDEL "+defaultLog+" "+entry)
	i.publish("3", hub.Topics("a")...)
	i.publish("4", hub.Topics("a")...)
	r.want("3", "4")
	if before, _ := hub.ParseID(first.ID); i.Position().Epoch != before.Epoch {
		t.Error("the epoch changed")
	}
}

// The line may break again before anything was read from where a tail goes on after a gap.
func TestATailThatIsSentOnAfterAGapKnowsTheLogAgain(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	i := start(t, server.URL())
	first, _ := hub.ParseID(i.publish("1", hub.Topics("a")...).ID)
	for range 5 {
		i.publish("more", hub.Topics("a")...)
	}
	behind := &tail{Log: i.log, at: first}
	for _, kept := range []string{"3", "1"} {
		do(t, client, "XTRIM "+defaultLog+" MAXLEN "+kept)
		found, lost, err := behind.verify(t.Context(), client)
		if found != trimmed || err != nil {
			t.Fatalf("of %s messages kept it finds %d, error %v", kept, found, err)
		}
		behind.goOnAfter(lost)
		for range 2 {
			if found, _, err := behind.verify(t.Context(), client); found != whole || err != nil {
				t.Fatalf("from where it goes on it finds %d, error %v", found, err)
			}
		}
	}
}
