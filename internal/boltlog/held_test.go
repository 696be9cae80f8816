package boltlog

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// What is held is in the file like all else, so neither an exit nor a crash takes the newest value from anybody.
func TestWhatWasHeldIsThereAfterARestart(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*diskHub){"an exit": (*diskHub).restart, "a crash": (*diskHub).crash} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDiskHub(t, hub.Limits{
				History:  hub.HistoryLimits{Count: 100, Age: time.Hour},
				Policies: []hub.Policy{{Pattern: "prices/*", Conflate: true, Interval: time.Hour}},
			})
			begin := d.hub.Position().String()
			live := d.hub.Join(hubtest.With("prices/*"))
			var ids []string
			for i := range 10 {
				ids = append(ids, d.publish(hub.Topics("prices/a"), fmt.Sprint(i)))
			}
			live.Want("0")
			end(d)
			back := func(id string, texts ...string) {
				t.Helper()
				c := d.hub.Join(hubtest.Returning(hubtest.With("prices/*"), id))
				c.WantResume(hub.ResumeComplete, id, texts...)
			}
			back(begin, "9")
			back(ids[0], "9")
			back(ids[5], "9")
			back(ids[9], "9") // once more: an ID does not tell what of it had left
			latest := hubtest.With("prices/a")
			latest.Since = hub.Since{Latest: true}
			d.hub.Join(latest).Want("9")
			d.stop()
		})
	}
}

// What gave way is no gap, also if it was removed before the restart.
func TestWhatGaveWayBeforeARestartIsNoGap(t *testing.T) {
	t.Parallel()
	d := newDiskHub(t, hub.Limits{
		History: hub.HistoryLimits{Count: 2, Age: time.Hour}, Policies: []hub.Policy{{Pattern: "prices/*", Conflate: true}},
	})
	begin := d.hub.Position().String()
	for i := range 10 {
		d.publish(hub.Topics("prices/a"), fmt.Sprint(i))
	}
	for _, end := range []func(){d.restart, d.crash} {
		end()
		c := d.hub.Join(hubtest.Returning(hubtest.With("prices/*"), begin))
		c.WantResume(hub.ResumeComplete, begin, "9")
	}
	d.stop()
}
