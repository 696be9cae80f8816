package boltlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// diskHub is a hub whose log is in a file. It can be restarted, and crash.
type diskHub struct {
	t      testing.TB
	module *testModule
	limits hub.Limits
	hasty  bool // commits are not waited for to be on disk

	hub *hubtest.Hub
	log *Log // nil while it is closed

	// commit, if set, is what becomes of commits.
	commit atomic.Pointer[func(commit func() error) error]
}

func newDiskHub(t testing.TB, limits hub.Limits) *diskHub {
	t.Helper()
	return newDiskHubIn(t, t.TempDir(), limits)
}

func newDiskHubIn(t testing.TB, dir string, limits hub.Limits) *diskHub {
	t.Helper()
	d := &diskHub{t: t, module: boltModule(filepath.Join(dir, "sse.db"), true), limits: limits}
	d.start()
	t.Cleanup(d.stop)
	return d
}

// start begins a run on the file with a new hub.
func (d *diskHub) start() {
	d.t.Helper()
	d.log = openTestLog(d.t, d.module)
	db := d.log.db
	d.log.update = func(change func(*bbolt.Tx) error) error {
		commit := func() error {
			return db.Update(func(tx *bbolt.Tx) error {
				db.NoSync = db.NoSync || d.hasty // which commits read under the lock that is held here
				return change(tx)
			})
		}
		if meddle := d.commit.Load(); meddle != nil {
			return (*meddle)(commit)
		}
		return commit()
	}
	d.hub = hubtest.New(d.t, d.limits)
	d.log.Start(d.hub.Hub, func() {})
}

// meddle decides from now on what becomes of commits.
func (d *diskHub) meddle(with func(commit func() error) error) { d.commit.Store(&with) }

var errDisk = errors.New("the disk is on strike")

// breakDisk makes every commit fail until mend is called.
func (d *diskHub) breakDisk() (mend func()) {
	d.meddle(func(func() error) error { return errDisk })
	return func() { d.commit.Store(nil) }
}

// testModule is what a config says of a log in a file.
type testModule struct {
	File   string
	Sync   bool
	logger *zap.Logger
}

func boltModule(file string, sync bool) *testModule {
	return &testModule{File: file, Sync: sync, logger: zap.NewNop()}
}

// openFiles are the files that are open, as a process has them: the logs before and after a reload share one.
var openFiles struct {
	sync.Mutex
	byPath map[string]*openFile
}

type openFile struct {
	*File
	users int
}

// useFile opens a file or takes a share in it. The returned function gives that back.
func useFile(path string) (file *File, release func() error, err error) {
	if path, err = Path(path); err != nil {
		return nil, nil, err
	}
	openFiles.Lock()
	defer openFiles.Unlock()
	if openFiles.byPath == nil {
		openFiles.byPath = make(map[string]*openFile)
	}
	shared := openFiles.byPath[path]
	if shared == nil {
		if file, err = OpenFile(path, "test"); err != nil {
			return nil, nil, err
		}
		shared = &openFile{File: file}
		openFiles.byPath[path] = shared
	}
	shared.users++
	return shared.File, func() error {
		openFiles.Lock()
		defer openFiles.Unlock()
		if shared.users--; shared.users > 0 {
			return nil
		}
		delete(openFiles.byPath, path)
		return shared.Destruct()
	}, nil
}

func openTestLog(t testing.TB, module *testModule) *Log {
	t.Helper()
	file, release, err := useFile(module.File)
	if err != nil {
		t.Fatal(err)
	}
	return Open(file, Options{Sync: module.Sync, Logger: module.logger, Release: release})
}

// stop ends the run in good order.
func (d *diskHub) stop() {
	if d.log == nil {
		return
	}
	if err := d.log.Close(); err != nil {
		d.t.Errorf("closing the log: %v", err)
	}
	d.log = nil
}

func (d *diskHub) restart() {
	d.t.Helper()
	d.stop()
	d.start()
}

