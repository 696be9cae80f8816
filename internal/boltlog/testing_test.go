package boltlog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// diskHub is a hub whose log is in a file. Tests restart it, and crash it.
type diskHub struct {
	t      testing.TB
	module *testModule
	limits hub.Limits
	hasty  bool // whether commits are answered before they are on disk

	keepSize bool // whether the file never shrinks

	hub *hubtest.Hub
	log *Log // nil while it is closed

	// commit, if set, runs in place of each commit.
	commit atomic.Pointer[func(commit func() error) error]
}

// newDiskHub starts a hub on a new file.
func newDiskHub(t testing.TB, limits hub.Limits) *diskHub {
	t.Helper()
	return newDiskHubIn(t, t.TempDir(), limits)
}

// newDiskHubIn starts a hub on a new file in a directory.
func newDiskHubIn(t testing.TB, dir string, limits hub.Limits) *diskHub {
	t.Helper()
	d := &diskHub{t: t, module: newModule(filepath.Join(dir, "sse.db"), true), limits: limits}
	d.start()
	t.Cleanup(d.stop)
	return d
}

// newDiskHubThatKeepsItsSize starts a hub on a new file that never shrinks.
func newDiskHubThatKeepsItsSize(t testing.TB) *diskHub {
	d := &diskHub{t: t, module: newModule(filepath.Join(t.TempDir(), "sse.db"), true), limits: hubtest.Plenty}
	d.keepSize = true
	d.start()
	t.Cleanup(d.stop)
	return d
}

// start begins a run on the file with a new hub.
func (d *diskHub) start() {
	d.t.Helper()
	d.log = openTestLog(d.t, d.module)
	d.log.unshrinkable = d.keepSize
	file := d.log.File
	file.update = func(change func(*bbolt.Tx) error) error {
		commit := func() error {
			return file.transact(func(tx *bbolt.Tx) error {
				tx.DB().NoSync = tx.DB().NoSync || d.hasty // bbolt reads it under the lock that is held here
				return change(tx)
			})
		}
		if meddle := d.commit.Load(); meddle != nil {
			return (*meddle)(commit)
		}
		return commit()
	}
	d.hub = hubtest.New(d.t, d.limits)
	startLog(d.log, d.hub.Hub)
}

// startLog starts a log and waits until it is ready.
func startLog(log *Log, h *hub.Hub) {
	ready := make(chan struct{})
	log.Start(h, func() { close(ready) })
	<-ready
}

// meddle has a function run in place of each commit from now on.
func (d *diskHub) meddle(with func(commit func() error) error) { d.commit.Store(&with) }

// errDisk is what commits fail with while the disk is broken.
var errDisk = errors.New("the disk is on strike")

// breakDisk makes every commit fail until mend is called.
func (d *diskHub) breakDisk() (mend func()) {
	d.meddle(func(func() error) error { return errDisk })
	return func() { d.commit.Store(nil) }
}

// testModule is what a config says about a log in a file.
type testModule struct {
	File   string
	Sync   bool
	logger *zap.Logger
}

// newModule returns the module of a config.
func newModule(file string, sync bool) *testModule {
	return &testModule{File: file, Sync: sync, logger: zap.NewNop()}
}

// openFiles are the open files of the process. As in Caddy, the logs before and after a reload share a file.
var openFiles struct {
	sync.Mutex
	byPath map[string]*sharedFile
}

// sharedFile is an open file with the number of its users.
type sharedFile struct {
	*File
	users int
}

// useFile opens a file, or shares one that is open. Call release to give it back.
func useFile(path string) (file *File, release func() error, err error) {
	if path, err = Path(path); err != nil {
		return nil, nil, err
	}
	openFiles.Lock()
	defer openFiles.Unlock()
	if openFiles.byPath == nil {
		openFiles.byPath = make(map[string]*sharedFile)
	}
	shared := openFiles.byPath[path]
	if shared == nil {
		if file, err = OpenFile(path); err != nil {
			return nil, nil, err
		}
		shared = &sharedFile{File: file}
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

// openTestLog opens a log and does not start it.
func openTestLog(t testing.TB, module *testModule) *Log {
	t.Helper()
	file, release, err := useFile(module.File)
	if err != nil {
		t.Fatal(err)
	}
	log := Open(file, Options{Sync: module.Sync, Logger: module.logger, Release: release})
	log.closePatience = time.Minute
	return log
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

// restart ends the run and begins another.
func (d *diskHub) restart() {
	d.t.Helper()
	d.stop()
	d.start()
}

// crash begins a run on the file as a process would leave it that is killed now. Nothing may be under way.
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

// update changes the file without the log's knowledge.
func (d *diskHub) update(change func(*bbolt.Tx) error) {
	d.t.Helper()
	if err := d.log.transact(change); err != nil {
		d.t.Fatal(err)
	}
}

// fold folds the marks in the file, down to a number of them, at a time.
func (d *diskHub) fold(keep time.Duration, most int, now time.Time) (left markSize) {
	d.t.Helper()
	d.update(func(tx *bbolt.Tx) (err error) {
		left, err = foldMarks(tx, keep, markSize{most, 1 << 20}, now)
		return err
	})
	return left
}

// kept returns how many messages stand in the file.
func (d *diskHub) kept() (n int) {
	d.t.Helper()
	err := d.log.view(func(tx *bbolt.Tx) error {
		n = tx.Bucket(logBucket).Stats().KeyN
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// commits returns how many transactions have been committed.
func (d *diskHub) commits() (n int) {
	d.t.Helper()
	err := d.log.view(func(tx *bbolt.Tx) error {
		n = tx.ID()
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// unsynced returns the boot that a run without sync has left in the file.
func (d *diskHub) unsynced() (boot []byte) {
	d.t.Helper()
	err := d.log.view(func(tx *bbolt.Tx) error {
		value, err := get(tx.Bucket(metaBucket), unsyncedKey)
		boot = bytes.Clone(value)
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return boot
}

// beginning returns the ID before the log's first message.
func (d *diskHub) beginning() string {
	return hub.ID{Epoch: d.hub.Position().Epoch, Position: hub.Position{}}.String()
}

// keyed returns a publication with an idempotency key. Its fingerprint is made of its data.
func keyed(key, text string) *broker.Publication {
	p := &broker.Publication{Message: &hub.Message{To: hub.Topics("a"), Data: []byte(text)}, Key: key}
	copy(p.Fingerprint[:], text)
	return p
}
