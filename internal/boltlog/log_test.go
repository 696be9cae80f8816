package boltlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestPublishersShareCommits(t *testing.T) {
	const publishers, posts = 50, 20
	d := newDiskHub(t, hubtest.Plenty)
	first := make(chan struct{}, 1)
	release := make(chan struct{})
	d.meddle(func(commit func() error) error {
		select {
		case first <- struct{}{}:
			<-release // when all publishers are under way
		default:
		}
		return commit()
	})
	before := d.commits()
	var under sync.WaitGroup
	for range publishers {
		under.Go(func() {
			for range posts {
				d.publish(hub.Topics("a"), "x")
			}
		})
	}
	<-first
	close(release)
	under.Wait()
	commits := d.commits() - before
	t.Logf("%d publishes by %d publishers took %d commits", publishers*posts, publishers, commits)
	if commits > publishers*posts/5 {
		t.Errorf("%d publishes took %d commits", publishers*posts, commits)
	}
	if last := d.hub.Position().Position.Major; last != publishers*posts {
		t.Errorf("the last position is %d", last)
	}
}

func TestMessagesOfOneCommitHaveAnOrder(t *testing.T) {
	const publishers, posts = 20, 20
	d := newDiskHub(t, hubtest.Plenty)
	begin := d.hub.Position().String()
	ordered := make([]string, publishers*posts)
	var under sync.WaitGroup
	for i := range publishers {
		under.Go(func() {
			last := uint64(0)
			for n := range posts {
				text := fmt.Sprint(i, "-", n)
				id, ok := hub.ParseID(d.publish(hub.Topics(strconv.Itoa(i)), text))
				if at := id.Position.Major; !ok || at <= last || at > uint64(len(ordered)) {
					t.Errorf("after position %d a publisher got %s", last, id)
				} else {
					ordered[at-1], last = text, at
				}
			}
		})
	}
	under.Wait()
	d.hub.Join(hubtest.Returning(hubtest.With("**"), begin)).WantResume(hub.ResumeComplete, begin, ordered...)
	d.restart()
	d.hub.Join(hubtest.Returning(hubtest.With("**"), begin)).WantResume(hub.ResumeComplete, begin, ordered...)
}

func TestEpochAndIDsOutliveARestart(t *testing.T) {
	runs := map[string]func(*diskHub){"restart": (*diskHub).restart, "crash": (*diskHub).crash}
	for name, again := range runs {
		t.Run(name, func(t *testing.T) {
			d := newDiskHub(t, hubtest.Plenty)
			first := d.publish(hub.Topics("a"), "1")
			again(d)
			if got := d.hub.Position().String(); got != first {
				t.Errorf("the log goes on from %s; the last ID was %s", got, first)
			}
			next, ok := hub.ParseID(d.publish(hub.Topics("a"), "2"))
			id, _ := hub.ParseID(first)
			if !ok || next.Epoch != id.Epoch || next.Position.Major != id.Position.Major+1 {
				t.Errorf("the ID after %s is %s", first, next)
			}
			// The same holds when nothing is kept any more.
			d.limits.History.Count = 0
			d.restart()
			d.restart()
			if n := d.kept(); n != 0 {
				t.Errorf("%d messages are kept", n)
			}
			if got := d.hub.Position(); got != next {
				t.Errorf("the log goes on from %s; the last ID was %s", got, next)
			}
		})
	}
}

func TestEphemeralMessagesAreNotStored(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	live := d.hub.Join(hubtest.With("a"))
	before := d.publish(hub.Topics("a"), "1")
	p := &broker.Publication{Message: &hub.Message{To: hub.Topics("a"), Data: []byte("tick"), Ephemeral: true}}
	_, err := d.log.Publish(t.Context(), []*broker.Publication{p})
	if err != nil || p.Receipt != (broker.Receipt{ID: "", Receivers: 1}) {
		t.Errorf("the receipt is %+v, %v", p.Receipt, err)
	}
	hubtest.Want(t, live.Texts(), "1", "tick")
	if n := d.kept(); n != 1 {
		t.Errorf("%d messages are in the file", n)
	}
	d.restart()
	d.hub.Join(hubtest.Returning(hubtest.With("a"), before)).WantResume(hub.ResumeComplete, before)
}