// crash goes on with the file as a process that is killed now would leave it. Nothing may be under
// way.
func (d *diskHub) crash() {
	d.t.Helper()
	content, err := os.ReadFile(d.module.File)
	if err != nil {
		d.t.Fatal(err)
	}
	d.stop()
	if err := os.WriteFile(d.module.File, content, 0o600); err != nil {
		d.t.Fatal(err)
	}
	d.start()
}

// tryPublish publishes a message to addresses.
func (d *diskHub) tryPublish(to []hub.Address, text string) (broker.Receipt, error) {
	p := &broker.Publication{Message: &hub.Message{To: to, Data: []byte(text)}}
	_, err := d.log.Publish(d.t.Context(), []*broker.Publication{p})
	return p.Receipt, err
}

// publish is tryPublish that must succeed. It returns the message's ID.
func (d *diskHub) publish(to []hub.Address, text string) string {
	d.t.Helper()
	receipt, err := d.tryPublish(to, text)
	if err != nil {
		d.t.Fatalf("publishing %q: %v", text, err)
	}
	return receipt.ID
}

// publishAll publishes messages to a topic, numbered from first to last, and returns the last ID.
func (d *diskHub) publishAll(topic string, first, last int) (id string) {
	d.t.Helper()
	for i := first; i <= last; i++ {
		id = d.publish(hub.Topics(topic), strconv.Itoa(i))
	}
	return id
}

// update changes what stands in the file behind the log's back.
func (d *diskHub) update(change func(*bbolt.Tx) error) {
	d.t.Helper()
	if err := d.log.db.Update(change); err != nil {
		d.t.Fatal(err)
	}
}

