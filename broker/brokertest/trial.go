package brokertest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// trial is one test of one kind of log.
type trial struct {
	testing.TB
	Subject
	module   broker.Module
	patience time.Duration // how long it waits for what ought to happen at once
	moment   time.Duration // how long it waits to see whether something happens
}

func newTrial(t testing.TB, s Subject, patience, moment time.Duration) *trial {
	return &trial{TB: t, Subject: s, module: s.Module(t), patience: patience, moment: moment}
}

// hubName is the name of every hub here.
const hubName = "conformance"

// instance is a log with its hub, as one process would have them.
type instance struct {
	Hub     *hub.Hub
	t       *trial
	log     broker.Log
	label   string // of the log's goroutines
	started bool
	closed  bool
	ready   atomic.Int64 // how often the log called it
	readers []*reader
}

// open opens the log again: the one there is if it is persistent or shared, else another.
func (t *trial) open() *instance {
	t.Helper()
	i := &instance{t: t, label: hub.NewEpoch()}
	err := i.call("Open", func() {
		var err error
		if i.log, err = t.module.Open(hubName); err != nil {
			t.Errorf("opening the log: %v", err)
		}
	})
	if err != nil || i.log == nil {
		t.FailNow()
	}
	t.Cleanup(i.cleanUp)
	return i
}

// newHub returns a hub that keeps whatever a test publishes.
func newHub() *hub.Hub { return hub.NewHub(hub.Limits{History: hub.HistoryLimits{Count: 1 << 20}}) }

// start opens the log and starts it on a hub of its own.
func (t *trial) start() *instance {
	t.Helper()
	i := t.open()
	i.startOn(newHub())
	return i
}

// startOn starts the log on a hub, and waits until it can be used.
func (i *instance) startOn(h *hub.Hub) {
	i.t.Helper()
	i.Hub, i.started = h, true
	ready := make(chan struct{})
	err := i.call("Start", func() {
		i.log.Start(h, func() {
			if i.ready.Add(1) == 1 {
				close(ready)
			}
		})
	})
	if err != nil {
		i.t.FailNow()
	}
	select {
	case <-ready:
	case <-time.After(i.t.patience):
		i.t.Fatal("the log does not say that it is ready")
	}
	i.t.await("the hub to hear that the log can be used, by LogFound", h.LogUp)
}

// call calls a method of the log, or fails if it hangs. Goroutines that the log starts meanwhile have its
// label.
func (i *instance) call(what string, method func()) error {
	i.t.Helper()
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		pprof.Do(context.Background(), pprof.Labels(labelKey, i.label), func(context.Context) { method() })
	}()
	select {
	case <-returned:
		return nil
	case <-time.After(i.t.patience):
		i.t.Errorf("%s does not return", what)
		return errHangs
	}
}

var errHangs = errors.New("the log hangs")

// stop closes the log, once. Its hub goes on.
func (i *instance) stop() {
	i.t.Helper()
	if i.closed {
		return
	}
	i.closed = true
	err := i.call("Close", func() {
		if err := i.log.Close(); err != nil {
			i.t.Errorf("closing the log: %v", err)
		}
	})
	if err != nil {
		return
	}
	var left string
	if !i.t.comes(func() bool { left = goroutines(i.label); return left == "" }) {
		i.t.Errorf("after Close goroutines of the log are left:\n%s", left)
	}
}

// cleanUp ends the hub before the log, as an exit does.
func (i *instance) cleanUp() {
	if i.Hub != nil {
		i.Hub.Close()
	}
	i.stop()
	for _, r := range i.readers {
		_ = r.leave()
	}
	if n := i.ready.Load(); i.started && n != 1 {
		i.t.Errorf("the log said %d times that it is ready; want once", n)
	}
}

const labelKey = "brokertest"

// goroutines returns the stacks of the goroutines that have a label.
func goroutines(label string) string {
	var all bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&all, 1) // a buffer takes everything
	var labeled []string
	for block := range strings.SplitSeq(all.String(), "\n\n") {
		if strings.Contains(block, `"`+labelKey+`":"`+label+`"`) {
			labeled = append(labeled, block)
		}
	}
	return strings.Join(labeled, "\n\n")
}

// await waits for something to hold.
func (t *trial) await(what string, holds func() bool) {
	t.Helper()
	if !t.comes(holds) {
		t.Fatalf("waited in vain for %s", what)
	}
}

// comes waits for something to hold, and reports whether it does in time.
func (t *trial) comes(holds func() bool) bool {
	for deadline := time.Now().Add(t.patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// message returns a message for addresses.
func message(text string, to ...hub.Address) *broker.Publication {
	return &broker.Publication{
		Message: &hub.Message{To: to, Data: []byte(text)}, Fingerprint: sha256.Sum256([]byte(text)),
	}
}

// post returns a message for the topic that most tests use.
func post(text string) *broker.Publication { return message(text, hub.Topics(common)...) }

const common = "a"

// keyed returns a message with an idempotency key.
func keyed(key, text string) *broker.Publication {
	p := post(text)
	p.Key = key
	return p
}

// ephemeral returns a message that is not kept.
func ephemeral(text string) *broker.Publication {
	p := post(text)
	p.Ephemeral = true
	return p
}

// tryPublish publishes a batch. Any goroutine may call it.
func (i *instance) tryPublish(ctx context.Context, batch ...*broker.Publication) (n int, err error) {
	i.t.Helper()
	if hangs := i.call("Publish", func() { n, err = i.log.Publish(ctx, batch) }); hangs != nil {
		return 0, hangs
	}
	if n < 0 || n > len(batch) || (err == nil) != (n == len(batch)) {
		i.t.Errorf("Publish returns %d of %d with the error %v", n, len(batch), err)
	}
	return n, err
}

// publish publishes a batch, which must succeed. Only the test's goroutine may call it.
func (i *instance) publish(batch ...*broker.Publication) {
	i.t.Helper()
	if _, err := i.tryPublish(i.t.Context(), batch...); err != nil {
		i.t.Fatalf("publishing: %v", err)
	}
}

// checkKeys asks about a batch. It returns how many messages are fine.
func (i *instance) checkKeys(batch ...*broker.Publication) (n int, err error) {
	i.t.Helper()
	if hangs := i.call("CheckKeys", func() { n, err = i.log.CheckKeys(i.t.Context(), batch) }); hangs != nil {
		return 0, hangs
	}
	return n, err
}

// mustParse reads an ID that a publisher or a client was told.
func (t *trial) mustParse(id string) hub.ID {
	t.Helper()
	parsed, ok := hub.ParseID(id)
	if !ok {
		t.Fatalf("%q is no ID", id)
	}
	return parsed
}
