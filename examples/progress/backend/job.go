package main

import (
	"crypto/rand"
	"fmt"
	"sync"
	"time"
)

// kind is a sort of work, or rather of pretending to work.
type kind struct {
	title  string
	stages []string
	unit   string // what is counted
	total  int    // how many of them
	failAt int    // percent; 0 = all goes well
	fault  string
}

var kinds = map[string]kind{
	"export": {
		title:  "Export orders",
		stages: []string{"Read orders", "Add up", "Write file", "Upload"},
		unit:   "orders",
		total:  48_200,
	},
	"video": {
		title:  "Prepare video",
		stages: []string{"Unpack", "Transcode", "Thumbnails", "Publish"},
		unit:   "frames",
		total:  7_320,
	},
	"import": {
		title:  "Import customers",
		stages: []string{"Read file", "Check rows", "Store"},
		unit:   "rows",
		total:  1_200,
		failAt: 58,
		fault:  "Row 696 has no e-mail address.",
	},
}

// The states of a job.
const (
	running = "running"
	done    = "done"
	failed  = "failed"
)

// status is all there is to know about a job now. Pages are told nothing else, so each of them can be
// the first.
type status struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	State   string   `json:"state"`
	Percent int      `json:"percent"`
	Stages  []string `json:"stages"`
	Stage   int      `json:"stage"` // the index of the present one
	Note    string   `json:"note"`
	Started int64    `json:"started"` // in ms since 1970, as the next
	At      int64    `json:"at"`
}

type job struct {
	kind kind

	mu      sync.Mutex // guards the rest
	now     status
	changed chan struct{} // closed and made anew at every change
}

func newJob(k kind) *job {
	now := time.Now().UnixMilli()
	j := &job{kind: k, changed: make(chan struct{})}
	j.now = status{ID: rand.Text(), Title: k.title, State: running, Stages: k.stages, Started: now, At: now, Note: "Waiting to start"}
	return j
}

// status also returns what is closed when there is another.
func (j *job) status() (status, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.now, j.changed
}

// work takes pace for each percent.
func (j *job) work(pace time.Duration) {
	for percent := 1; percent <= 100; percent++ {
		time.Sleep(pace)
		j.reach(percent)
		if percent == j.kind.failAt {
			return
		}
	}
}

func (j *job) reach(percent int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.now.Percent = percent
	j.now.At = time.Now().UnixMilli()
	j.now.Stage = min(percent*len(j.kind.stages)/100, len(j.kind.stages)-1)
	j.now.Note = fmt.Sprintf("%d of %d %s", j.kind.total*percent/100, j.kind.total, j.kind.unit)
	switch percent {
	case 100:
		j.now.State = done
	case j.kind.failAt:
		j.now.State, j.now.Note = failed, j.kind.fault
	}
	close(j.changed)
	j.changed = make(chan struct{})
}
