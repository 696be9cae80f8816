package boltlog

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// keepsLatest is limits with little history, and the newest of each topic below p kept.
func keepsLatest(conflate bool) hub.Limits {
	return hub.Limits{
		History:  hub.HistoryLimits{Count: 10, Age: time.Hour},
		Policies: []hub.Policy{{Pattern: "p/*", History: &hub.Retention{Latest: true}, Conflate: conflate}},
	}
}

// publishBatches publishes so many messages, a thousand at a time.
func (d *diskHub) publishBatches(n int, topic func(n int) string, key, text string) {
	d.t.Helper()
	for from := 0; from < n; from += 1000 {
		var batch []*broker.Publication
		for i := from; i < min(n, from+1000); i++ {
			m := &hub.Message{To: hub.Topics(topic(i)), Key: key, Data: []byte(text)}
			batch = append(batch, &broker.Publication{Message: m})
		}
		if _, err := d.log.Publish(d.t.Context(), batch); err != nil {
			d.t.Fatal(err)
		}
	}
}

func TestTheNewestOfManyTopicsComesBackAfterARestart(t *testing.T) {
	t.Parallel()
	d := newDiskHub(t, keepsLatest(false))
	d.hasty = true
	d.restart()
	const topics = 10_000
	state := func(n int) string { return fmt.Sprint("p/", n) }
	for _, text := range []string{"old", "new"} {
		for _, key := range []string{"", "k"} {
			d.publishBatches(topics, state, key, text)
		}
	}
	d.publishBatches(200_000, func(int) string { return "other" }, "", "x")
	for _, again := range []func(){func() {}, d.restart, d.crash} {
		again()
		for n := range topics {
			m := d.hub.ListMessages(state(n), 10)
			if len(m) != 2 || m[0].Data != "new" || m[1].Data != "new" || m[0].Key != "" || m[1].Key != "k" {
				t.Fatalf("of topic %d %+v is kept; want the newest with and without a key", n, m)
			}
		}
	}
	if n := d.kept(); n > 2*topics+10 {
		t.Errorf("the file has %d messages; want %d", n, 2*topics+10)
	}
}

// What a newer value has replaced is a gap for who missed it, over a restart too, unless the newer one makes up for it.
func TestAReplacedValueIsAGapAfterARestart(t *testing.T) {
	for conflate, want := range map[bool]hub.Resume{false: hub.ResumeGap, true: hub.ResumeComplete} {
		d := newDiskHub(t, keepsLatest(conflate))
		begin := d.hub.Position().String()
		for _, text := range []string{"1", "2", "3"} {
			d.publish(hub.Topics("p/a"), text)
		}
		d.restart()
		c := d.hub.Join(hubtest.Returning(hubtest.With("p/a"), begin))
		c.WantResume(want, begin, "3")
		d.stop()
	}
}

// A file from before there were keys has none.
func TestAFileWithoutKeysIsRead(t *testing.T) {
	s, err := readStored([]byte("k"), seal([]byte("k"), []byte(`{"To":[{"Kind":0,"Name":"a"}],"Data":"x","Time":1796041548699}`)))
	if m := s.message(positionKey(hub.Position{Major: 1})); err != nil || m.Key != "" || string(m.Data) != "x" {
		t.Errorf("it is read as %+v, %v", m, err)
	}
}
