package redislog

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestLargeLogLoadsFastInLittleMemory(t *testing.T) {
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
	beginning := hub.ID{Epoch: i.Position().Epoch, Position: hub.Position{}}.String()
	r := i.subscribe(hubtest.Returning(hubtest.With("topic-99"), beginning))
	r.awaitText("message 99999")
	if got := len(r.got()); got != n/100 || r.Resume != hub.ResumeComplete {
		t.Errorf("a client gets %d of %d, resumed with %q", got, n/100, r.Resume)
	}
}

func TestFlushIsToldAsAGapOnEveryInstance(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, server.URL())
	commands := []string{"FLUSHALL", "DEL " + defaultLog, "DEL {sse:default}:epoch", "FLUSHALL"}
	for round, command := range commands {
		epoch := a.Position().Epoch
		readers := []*reader{a.subscribe(hubtest.With("a")), b.subscribe(hubtest.With("a"))}
		old := a.publish("before", hub.Topics("a")...)
		for _, r := range readers {
			r.want("before")
		}
		do(t, client, command)
		if round < 3 { // in the last round nobody publishes, and the instances must find out by themselves
			b.publish("after", hub.Topics("a")...)
		}
		for n, r := range readers {
			r.await("a gap", func(events []eventstream.Event) bool {
				return slices.ContainsFunc(events, func(e eventstream.Event) bool { return e.Name == "gap" })
			})
			if round == 3 {
				continue
			}
			r.awaitText("after")
			got := r.texts()
			gap := got[1] == hubtest.Gap("log_lost") || got[1] == hubtest.Gap("history_trimmed")
			if !gap || count(r.got(), "after") != 1 {
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
			back := b.subscribe(hubtest.Returning(hubtest.With("a"), r.lastID()))
			if back.Resume != hub.ResumeComplete {
				t.Errorf("after %s a new ID is resumed with %q", command, back.Resume)
			}
			r.leave()
		}
	}
}

func TestOlderCopyOfTheLogIsToldAsAGap(t *testing.T) {
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

// A stream that is deleted and written within the same millisecond gives out the same IDs again.
func TestRepeatedPositionsAreToldAsAGap(t *testing.T) {
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
				for _, c := range []string{
					command,
					"XADD " + defaultLog + at + "0 topic a data new-0",
					"XADD " + defaultLog + at + "1 topic a data new-1",
				} {
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
			e2etest.Await(t, "the instances to agree", func() bool {
				return instances[0].Position() == instances[1].Position()
			})
		})
	}
}

// The message was acknowledged, but no instance has read it when Redis comes back without it.
func TestLossOfAnUnreadMessageIsToldAsAGap(t *testing.T) {
	for _, published := range []bool{false, true} { // whether a message on the restored log makes it look newer
		t.Run(fmt.Sprint("published on top ", published), func(t *testing.T) {
			server := e2etest.RedisServer(t)
			proxy := e2etest.NewProxy(t, server.Addr())
			client := admin(t, server.URL())
			i := launch(t, newOptions(t, server.URL(), withTimeout(time.Second)), tailingAt(proxy.Addr()))
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
			proxy.Cut() // what was on its way is lost
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

func TestSwappedLogGoesOnWithoutAGap(t *testing.T) {
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

func TestDeletedEntryDoesNotChangeTheLog(t *testing.T) {
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

// After a gap the tail goes on from a position without an entry. The line may break again before it has read
// anything.
func TestTailFindsTheLogWholeAfterAGap(t *testing.T) {
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
