package boltlog

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestMessagesComeBackUnchangedAfterARestart(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	begin := d.hub.Position().String()
	s := hubtest.With("a", "x/*")
	s.ClientID, s.User = "c", "u"
	live := d.hub.Join(s)
	for _, m := range []*hub.Message{
		{To: hub.Topics("a"), Data: []byte("plain")},
		{To: hub.Topics("a", "x/1"), Data: []byte("two topics"), Event: "named"},
		{To: hub.Topics("a", "a"), Data: []byte("one topic twice")},
		{To: []hub.Address{{Kind: hub.ToClient, Name: "c"}}, Data: []byte("a client"), Retry: 1234, HasRetry: true},
		{To: []hub.Address{{Kind: hub.ToUser, Name: "u"}}, Data: []byte("a user"), HasRetry: true},
		{To: []hub.Address{{Kind: hub.ToBroadcast}}, Data: []byte("one\ntwo\r\nthree\rfour\n\nsix\n")},
		{
			To:   hub.Topics("x/☃ \u2028 " + strings.Repeat("l", 200)),
			Data: []byte("snow \u2028 ☃ \U0001f511 \x00 \" \\ <&>"),
		},
		{To: hub.Topics("a"), Event: "empty"},
	} {
		if _, err := d.log.Publish(t.Context(), []*broker.Publication{{Message: m}}); err != nil {
			t.Fatal(err)
		}
	}
	first := live.Blocks()
	d.restart()
	again := d.hub.Join(hubtest.Returning(s, begin))
	if again.Resume != hub.ResumeComplete {
		t.Errorf("the client is told %q", again.Resume)
	}
	hubtest.Want(t, again.Blocks(), first...)
}

func TestHistoryAgesOverARestart(t *testing.T) {
	d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 100, Age: time.Hour}})
	published := d.publishAll("a", 1, 3)
	d.publishAll("b", 1, 1)
	d.update(func(tx *bbolt.Tx) error { // two of them were published long ago
		log := tx.Bucket(logBucket)
		ages := map[uint64]time.Duration{1: 2 * time.Hour, 2: 61 * time.Minute, 3: 58 * time.Minute}
		for position, age := range ages {
			key := positionKey(hub.Position{Major: position})
			s, err := readStored(key, log.Get(key))
			if err != nil {
				return err
			}
			m := s.message(key)
			m.Time = m.Time.Add(-age)
			if err := log.SetSequence(position - 1); err != nil {
				return err
			}
			if err := storeMessage(log, m, s.Owner); err != nil {
				return err
			}
		}
		return log.SetSequence(4)
	})
	d.restart()
	from := idAt(published, 0)
	d.hub.Join(hubtest.Returning(hubtest.With("a"), from)).WantResume(hub.ResumeGap, from, "3")
	d.hub.Join(hubtest.Returning(hubtest.With("b"), from)).WantResume(hub.ResumeComplete, from, "1")
	from = idAt(published, 2)
	d.hub.Join(hubtest.Returning(hubtest.With("a"), from)).WantResume(hub.ResumeComplete, from, "3")
	if n := d.kept(); n > 2 {
		t.Errorf("%d messages are in the file", n)
	}
}

func TestRemovedMessagesAreAGapOnlyForTheirAddresses(t *testing.T) {
	d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 2}})
	begin := d.hub.Position().String()
	d.publish(hub.Topics("quiet"), "q")
	d.publish([]hub.Address{{Kind: hub.ToUser, Name: "u"}}, "u1")
	d.publishAll("busy", 1, 9)
	d.publish([]hub.Address{{Kind: hub.ToUser, Name: "u"}}, "u2")
	d.publish([]hub.Address{{Kind: hub.ToUser, Name: "u"}}, "u3")
	for range 3 {
		d.restart()
		if n := d.kept(); n != 5 {
			t.Fatalf("%d messages are in the file, want 5", n)
		}
		d.hub.Join(hubtest.Returning(hubtest.With("busy"), begin)).WantResume(hub.ResumeGap, begin, "8", "9")
		d.hub.Join(hubtest.Returning(hubtest.With("quiet"), begin)).WantResume(hub.ResumeComplete, begin, "q")
		d.hub.Join(hubtest.Returning(hubtest.With("silent"), begin)).WantResume(hub.ResumeComplete, begin)
		d.hub.Join(hubtest.Returning(hubtest.With("*"), begin)).WantResume(hub.ResumeGap, begin, "q", "8", "9")
		user := hubtest.With("quiet")
		user.User = "u"
		d.hub.Join(hubtest.Returning(user, begin)).WantResume(hub.ResumeGap, begin, "q", "u2", "u3")
		// The seventh message on busy stood at 9.
		from := idAt(begin, 9)
		d.hub.Join(hubtest.Returning(hubtest.With("busy"), from)).WantResume(hub.ResumeComplete, from, "8", "9")
		from = idAt(begin, 8)
		d.hub.Join(hubtest.Returning(hubtest.With("busy"), from)).WantResume(hub.ResumeGap, from, "8", "9")
	}
}

