package boltlog

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestUnwritableFileIsLoadedOnceItCanBeWritten(t *testing.T) {
	for name, heal := range map[string]func(*diskHub){
		"by itself": func(d *diskHub) { e2etest.Await(t, "the log is in reach", d.hub.LogUp) },
		"by a publisher": func(d *diskHub) {
			e2etest.Await(t, "a publish to succeed", func() bool {
				_, err := d.tryPublish(hub.Topics("b"), "x")
				return err == nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiskHub(t, hubtest.Plenty)
			first := d.publish(hub.Topics("a"), "1")
			d.publish(hub.Topics("a"), "2")
			d.stop()
			mend := d.breakDisk()
			d.start()
			if d.hub.LogUp() {
				t.Error("the log is said to be in reach")
			}
			_, err := d.tryPublish(hub.Topics("a"), "refused")
			if !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, errDisk) {
				t.Errorf("refused with %v", err)
			}
			live := d.hub.Join(hubtest.With("a"))
			mend()
			heal(d)
			d.publish(hub.Topics("a"), "3")
			hubtest.Want(t, live.Texts(), hubtest.Gap("broker_changed"), "3")
			d.hub.Join(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first, "2", "3")
		})
	}
}

func TestLogThatNeverBeganLeavesTheFileUnchanged(t *testing.T) {
	d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 2}})
	first := d.publishAll("a", 1, 5)

	// What the hub drops belongs to another file than the log that starts next.
	other := newDiskHub(t, hubtest.Plenty)
	other.publishAll("a", 1, 5)
	other.stop()
	next := openTestLog(t, other.module)
	attempts := new(atomic.Int32)
	next.update = func(func(*bbolt.Tx) error) error {
		attempts.Add(1)
		return errDisk
	}
	if err := d.log.Close(); err != nil {
		t.Error(err)
	}
	startLog(next, d.hub.Hub)
	d.hub.Apply(hub.Limits{})
	e2etest.Await(t, "the log has tried again", func() bool { return attempts.Load() >= 2 })
	d.log = next
	d.stop()
	other.start()
	if n := other.kept(); n != 5 {
		t.Errorf("%d messages are in the file; want 5", n)
	}
	d.start()
	d.hub.Join(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first)
}

func TestCommitThatFailsAtItsEndHasUnknownOutcomeAndRenamesTheLog(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	first := d.publish(hub.Topics("a"), "1")
	live := d.hub.Join(hubtest.With("a"))
	d.meddle(func(commit func() error) error {
		d.commit.Store(nil)
		return errors.Join(commit(), errDisk) // the commit is written, but nobody knows whether it lasts
	})
	_, err := d.tryPublish(hub.Topics("a"), "2")
	if !errors.Is(err, broker.ErrUnknownOutcome) || errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("refused with %v", err)
	}
	next := d.publish(hub.Topics("a"), "3")
	if was, is := strings.Split(first, "-")[0], strings.Split(next, "-")[0]; was == is {
		t.Errorf("the log is still called %s", is)
	}
	hubtest.Want(t, live.Texts(), hubtest.Gap("broker_changed"), "3")
	back := d.hub.Join(hubtest.Returning(hubtest.With("a"), first))
	back.WantResume(hub.ResumeGap, d.beginning(), "1", "2", "3")
	d.restart()
	d.hub.Join(hubtest.Returning(hubtest.With("a"), next)).WantResume(hub.ResumeComplete, next)
}

func TestFailedCommitLeavesNoTrace(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	live := d.hub.Join(hubtest.With("a"))
	first := d.publish(hub.Topics("a"), "1")
	mend := d.breakDisk()
	batch := []*broker.Publication{keyed("k", "2"), keyed("", "3")}
	n, err := d.log.Publish(t.Context(), batch)
	if n != 0 || !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrUnknownOutcome) {
		t.Errorf("published %d, %v", n, err)
	}
	hubtest.Want(t, live.Texts(), "1")
	mend()
	if n, err := d.log.Publish(t.Context(), []*broker.Publication{keyed("k", "another")}); n != 1 || err != nil {
		t.Errorf("the key is not free: published %d, %v", n, err)
	}
	hubtest.Want(t, live.Texts(), "another")
	d.restart()
	d.hub.Join(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first, "another")
}