func TestReceiversCountEachAddressThatReachesAClient(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	s := hubtest.With("a", "b", "*")
	s.ClientID, s.User = "c", "u"
	d.hub.Join(s)
	d.hub.Join(hubtest.With("b"))
	for _, c := range []struct {
		to   []hub.Address
		want int
	}{
		{hub.Topics("a", "b", "c"), 6},
		{hub.Topics("a"), 2},
		{hub.Topics("x/y"), 0},
		{[]hub.Address{{Kind: hub.ToClient, Name: "c"}}, 1},
		{[]hub.Address{{Kind: hub.ToUser, Name: "u"}}, 1},
		{[]hub.Address{{Kind: hub.ToBroadcast}}, 2},
	} {
		if receipt, err := d.tryPublish(c.to, "x"); err != nil || receipt.Receivers != c.want {
			t.Errorf("%v has %d receivers, %v; want %d", c.to, receipt.Receivers, err, c.want)
		}
	}
}

func TestKeyPublishesOnceAcrossRestarts(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	d.hub.Join(hubtest.With("a"))
	first := keyed("k", "1")
	batch := []*broker.Publication{first, keyed("k", "1")} // also within one commit
	if n, err := d.log.Publish(t.Context(), batch); n != 2 || err != nil || batch[1].Receipt != first.Receipt {
		t.Errorf("published %d, %v: %+v", n, err, batch[1].Receipt)
	}
	d.crash()
	again := keyed("k", "1")
	n, err := d.log.Publish(t.Context(), []*broker.Publication{again})
	if n != 1 || err != nil || again.Receipt != first.Receipt {
		t.Errorf("published %d, %v: %+v; want %+v", n, err, again.Receipt, first.Receipt)
	}
	if n := d.kept(); n != 1 {
		t.Errorf("%d messages are in the file", n)
	}
}

func TestCheckKeysFailsUntilTheFileCanBeWritten(t *testing.T) {
	d := &diskHub{t: t, module: newModule(filepath.Join(t.TempDir(), "sse.db"), true), limits: hubtest.Plenty}
	mend := d.breakDisk()
	d.start()
	t.Cleanup(d.stop)
	batch := []*broker.Publication{keyed("k", "1")}
	if n, err := d.log.CheckKeys(t.Context(), batch); n != 0 || !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("found %d to be fine, %v", n, err)
	}
	mend()
	e2etest.Await(t, "a publish to succeed", func() bool {
		_, err := d.log.Publish(t.Context(), batch)
		return err == nil
	})
	if n, err := d.log.CheckKeys(t.Context(), batch); n != 1 || err != nil {
		t.Errorf("found %d to be fine, %v", n, err)
	}
}

func TestKeyOfAnotherMessageEndsOnlyItsOwnBatch(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	if _, err := d.log.Publish(t.Context(), []*broker.Publication{keyed("k", "1")}); err != nil {
		t.Fatal(err)
	}
	d.restart()
	live := d.hub.Join(hubtest.With("a"))
	for range 2 { // a refusal leaves the other keys as they were
		batch := []*broker.Publication{keyed("x", "2"), keyed("k", "other"), keyed("y", "3")}
		if n, err := d.log.CheckKeys(t.Context(), batch); n != 1 || !errors.Is(err, broker.ErrKeyReused) {
			t.Errorf("found %d to be fine, %v", n, err)
		}
		n, err := d.log.Publish(t.Context(), batch)
		if n != 1 || !errors.Is(err, broker.ErrKeyReused) {
			t.Errorf("published %d, %v", n, err)
		}
	}
	hubtest.Want(t, live.Texts(), "2")
	if n, err := d.log.Publish(t.Context(), []*broker.Publication{keyed("y", "4")}); n != 1 || err != nil {
		t.Errorf("a key that was not used is refused: %d, %v", n, err)
	}
	hubtest.Want(t, live.Texts(), "4")
}

