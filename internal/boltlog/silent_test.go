package boltlog

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// hang makes the disk answer nothing any more, until answer is called.
func (d *diskHub) hang() (answer func()) {
	answers := make(chan struct{})
	d.meddle(func(commit func() error) error {
		<-answers
		return commit()
	})
	return func() { close(answers) }
}

func TestSilentDiskHoldsUpPublishersAndNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiskHub(t, hubtest.Plenty)
		first := d.publish(hub.Topics("a"), "1")
		live := d.hub.Join(hubtest.With("a"))
		answer := d.hang()
		began := time.Now()
		_, err := d.tryPublish(hub.Topics("a"), "under way")
		if !errors.Is(err, broker.ErrUnknownOutcome) || time.Since(began) > diskPatience+time.Second {
			t.Errorf("after %v it is refused with %v", time.Since(began), err)
		}
		_, err = d.tryPublish(hub.Topics("a"), "behind it")
		if !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrUnknownOutcome) {
			t.Errorf("refused with %v", err)
		}
		if d.hub.LogUp() {
			t.Error("the log is said to be in reach")
		}
		leaving, leave := context.WithCancel(t.Context())
		leave()
		_, err = d.log.Publish(leaving, []*broker.Publication{keyed("", "x")})
		if !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("who leaves is told %v", err)
		}
		if n, err := d.log.CheckKeys(t.Context(), []*broker.Publication{keyed("k", "x")}); n != 1 || err != nil {
			t.Errorf("found %d to be fine, %v", n, err)
		}
		d.hub.Join(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first)

		answer()
		time.Sleep(2 * tendFileEvery)
		if !d.hub.LogUp() {
			t.Error("the log is not in reach again")
		}
		d.publish(hub.Topics("a"), "2")
		hubtest.Want(t, live.Texts(), "under way", "2")
		d.restart()
		back := d.hub.Join(hubtest.Returning(hubtest.With("a"), first))
		back.WantResume(hub.ResumeComplete, first, "under way", "2")
	})
}

func TestPublisherWhoLeavesDoesNotWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiskHub(t, hubtest.Plenty)
		answer := d.hang()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := d.log.Publish(ctx, []*broker.Publication{keyed("", "x")})
		if !errors.Is(err, broker.ErrUnknownOutcome) || time.Since(began) != time.Second+leavePatience {
			t.Errorf("after %v it is refused with %v", time.Since(began), err)
		}
		answer()
	})
}

func TestSilentDiskHoldsUpNoExitAndNoReload(t *testing.T) {
	for name, lost := range map[string]bool{"and answers later": false, "and fails later": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDiskHub(t, hubtest.Plenty)
				first := d.publish(hub.Topics("a"), "1")
				answers := make(chan struct{})
				d.meddle(func(commit func() error) error {
					<-answers
					if lost {
						return errDisk
					}
					return commit()
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := d.log.Publish(ctx, []*broker.Publication{keyed("", "2")})
				if !errors.Is(err, broker.ErrUnknownOutcome) {
					t.Errorf("refused with %v", err)
				}
				next := openTestLog(t, d.module)
				d.log.closePatience = closePatience
				began := time.Now()
				err = d.log.Close()
				if err == nil || !strings.Contains(err.Error(), d.module.File) || time.Since(began) > closePatience {
					t.Errorf("after %v it is closed with %v", time.Since(began), err)
				}
				before := d.hub
				d.hub = hubtest.New(t, d.limits)
				d.log = next
				startLog(next, d.hub.Hub) // it is ready when it has lost patience
				if d.hub.LogUp() {
					t.Error("the log is said to be in reach")
				}
				d.commit.Store(nil)
				close(answers)
				synctest.Wait()
				time.Sleep(time.Second)
				if !d.hub.LogUp() || before.Position().String() != first {
					t.Errorf("the next log is not in reach, or the hub before has come to %s", before.Position())
				}
				back := d.hub.Join(hubtest.Returning(hubtest.With("a"), first))
				if lost { // nobody knows what became of the commit
					back.WantResume(hub.ResumeGap, d.beginning(), "1")
				} else {
					back.WantResume(hub.ResumeComplete, first, "2")
				}
			})
		})
	}
}

func TestStartDoesNotWaitForASilentDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiskHub(t, hubtest.Plenty)
		first := d.publish(hub.Topics("a"), "1")
		d.stop()
		answer := d.hang()
		d.start()
		if d.hub.LogUp() {
			t.Error("the log is said to be in reach")
		}
		answer()
		time.Sleep(time.Second)
		d.publish(hub.Topics("a"), "2")
		d.hub.Join(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first, "2")
	})
}
