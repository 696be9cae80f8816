package boltlog

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestRemovalDelaysAPublishByOneCommitAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := leftover(t)
		begun, proceed := 0, make(chan struct{})
		d.meddle(func(commit func() error) error {
			begun++
			<-proceed
			return commit()
		})
		time.Sleep(tendFileEvery)
		synctest.Wait()
		if begun != 1 {
			t.Fatal("nothing is removed")
		}
		for i := range 20 {
			p := newBatch([]*broker.Publication{keyed("", strings.Repeat("x", i))})
			go func() { d.log.queue <- p }()
			synctest.Wait()
			before := begun
			for waiting := true; waiting; {
				proceed <- struct{}{}
				synctest.Wait()
				select {
				case <-p.done:
					waiting = false
				default:
				}
			}
			if p.err != nil {
				t.Fatal(p.err)
			}
			// What was under way was done, then came its own commit, and now the next is under way.
			if commits := begun - before; commits != 2 {
				t.Fatalf("publish %d took %d commits", i, commits)
			}
		}
		d.commit.Store(nil)
		close(proceed)
		time.Sleep(2 * tendFileEvery)
		synctest.Wait()
		if n := d.kept(); n != 202 {
			t.Errorf("%d messages are in the file", n)
		}
	})
}

func TestCloseLeavesWhatIsToBeRemovedToTheNextStart(t *testing.T) {
	d := leftover(t)
	commits := 0
	d.meddle(func(commit func() error) error {
		commits++
		return commit()
	})
	d.stop()
	if commits > 2 {
		t.Errorf("closing the log took %d commits", commits)
	}
	d.commit.Store(nil)
	d.start()
	if n := d.kept(); n != 200 {
		t.Errorf("%d messages are in the file", n)
	}
}

func TestFoldingSparesTheNewestMarks(t *testing.T) {
	const topics, most = 100, 40
	d := newDiskHub(t, hub.Limits{})
	begin := d.beginning()
	last := make([]string, topics)
	for i := range last {
		last[i] = d.publish(hub.Topics(fmt.Sprint(i)), "gone at once")
	}
	d.restart()
	if left := d.fold(time.Hour, most, time.Now()); left.marks != most-most/8 {
		t.Errorf("%d marks are left", left.marks)
	}
	d.restart()
	newest := last[topics-1]
	for i := topics - most/2; i < topics-1; i++ {
		topic := fmt.Sprint(i)
		d.hub.Join(hubtest.Returning(hubtest.With(topic), last[i])).WantResume(hub.ResumeComplete, last[i])
		d.hub.Join(hubtest.Returning(hubtest.With(topic), last[i-1])).WantResume(hub.ResumeGap, last[i-1])
		d.hub.Join(hubtest.Returning(hubtest.With("silent"), last[i])).WantResume(hub.ResumeComplete, last[i])
	}
	d.hub.Join(hubtest.Returning(hubtest.With("silent"), begin)).WantResume(hub.ResumeGap, begin)
	d.hub.Join(hubtest.Returning(hubtest.With("0"), newest)).WantResume(hub.ResumeComplete, newest)
}

func TestMarksStayBoundedHoweverManyTopicsThereAre(t *testing.T) {
	was := maxMarks
	t.Cleanup(func() { maxMarks = was })
	maxMarks = markSize{1 << 16, 100_000}
	d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 1, Bytes: 50_000}})
	d.hasty = true
	var last string
	for i := range 20 {
		batch := make([]*broker.Publication, 1000)
		for j := range batch {
			to := hub.Topics(fmt.Sprint("a topic that is used once ", i, " ", j))
			batch[j] = &broker.Publication{Message: &hub.Message{To: to, Data: make([]byte, 1000)}}
		}
		if _, err := d.log.Publish(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		last = batch[len(batch)-1].Receipt.ID
	}
	d.publish(hub.Topics("a"), "the end")
	s, err := d.log.readState()
	if err != nil {
		t.Fatal(err)
	}
	// One commit may add about as many marks as it removes messages.
	if n := sizeOfMarks(s.gone); n.bytes > 2*maxMarks.bytes+maxCommitBatch*100 {
		t.Errorf("there are %d marks with %d bytes", n.marks, n.bytes)
	}
	d.restart()
	d.hub.Join(hubtest.Returning(hubtest.With("silent"), last)).WantResume(hub.ResumeComplete, last)
}