func TestFailedRemovalIsRepeated(t *testing.T) {
	d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 1}})
	d.publishAll("a", 1, 10)
	mend := d.breakDisk()
	d.hub.Apply(hub.Limits{}) // so that there is certainly something to remove
	e2etest.Await(t, "the log has tried to remove something", func() bool { return !d.hub.LogUp() })
	mend()
	e2etest.Await(t, "the file keeps no more than the hub", func() bool { return d.kept() == 0 })
	e2etest.Await(t, "the log is in reach", d.hub.LogUp)
}

func TestFileWithAlteredValueIsRefused(t *testing.T) {
	second := positionKey(hub.Position{Major: 2})
	for name, damage := range map[string]func(*bbolt.Tx) error{
		"a message": func(tx *bbolt.Tx) error { return twist(tx.Bucket(logBucket), second) },
		"a mark":    func(tx *bbolt.Tx) error { return twist(tx.Bucket(marksBucket), append([]byte{0}, "b"...)) },
		"an answer": func(tx *bbolt.Tx) error { return twist(tx.Bucket(answersBucket), []byte("k")) },
		"the epoch": func(tx *bbolt.Tx) error { return twist(tx.Bucket(metaBucket), epochKey) },
		"a short value": func(tx *bbolt.Tx) error {
			return tx.Bucket(logBucket).Put(second, []byte("x"))
		},
		"no value":     func(tx *bbolt.Tx) error { return tx.Bucket(marksBucket).Put([]byte("x"), nil) },
		"another key":  func(tx *bbolt.Tx) error { return moveValue(tx.Bucket(logBucket)) },
		"the position": func(tx *bbolt.Tx) error { return tx.Bucket(logBucket).SetSequence(1) },
		"no bucket":    func(tx *bbolt.Tx) error { return tx.DeleteBucket(marksBucket) },
		"the format": func(tx *bbolt.Tx) error {
			return put(tx.Bucket(metaBucket), formatKey, []byte("caddy-sse 2"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 2}})
			d.publishAll("a", 1, 2)
			if _, err := d.log.Publish(t.Context(), []*broker.Publication{keyed("k", "3")}); err != nil {
				t.Fatal(err)
			}
			d.publishAll("b", 1, 3)
			d.restart() // so that there is a mark
			d.update(damage)
			d.stop()
			advice := "move it away to begin anew"
			if name == "the format" {
				advice = "another version of this one"
			}
			wantUnopenable(t, d.module.File, advice)
		})
	}
}

// twist changes one bit of a value.
func twist(bucket *bbolt.Bucket, key []byte) error {
	value := append([]byte(nil), bucket.Get(key)...)
	if len(value) == 0 {
		return fmt.Errorf("there is no %q", key)
	}
	value[len(value)/2] ^= 4
	return bucket.Put(key, value)
}

// moveValue puts a message's value under another key.
func moveValue(bucket *bbolt.Bucket) error {
	key, value := bucket.Cursor().First()
	value = append([]byte(nil), value...)
	next := positionOf(key)
	if err := bucket.Delete(key); err != nil {
		return err
	}
	next.Major--
	return bucket.Put(positionKey(next), value)
}

func TestDamageToAnOpenFileIsAnError(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	d.publishAll("a", 1, 2)
	if _, err := d.log.Publish(t.Context(), []*broker.Publication{keyed("k", "3")}); err != nil {
		t.Fatal(err)
	}
	d.update(func(tx *bbolt.Tx) error { return twist(tx.Bucket(answersBucket), []byte("k")) })
	_, err := d.log.Publish(t.Context(), []*broker.Publication{keyed("k", "3")})
	if !errors.Is(err, errDamaged) {
		t.Errorf("the answer is read as %v", err)
	}
	if !d.hub.LogUp() {
		t.Error("one value makes the log unusable")
	}
	key := positionKey(hub.Position{Major: 1})
	d.update(func(tx *bbolt.Tx) error { return twist(tx.Bucket(logBucket), key) })
	err = d.log.view(func(tx *bbolt.Tx) error {
		_, err := readStored(key, tx.Bucket(logBucket).Get(key))
		return err
	})
	if !errors.Is(err, errDamaged) {
		t.Errorf("the message is read as %v", err)
	}
}
