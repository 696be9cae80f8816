package boltlog

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// publishMany publishes messages to topics in turn, many in a commit.
func (d *diskHub) publishMany(messages, topics, size int) {
	d.t.Helper()
	const most = 1000
	for first := 0; first < messages; first += most {
		batch := make([]*broker.Publication, min(most, messages-first))
		for i := range batch {
			to := hub.Topics(fmt.Sprint("topic ", (first+i)%topics))
			batch[i] = &broker.Publication{Message: &hub.Message{To: to, Data: bytes.Repeat([]byte("x"), size)}}
		}
		if n, err := d.log.Publish(d.t.Context(), batch); n != len(batch) || err != nil {
			d.t.Fatalf("published %d of %d: %v", n, len(batch), err)
		}
	}
}

// written returns how many bytes all commits so far have written: pages, and for each commit where the newest
// begin.
func (d *diskHub) written() int64 {
	db := d.log.db
	stats := db.Stats()
	return stats.TxStats.GetPageAlloc() + int64(d.commits())*int64(db.Info().PageSize)
}

func TestCommitCostsNoMoreAfterMuchWasRemoved(t *testing.T) {
	const freed, most = 250_000, 64 << 10
	d := newDiskHubThatKeepsItsSize(t)
	d.hasty = true
	d.publishMany(freed, 100, 200)
	d.limits = hub.Limits{History: hub.HistoryLimits{Count: 10}}
	d.restart()
	if n := d.kept(); n != 1000 {
		t.Fatalf("%d messages are in the file", n)
	}
	before := d.written()
	d.publish(hub.Topics("topic 1"), "one message")
	wrote := d.written() - before
	t.Logf("a commit of one message wrote %d bytes", wrote)
	if wrote > most {
		t.Errorf("a commit of one message wrote %d bytes; want %d at most", wrote, most)
	}
}
