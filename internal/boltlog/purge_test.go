package boltlog

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// purge purges topics.
func (d *diskHub) purge(topics ...string) error {
	return d.log.Purge(d.t.Context(), hub.Purge{To: hub.Topics(topics...)})
}

// stored returns the data of the messages in the file, with their addresses.
func (d *diskHub) stored() (all []string) {
	d.t.Helper()
	err := d.log.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(logBucket).ForEach(func(key, sealed []byte) error {
			s, err := readStored(key, sealed)
			names := make([]string, len(s.To))
			for i, to := range s.To {
				names[i] = to.Name
			}
			all = append(all, s.Data+" to "+strings.Join(names, ","))
			return err
		})
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}

func (d *diskHub) wantStored(want ...string) {
	d.t.Helper()
	if got := d.stored(); !slices.Equal(got, want) {
		d.t.Errorf("in the file is %q; want %q", got, want)
	}
}

func TestAPurgeIsDoneInTheFileWhenItReturns(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	begin := d.hub.Position().String()
	odd := "\"odd\" \\ <&> \u2028 ☃"
	d.publish(hub.Topics(odd), "1")
	d.publish(hub.Topics("b", odd), "2")
	d.publish(hub.Topics("b"), "mentions "+odd)
	d.publish([]hub.Address{{Kind: hub.ToUser, Name: odd}}, "3")
	if err := d.purge(odd); err != nil {
		t.Fatal(err)
	}
	want := []string{"2 to b", "mentions " + odd + " to b", "3 to " + odd}
	d.wantStored(want...)
	d.crash()
	d.wantStored(want...)
	d.hub.Join(hubtest.Returning(hubtest.With(odd), begin)).WantResume(hub.ResumeGap, begin)
	d.hub.Join(hubtest.Returning(hubtest.With("b"), begin)).
		WantResume(hub.ResumeComplete, begin, "2", "mentions "+odd)
}

func TestAPurgeOfAKeyLeavesOtherKeysInTheFile(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	for i, key := range []string{"x", "y", "", "x"} {
		m := &hub.Message{To: hub.Topics("a"), Data: []byte(strconv.Itoa(i)), Key: key}
		if _, err := d.log.Publish(t.Context(), []*broker.Publication{{Message: m}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.log.Purge(t.Context(), hub.Purge{To: hub.Topics("a"), Key: "x"}); err != nil {
		t.Fatal(err)
	}
	d.wantStored("1 to a", "2 to a")
	d.restart()
	begin := d.beginning()
	d.hub.Join(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeGap, begin, "1", "2")
}

// What an address has lost by its limits may stay in the log for another one, and would come back with the next start.
func TestAPurgeFindsWhatTheHubKeepsForOthersOnly(t *testing.T) {
	d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 2}})
	begin := d.hub.Position().String()
	d.publish(hub.Topics("a", "b"), "old")
	d.publishAll("a", 1, 3)
	if err := d.purge("a"); err != nil {
		t.Fatal(err)
	}
	d.wantStored("old to b")
	d.restart()
	d.hub.Join(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeGap, begin)
	d.hub.Join(hubtest.Returning(hubtest.With("b"), begin)).WantResume(hub.ResumeComplete, begin, "old")
}

// A purge of much is several commits. Whoever is killed between two of them has told nobody that it is done, and what
// is gone is told as a gap.
func TestAPurgeThatIsCutOffInTheMiddleIsToldAsAGap(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	begin := d.hub.Position().String()
	large := strings.Repeat("x", removeBytes/4)
	for range 10 {
		d.publish(hub.Topics("a"), large)
	}
	commits := 0
	d.meddle(func(commit func() error) error {
		if commits++; commits > 1 {
			return errDisk
		}
		return commit()
	})
	if err := d.purge("a"); !errors.Is(err, broker.ErrUnknownOutcome) || !errors.Is(err, errDisk) {
		t.Errorf("a purge that the disk ended in the middle returns %v", err)
	}
	d.commit.Store(nil)
	d.crash()
	left := d.kept()
	if left == 0 || left == 10 {
		t.Fatalf("%d of 10 messages are left; the purge was to end in the middle", left)
	}
	c := d.hub.Join(hubtest.Returning(hubtest.With("a"), begin))
	if texts := c.Texts(); c.Resume != hub.ResumeGap || len(texts) != left {
		t.Errorf("after it a client is told %q, and gets %d messages of %d", c.Resume, len(texts), left)
	}
	if err := d.purge("a"); err != nil {
		t.Fatal(err)
	}
	d.wantStored()
}

func TestPublishersComeBetweenThePiecesOfAPurge(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	for range 20 {
		d.publish(hub.Topics("a"), strings.Repeat("x", removeBytes))
	}
	published := make(chan int, 1)
	started := false
	d.meddle(func(commit func() error) error {
		if !started {
			started = true
			go func() {
				d.publish(hub.Topics("a"), "new")
				published <- d.kept()
			}()
		}
		time.Sleep(10 * time.Millisecond) // a slow disk: the publisher waits by now, or at one of the next pieces
		return commit()
	})
	if err := d.purge("a"); err != nil {
		t.Fatal(err)
	}
	if left := <-published; left == 1 {
		t.Error("the publisher had to wait for the end of the purge")
	}
	d.wantStored("new to a")
}

func TestAPurgeWithoutADiskRemovesNothing(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	begin := d.hub.Position().String()
	d.publish(hub.Topics("a"), "1")
	mend := d.breakDisk()
	if err := d.purge("a"); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("without a disk a purge returns %v", err)
	}
	mend()
	d.hub.Join(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeComplete, begin, "1")
}