func TestWithoutSyncANewBootIsAGap(t *testing.T) {
	if !bytes.Equal(bootID(), bootID()) {
		t.Skip("this system's boots have no names")
	}
	d := newDiskHub(t, hubtest.Plenty)
	d.module = newModule(d.module.File, false)
	d.restart()
	if boot := d.unsynced(); !bytes.Equal(boot, bootID()) {
		t.Errorf("the file names the boot %q", boot)
	}
	first := d.publish(hub.Topics("a"), "1")
	d.publish(hub.Topics("a"), "2")
	d.crash()
	d.hub.Join(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first, "2")

	// The machine went down.
	d.update(func(tx *bbolt.Tx) error { return put(tx.Bucket(metaBucket), unsyncedKey, []byte("another boot")) })
	d.crash()
	begin := hub.ID{Epoch: d.hub.Position().Epoch, Position: hub.Position{}}.String()
	if old, _ := hub.ParseID(first); begin == (hub.ID{Epoch: old.Epoch, Position: hub.Position{}}).String() {
		t.Errorf("the log is still called %s", old.Epoch)
	}
	d.hub.Join(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeGap, begin, "1", "2")

	// After a clean end nothing is in doubt.
	last := d.publish(hub.Topics("a"), "3")
	d.module = newModule(d.module.File, true)
	d.restart()
	if boot := d.unsynced(); boot != nil {
		t.Errorf("the file still names the boot %q", boot)
	}
	d.hub.Join(hubtest.Returning(hubtest.With("a"), last)).WantResume(hub.ResumeComplete, last)
}

func TestUnsyncedFileIsTrustedWithinTheSameBoot(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	d.module = newModule(d.module.File, false)
	d.restart()
	first := d.publish(hub.Topics("a"), "1")
	d.module = newModule(d.module.File, true)
	d.crash()
	d.publish(hub.Topics("a"), "2")
	if bytes.Equal(bootID(), bootID()) {
		d.hub.Join(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first, "2")
	}
	if boot := d.unsynced(); boot != nil {
		t.Errorf("the file still names the boot %q", boot)
	}
}

func TestCloseAnswersPublishersUnderWay(t *testing.T) {
	for range 20 {
		d := newDiskHub(t, hubtest.Plenty)
		log := d.log
		var under sync.WaitGroup
		var mu sync.Mutex
		acknowledged := 0
		for range 10 {
			under.Go(func() {
				for {
					if _, err := log.Publish(t.Context(), []*broker.Publication{keyed("", "x")}); err != nil {
						if !errors.Is(err, broker.ErrUnavailable) {
							t.Errorf("refused with %v", err)
						}
						return
					}
					mu.Lock()
					acknowledged++
					mu.Unlock()
				}
			})
		}
		time.Sleep(rand.N(3 * time.Millisecond)) // at any time
		d.stop()
		if !hubtest.ReturnsSoon(under.Wait) {
			t.Fatal("a publisher hangs")
		}
		d.start()
		if n := d.kept(); n != acknowledged {
			t.Errorf("%d messages are in the file, %d were acknowledged", n, acknowledged)
		}
		d.stop()
	}
}

func TestPublishEndsWhenThePublisherLeaves(t *testing.T) {
	l := &Log{queue: make(chan *pendingBatch), context: t.Context()} // nobody commits
	gone, leave := context.WithCancel(t.Context())
	leave()
	n, err := l.Publish(gone, []*broker.Publication{keyed("", "x")})
	if n != 0 || !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("published %d, %v", n, err)
	}
	if n, err := l.Publish(t.Context(), nil); n != 0 || err != nil {
		t.Errorf("of nothing %d were published, %v", n, err)
	}
}