// idAt returns the ID of another position of the log that an ID is from.
func idAt(id string, position uint64) string {
	at, _ := hub.ParseID(id)
	at.Position.Major = position
	return at.String()
}

func TestAddressWithoutMessagesKeepsItsMark(t *testing.T) {
	d := newDiskHub(t, hub.Limits{})
	begin := d.publish(hub.Topics("a"), "lost")
	d.publish(hub.Topics("b"), "lost too")
	for range 2 {
		d.restart()
		if n := d.kept(); n != 0 {
			t.Errorf("%d messages are in the file", n)
		}
		d.hub.Join(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeComplete, begin)
		d.hub.Join(hubtest.Returning(hubtest.With("b"), begin)).WantResume(hub.ResumeGap, begin)
	}
}

func TestFoldedMarksAreAGapForOlderIDs(t *testing.T) {
	for name, c := range map[string]struct {
		keep time.Duration
		most int
		left int
	}{"old": {time.Hour, 100, 0}, "too many": {3 * time.Hour, 1, 1}} {
		t.Run(name, func(t *testing.T) {
			d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 1}})
			begin := d.publish(hub.Topics("kept"), "k")
			d.publishAll("a", 1, 3)
			last := d.publishAll("b", 1, 3)
			d.restart()
			two := time.Now().Add(2 * time.Hour)
			d.fold(3*time.Hour, 100, two) // neither old nor too many
			d.restart()
			d.hub.Join(hubtest.Returning(hubtest.With("kept"), begin)).WantResume(hub.ResumeComplete, begin)

			d.fold(c.keep, c.most, two)
			for range 2 {
				d.restart()
				d.hub.Join(hubtest.Returning(hubtest.With("silent"), begin)).WantResume(hub.ResumeGap, begin)
				d.hub.Join(hubtest.Returning(hubtest.With("kept"), begin)).WantResume(hub.ResumeGap, begin)
				d.hub.Join(hubtest.Returning(hubtest.With("b"), last)).WantResume(hub.ResumeComplete, last)
				// A client with an unknown ID gets what is kept, also from before the fold.
				lost := d.hub.Join(hubtest.Returning(hubtest.With("kept"), "nobody's-1"))
				lost.WantResume(hub.ResumeGap, d.beginning(), "k")
			}
			d.update(func(tx *bbolt.Tx) error {
				if n := tx.Bucket(marksBucket).Stats().KeyN; n != c.left {
					t.Errorf("%d marks are left", n)
				}
				return nil
			})
		})
	}
}

// A client is told no gap because of messages that a busy topic has lost and that were not for the client.
func TestQuietPatternResumesExactlyAfterARestart(t *testing.T) {
	d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 2}})
	first := d.publish(hub.Topics("orders/1"), "1")
	d.publishAll("ticks", 1, 10)
	for range 2 {
		d.hub.Join(hubtest.Returning(hubtest.With("orders/**"), first)).WantResume(hub.ResumeComplete, first)
		d.hub.Join(hubtest.Returning(hubtest.With("**"), first)).WantResume(hub.ResumeGap, first, "9", "10")
		d.restart()
	}
}

