package boltlog

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestFullDiskRefusesPublishersAndKeepsSubscribers(t *testing.T) {
	dir := e2etest.SmallDisk(t, "8m")
	d := newDiskHubIn(t, dir, hubtest.Plenty)
	changes := make(chan bool, 1000)
	d.hub.BrokerChanged = func(up bool, err error) {
		if !up && (!errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), d.module.File)) {
			t.Errorf("the log went out of reach because of: %v", err)
		}
		changes <- up
	}
	begin := d.publish(hub.Topics("a"), "0")
	live := d.hub.Join(hubtest.With("a"))
	makeRoom := e2etest.FillDisk(t, dir, 1<<20)

	// Publishers go on until they are refused.
	acknowledged := map[string]bool{}
	var mu sync.Mutex
	var under sync.WaitGroup
	for i := range 10 {
		under.Go(func() {
			for n := 0; ; n++ {
				text := strconv.Itoa(i) + "-" + strconv.Itoa(n) + strings.Repeat(" filling", 500)
				_, err := d.tryPublish(hub.Topics("a"), text)
				if err != nil {
					if !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrUnknownOutcome) {
						t.Errorf("refused with %v", err)
					}
					return
				}
				mu.Lock()
				acknowledged[text] = true
				mu.Unlock()
			}
		})
	}
	refused := make(chan struct{})
	go func() { defer close(refused); under.Wait() }()
	var got []string
	for waiting := true; waiting; {
		select {
		case <-refused:
			waiting = false
		default:
		}
		got = append(got, live.Texts()...)
	}
	if d.hub.LogUp() || <-changes {
		t.Error("the log is said to be in reach")
	}

	// Subscribers stay, and get what was acknowledged and nothing else.
	check := func(texts []string) {
		t.Helper()
		for _, text := range texts {
			if !acknowledged[text] {
				t.Errorf("a client got %.10q, which was refused", text)
			}
		}
		if len(texts) != len(acknowledged) {
			t.Errorf("%d messages came, %d were acknowledged", len(texts), len(acknowledged))
		}
	}
	t.Logf("%d messages had room", len(acknowledged))
	check(got)
	resumed := d.hub.Join(hubtest.Returning(hubtest.With("a"), begin))
	check(resumed.Texts())
	if resumed.Resume != hub.ResumeComplete {
		t.Errorf("the client is told %q", resumed.Resume)
	}

	// The log recovers even if nobody publishes.
	makeRoom()
	e2etest.Await(t, "the log is in reach", d.hub.LogUp)
	for told := false; !told; {
		told = <-changes
	}
	d.publish(hub.Topics("a"), "after")
	hubtest.Want(t, live.Texts(), "after")
	acknowledged["after"] = true
	d.crash()
	resumed = d.hub.Join(hubtest.Returning(hubtest.With("a"), begin))
	check(resumed.Texts())
	if resumed.Resume != hub.ResumeComplete {
		t.Errorf("the client is told %q", resumed.Resume)
	}
}

func TestErrorForNewFileOnFullDiskSaysWhatToDo(t *testing.T) {
	dir := e2etest.SmallDisk(t, "1m")
	e2etest.FillDisk(t, dir, 0)
	wantUnopenable(t, filepath.Join(dir, "sse.db"), "the disk is full; make room")
}

func TestLogThatFillsTheDiskMakesRoomOnceItKeepsLess(t *testing.T) {
	// The history fills the disk. Only the log itself makes room, once it keeps less.
	dir := e2etest.SmallDisk(t, "2m")
	d := newDiskHubIn(t, dir, hubtest.Plenty)
	for err := error(nil); err == nil; {
		_, err = d.tryPublish(hub.Topics("a"), strings.Repeat("x", 10_000))
	}
	d.hub.Apply(hub.Limits{History: hub.HistoryLimits{Count: 10}})
	e2etest.Await(t, "there is room again", func() bool {
		_, err := d.tryPublish(hub.Topics("a"), strings.Repeat("x", 10_000))
		return err == nil
	})
	e2etest.Await(t, "the file keeps no more than the hub", func() bool { return d.kept() <= 11 })
}