// kept returns how many messages stand in the file.
func (d *diskHub) kept() (n int) {
	d.t.Helper()
	err := d.log.db.View(func(tx *bbolt.Tx) error {
		n = tx.Bucket(logBucket).Stats().KeyN
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

func TestPublishersShareCommits(t *testing.T) {
	const publishers, posts = 50, 20
	d := newDiskHub(t, hubtest.Plenty)
	first := make(chan struct{}, 1)
	release := make(chan struct{})
	d.meddle(func(commit func() error) error {
		select {
		case first <- struct{}{}:
			<-release // until all are under way
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

// commits returns how many transactions have been committed.
func (d *diskHub) commits() (n int) {
	d.t.Helper()
	err := d.log.db.View(func(tx *bbolt.Tx) error {
		n = tx.ID()
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

func TestWhatSharesACommitHasAnOrderOfItsOwn(t *testing.T) {
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
	d.hub.Enter(hubtest.Returning(hubtest.With("**"), begin)).WantResume(hub.ResumeComplete, begin, ordered...)
	d.restart()
	d.hub.Enter(hubtest.Returning(hubtest.With("**"), begin)).WantResume(hub.ResumeComplete, begin, ordered...)
}

func TestIDsAndEpochOutliveARestart(t *testing.T) {
	for name, again := range map[string]func(*diskHub){"restart": (*diskHub).restart, "crash": (*diskHub).crash} {
		t.Run(name, func(t *testing.T) {
			d := newDiskHub(t, hubtest.Plenty)
			first := d.publish(hub.Topics("a"), "1")
			again(d)
			if got := d.hub.Position().String(); got != first {
				t.Errorf("the log goes on from %s; the last ID was %s", got, first)
			}
			next, ok := hub.ParseID(d.publish(hub.Topics("a"), "2"))
			if id, _ := hub.ParseID(first); !ok || next.Epoch != id.Epoch || next.Position.Major != id.Position.Major+1 {
				t.Errorf("the ID after %s is %s", first, next)
			}
			// Also where nothing is kept any more.
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
	live := d.hub.Listen(hubtest.With("a"))
	before := d.publish(hub.Topics("a"), "1")
	p := &broker.Publication{Message: &hub.Message{To: hub.Topics("a"), Data: []byte("tick"), Ephemeral: true}}
	if _, err := d.log.Publish(t.Context(), []*broker.Publication{p}); err != nil || p.Receipt != (broker.Receipt{ID: "", Receivers: 1}) {
		t.Errorf("the receipt is %+v, %v", p.Receipt, err)
	}
	hubtest.Want(t, live.Texts(), "1", "tick")
	if n := d.kept(); n != 1 {
		t.Errorf("%d messages are in the file", n)
	}
	d.restart()
	d.hub.Enter(hubtest.Returning(hubtest.With("a"), before)).WantResume(hub.ResumeComplete, before)
}

func TestReceiversCountAClientOnceOnDiskToo(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	s := hubtest.With("a", "b", "*")
	s.ClientID, s.User = "c", "u"
	d.hub.Listen(s)
	d.hub.Listen(hubtest.With("b"))
	for _, c := range []struct {
		to   []hub.Address
		want int
	}{
		{hub.Topics("a", "b", "c"), 2},
		{hub.Topics("a"), 1},
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

// keyed returns a publication with an idempotency key. Its fingerprint is made of its data.
func keyed(key, text string) *broker.Publication {
	p := &broker.Publication{Message: &hub.Message{To: hub.Topics("a"), Data: []byte(text)}, Key: key}
	copy(p.Fingerprint[:], text)
	return p
}

func TestAKeyPublishesOnceAcrossRestarts(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	d.hub.Listen(hubtest.With("a"))
	first := keyed("k", "1")
	batch := []*broker.Publication{first, keyed("k", "1")} // also within one commit
	if n, err := d.log.Publish(t.Context(), batch); n != 2 || err != nil || batch[1].Receipt != first.Receipt {
		t.Errorf("published %d, %v: %+v", n, err, batch[1].Receipt)
	}
	d.crash()
	again := keyed("k", "1")
	if n, err := d.log.Publish(t.Context(), []*broker.Publication{again}); n != 1 || err != nil || again.Receipt != first.Receipt {
		t.Errorf("published %d, %v: %+v; want %+v", n, err, again.Receipt, first.Receipt)
	}
	if n := d.kept(); n != 1 {
		t.Errorf("%d messages are in the file", n)
	}
}

func TestKeysOfAFileThatCouldNotBeBegunCannotBeTold(t *testing.T) {
	d := &diskHub{t: t, module: boltModule(filepath.Join(t.TempDir(), "sse.db"), true), limits: hubtest.Plenty}
	mend := d.breakDisk()
	d.start()
	t.Cleanup(d.stop)
	batch := []*broker.Publication{keyed("k", "1")}
	if n, err := d.log.CheckKeys(t.Context(), batch); n != 0 || !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("found %d to be fine, %v", n, err)
	}
	mend()
	e2etest.Await(t, "a publisher is heard", func() bool { _, err := d.log.Publish(t.Context(), batch); return err == nil })
	if n, err := d.log.CheckKeys(t.Context(), batch); n != 1 || err != nil {
		t.Errorf("found %d to be fine, %v", n, err)
	}
}

func TestAKeyThatComesWithAnotherMessageEndsItsRequestAlone(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	if _, err := d.log.Publish(t.Context(), []*broker.Publication{keyed("k", "1")}); err != nil {
		t.Fatal(err)
	}
	d.restart()
	live := d.hub.Listen(hubtest.With("a"))
	for range 2 { // the refusal leaves the other keys as they are
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

func TestKeysAreForgottenWhenTheirTimeIsOver(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	p := keyed("k", "1")
	if _, err := d.log.Publish(t.Context(), []*broker.Publication{p}); err != nil {
		t.Fatal(err)
	}
	over := p.Time.Add(broker.IdempotencyPeriod + time.Millisecond)
	d.update(func(tx *bbolt.Tx) error {
		answers := tx.Bucket(answersBucket)
		for now, want := range map[time.Time]bool{p.Time.Add(broker.IdempotencyPeriod / 2): true, over: false} {
			if found, err := findAnswer(answers, keyed("k", "1"), now); found != want || err != nil {
				t.Errorf("%v later it is %t that the key has an answer, %v", now.Sub(p.Time), found, err)
			}
		}
		if _, err := findAnswer(answers, keyed("k", "other"), over); err != nil {
			t.Errorf("a key that is free again is refused: %v", err)
		}
		if err := forgetAnswers(p.Time.Add(broker.IdempotencyPeriod / 2))(tx); err != nil || answers.Stats().KeyN != 1 {
			t.Errorf("%d answers are left, %v; want 1", answers.Stats().KeyN, err)
		}
		return forgetAnswers(over)(tx)
	})
	d.update(func(tx *bbolt.Tx) error {
		if n := tx.Bucket(answersBucket).Stats().KeyN; n != 0 {
			t.Errorf("%d answers are left", n)
		}
		return nil
	})
}

// unsynced returns what the file says of a run that does not sync.
func (d *diskHub) unsynced() (boot []byte) {
	d.t.Helper()
	err := d.log.db.View(func(tx *bbolt.Tx) error {
		value, err := get(tx.Bucket(metaBucket), unsyncedKey)
		boot = bytes.Clone(value)
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return boot
}

func TestWithoutSyncAnotherBootIsAGap(t *testing.T) {
	if !bytes.Equal(bootID(), bootID()) {
		t.Skip("this system's boots have no names")
	}
	d := newDiskHub(t, hubtest.Plenty)
	d.module = boltModule(d.module.File, false)
	d.restart()
	if boot := d.unsynced(); !bytes.Equal(boot, bootID()) {
		t.Errorf("the file names the boot %q", boot)
	}
	first := d.publish(hub.Topics("a"), "1")
	d.publish(hub.Topics("a"), "2")
	d.crash()
	d.hub.Enter(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first, "2")

	// The machine went down.
	d.update(func(tx *bbolt.Tx) error { return put(tx.Bucket(metaBucket), unsyncedKey, []byte("another boot")) })
	d.crash()
	begin := hub.ID{Epoch: d.hub.Position().Epoch, Position: hub.Position{}}.String()
	if old, _ := hub.ParseID(first); begin == (hub.ID{Epoch: old.Epoch, Position: hub.Position{}}).String() {
		t.Errorf("the log is still called %s", old.Epoch)
	}
	d.hub.Enter(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeGap, begin, "1", "2")

	// After a clean end nothing is in doubt.
	last := d.publish(hub.Topics("a"), "3")
	d.module = boltModule(d.module.File, true)
	d.restart()
	if boot := d.unsynced(); boot != nil {
		t.Errorf("the file still names the boot %q", boot)
	}
	d.hub.Enter(hubtest.Returning(hubtest.With("a"), last)).WantResume(hub.ResumeComplete, last)
}

func TestARunThatSyncsTrustsWhatAnotherLeftInTheSameBoot(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	d.module = boltModule(d.module.File, false)
	d.restart()
	first := d.publish(hub.Topics("a"), "1")
	d.module = boltModule(d.module.File, true)
	d.crash()
	d.publish(hub.Topics("a"), "2")
	if bytes.Equal(bootID(), bootID()) {
		d.hub.Enter(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first, "2")
	}
	if boot := d.unsynced(); boot != nil {
		t.Errorf("the file still names the boot %q", boot)
	}
}

func TestAClosedLogRefusesAndAnswersWhatWasUnderWay(t *testing.T) {
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

func TestAPublisherThatLeavesIsNotWaitedFor(t *testing.T) {
	l := &Log{queue: make(chan *request), context: t.Context()} // nobody commits
	gone, leave := context.WithCancel(t.Context())
	leave()
	if n, err := l.Publish(gone, []*broker.Publication{keyed("", "x")}); n != 0 || !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("published %d, %v", n, err)
	}
	if n, err := l.Publish(t.Context(), nil); n != 0 || err != nil {
		t.Errorf("of nothing %d were published, %v", n, err)
	}
}
