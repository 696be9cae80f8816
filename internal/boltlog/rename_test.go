package boltlog

import (
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// When a hub is renamed, the log of the new hub is started before that of the old one is closed.
func TestRenamedHubTakesTheFileOver(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	first := d.publish(hub.Topics("a"), "1")
	renamed := hubtest.New(t, hubtest.Plenty)
	next, ready := openTestLog(t, d.module), make(chan struct{})
	next.Start(renamed.Hub, func() { close(ready) })
	d.publish(hub.Topics("a"), "2")
	select {
	case <-ready:
		t.Error("two logs use the file at once")
	case <-time.After(50 * time.Millisecond):
	}
	d.publish(hub.Topics("a"), "3")
	d.stop()
	<-ready
	d.hub, d.log = renamed, next
	d.publish(hub.Topics("a"), "4")
	for range 2 {
		d.hub.Join(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first, "2", "3", "4")
		d.restart()
	}
}

func TestRenameThatFailsLeavesTheFileAsItWas(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	first := d.publish(hub.Topics("a"), "1")
	before := d.commits()
	next := openTestLog(t, d.module)
	next.Start(hubtest.New(t, hubtest.Plenty).Hub, func() { t.Error("the log is ready") })
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if n := d.commits(); n != before {
		t.Errorf("%d commits were made", n-before)
	}
	d.publish(hub.Topics("a"), "2")
	d.hub.Join(hubtest.Returning(hubtest.With("a"), first)).WantResume(hub.ResumeComplete, first, "2")
}