func TestFileStaysBoundedUnderLongPublishing(t *testing.T) {
	d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 20}})
	text := strings.Repeat("x", 1000)
	publish := func(messages int) {
		batch := make([]*broker.Publication, 100)
		for range messages / len(batch) {
			for i := range batch {
				m := &hub.Message{To: hub.Topics(fmt.Sprint(i % 5)), Data: []byte(text)}
				batch[i] = &broker.Publication{Message: m}
			}
			if _, err := d.log.Publish(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		publish(2000)
		e2etest.Await(t, "the file keeps no more than the hub", func() bool { return d.kept() == 100 })
	}
	size := d.log.Size()
	for range 5 {
		publish(2000)
		d.restart()
	}
	t.Logf("the file has %d bytes after 4,000 messages, %d after 14,000", size, d.log.Size())
	if d.log.Size() > 2*size {
		t.Error("the file has grown")
	}
}

func TestLowerLimitsAreAppliedInBoundedMemory(t *testing.T) {
	const messages, size = 3000, 20_000
	d := newDiskHub(t, hubtest.Plenty)
	batch := make([]*broker.Publication, 500)
	for range messages / len(batch) {
		for i := range batch {
			m := &hub.Message{To: hub.Topics("a"), Data: bytes.Repeat([]byte("x"), size)}
			batch[i] = &broker.Publication{Message: m}
		}
		if _, err := d.log.Publish(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	d.stop()
	d.hub = nil
	d.limits = hub.Limits{History: hub.HistoryLimits{Count: 10}}

	runtime.GC()
	before, most := heapBytes(), uint64(0)
	d.log = openTestLog(t, d.module)
	d.log.update = func(change func(*bbolt.Tx) error) error {
		runtime.GC() // memory is at its most when the log is about to remove something
		most = max(most, heapBytes())
		return d.log.transact(change)
	}
	d.hub = hubtest.New(t, d.limits)
	startLog(d.log, d.hub.Hub)
	if grown := int64(most) - int64(before); grown > maxRestoreBytes*3/2 {
		t.Errorf("loading %d MB took %d MB of memory", messages*size>>20, grown>>20)
	}
	if n := d.kept(); n != 10 {
		t.Errorf("%d messages are in the file", n)
	}
}

// heapBytes returns how many bytes live on the heap.
func heapBytes() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestHundredThousandMessagesAreLoadedAndResumed(t *testing.T) {
	const messages = 100_000
	d := newDiskHub(t, hubtest.Plenty)
	begin := d.hub.Position().String()
	batch := make([]*broker.Publication, 1000)
	for i := range messages {
		m := &hub.Message{To: hub.Topics(fmt.Sprint(i % 100)), Data: fmt.Appendf(nil, "%d %0100d", i, 0)}
		batch[i%len(batch)] = &broker.Publication{Message: m}
		if i%len(batch) == len(batch)-1 {
			if _, err := d.log.Publish(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.stop()
	runtime.GC()
	before, started := heapBytes(), time.Now()
	d.start()
	took := time.Since(started)
	runtime.GC()
	t.Logf("loaded in %v, %d bytes of memory a message, %d of the file",
		took, (heapBytes()-before)/messages, d.log.Size()/messages)
	if took > 20*time.Second {
		t.Errorf("loading took %v", took)
	}

	started = time.Now()
	l := d.hub.Join(hubtest.Returning(hubtest.With("*"), begin))
	if l.Resume != hub.ResumeComplete {
		t.Errorf("the client is told %q", l.Resume)
	}
	n := 0
	for _, text := range l.Texts() {
		if !strings.HasPrefix(text, fmt.Sprintf("%d ", n)) {
			t.Fatalf("message %d reads %q", n, text)
		}
		n++
	}
	t.Logf("resumed in %v", time.Since(started))
	if n != messages {
		t.Errorf("%d messages came", n)
	}
}

func TestNewOptionsOnTheSameFileGoUnnoticed(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	live := d.hub.Join(hubtest.With("a"))
	first := d.publish(hub.Topics("a"), "1")
	s := hubtest.Returning(hubtest.With("a"), d.beginning())
	s.Queue = 1
	d.publish(hub.Topics("a"), "2")
	catchingUp := d.hub.Enter(s)
	catchingUp.Let(1)
	catchingUp.Want("1")
	for _, sync := range []bool{false, true} {
		// As on a reload: the new log opens while the old one runs.
		next := openTestLog(t, newModule(d.module.File, sync))
		if err := d.log.Close(); err != nil {
			t.Error(err)
		}
		startLog(next, d.hub.Hub)
		d.log = next
		if d.log.db.NoSync == sync {
			t.Errorf("sync is not %t", sync)
		}
		d.publish(hub.Topics("a"), "x")
	}
	hubtest.Want(t, live.Texts(), "1", "2", "x", "x")
	catchingUp.Open()
	catchingUp.Want("2", "x", "x")
	d.restart()
	d.hub.Join(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first, "2", "x", "x")
}

func TestAnotherFileIsAGapWithoutADisconnect(t *testing.T) {
	for name, keep := range map[string]bool{"an empty one": false, "one with a log": true} {
		t.Run(name, func(t *testing.T) {
			other := newDiskHub(t, hubtest.Plenty)
			texts := []string(nil)
			if keep {
				other.publish(hub.Topics("a"), "of old")
				texts = append(texts, "of old")
			}
			end := other.hub.Position().String()
			other.stop()

			d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 1}})
			live := d.hub.Join(hubtest.With("a"))
			old := d.publishAll("a", 1, 2)
			next := openTestLog(t, other.module)
			if err := d.log.Close(); err != nil {
				t.Error(err)
			}
			startLog(next, d.hub.Hub)
			before := d.module
			d.log, d.module = next, other.module
			got := live.Events()
			hubtest.Want(t, hubtest.TextsOf(got), "1", "2", hubtest.Gap("broker_changed"))
			if id := got[2].ID; id != end {
				t.Errorf("the gap ends at %s, want %s", id, end)
			}
			d.hub.Join(hubtest.Returning(hubtest.With("a"), old)).WantResume(hub.ResumeGap, d.beginning(), texts...)
			d.publish(hub.Topics("a"), "new")
			hubtest.Want(t, live.Texts(), "new")

			// The first file has been left as it was.
			if _, err := os.Stat(before.File); err != nil {
				t.Error(err)
			}
			d.stop()
			d.module = before
			d.start()
			d.hub.Join(hubtest.Returning(hubtest.With("a"), old)).WantResume(hub.ResumeComplete, old)
			if n := d.kept(); n != 1 {
				t.Errorf("%d messages are left in the first file", n)
			}
		})
	}
}
