package soak

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// outcome is what came of a world.
type outcome struct {
	world                        string
	count                        map[string]int           // faults by kind
	worst                        map[string]time.Duration // by kind the longest time until all was well, once mended
	published, refused, repeated int
	events, gaps, falseGaps      int
	begun, whole, lost           int // answers of a model
	findings                     []string
	took                         time.Duration
	instances                    []atRest
}

// atRest is what an instance holds when all clients have left.
type atRest struct {
	idle, goroutines, descriptors int // idle: goroutines before anybody came
	resident                      int64
}

func (o *outcome) add(kind string, well time.Duration) {
	o.count[kind]++
	o.worst[kind] = max(o.worst[kind], well)
}

// rest waits until the instances have let go of all that their clients had: who has vanished is found within about a
// minute, and an answer that nobody reads is given up after one.
func (o *outcome) rest(w *world) {
	w.t.Helper()
	const others = 25 // connections to Redis, and what Caddy does besides
	for n, i := range w.instances {
		now, err := i.server.Goroutines()
		for deadline := time.Now().Add(patience); err != nil || now > i.idle+others; now, err = i.server.Goroutines() {
			if time.Now().After(deadline) {
				w.t.Errorf("instance %d holds %d goroutines, %d before anybody came: %v\n%s", n, now, i.idle, err, i.stacks(w))
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		rest := atRest{idle: i.idle, goroutines: now}
		rest.resident, _ = i.server.RSS()
		if files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", i.server.PID())); err == nil {
			rest.descriptors = len(files)
		}
		o.instances = append(o.instances, rest)
	}
}

// stacks tells what an instance's goroutines do.
func (i *instance) stacks(w *world) string {
	answer, err := e2etest.Do(w.t.Context(), "GET", i.server.AdminURL("/debug/pprof/goroutine?debug=1"), "")
	if err != nil {
		return err.Error()
	}
	return answer.Body
}

// report is what a soak found, for people to read.
type report struct {
	plan plan

	mu       sync.Mutex // guards outcomes
	outcomes []*outcome
}

func newReport(p plan) *report { return &report{plan: p} }

func (r *report) add(o *outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes = append(r.outcomes, o)
}

// kindsOfFindings tell findings apart by their words.
var kindsOfFindings = []struct{ title, words string }{
	{"lost, and told as complete", "is missing"},
	{"came twice", "came twice"},
	{"out of order", "after"},
	{"other", ""},
}

func (r *report) markdown() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.outcomes, func(a, b *outcome) int { return cmp.Compare(a.world, b.world) })
	var b strings.Builder
	faults := 0
	for _, o := range r.outcomes {
		for _, n := range o.count {
			faults += n
		}
	}
	fmt.Fprintf(&b, `# Reliability

What happens when things fail, counted. If you run caddy-sse, this page tells you how often a message was lost without
a word, how long an outage lasts once its cause is gone, and what has not been tried.

In one run real processes met %d faults at random: kills, cuts, failovers, full disks, reloads. A ledger outside of the
program knew what every publisher was answered and what every reader got. To have the same faults again:

    make soak FAULTS=%d SEED=%d

It wrote this page on %s/%s with %d processors. [internal/soak](../internal/soak) is the program.

## What was found

`, faults, r.plan.faults, r.plan.seed, runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	fmt.Fprintf(&b, "| broker | faults | acknowledged | repeated | refused | events read |")
	for _, kind := range kindsOfFindings {
		fmt.Fprintf(&b, " %s |", kind.title)
	}
	b.WriteString(" gaps told | of which needless |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, o := range r.outcomes {
		faults := 0
		for _, n := range o.count {
			faults += n
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d |", o.world, faults, o.published, o.repeated, o.refused, o.events)
		left := slices.Clone(o.findings)
		for _, kind := range kindsOfFindings {
			n := len(left)
			left = slices.DeleteFunc(left, func(finding string) bool { return strings.Contains(finding, kind.words) })
			fmt.Fprintf(&b, " %d |", n-len(left))
		}
		fmt.Fprintf(&b, " %d | %d |\n", o.gaps, o.falseGaps)
	}
	b.WriteString(`
A message counts as acknowledged when its publisher was answered 200, as refused when the answer said that it was not
published, and as repeated when there was no answer, so that it was sent again with its Idempotency-Key. A gap is
needless if nothing had been missed.

## Is the checker any good?

The program was broken in five ways, each by a few lines, and each was found by six faults: every 97th message is not
delivered; a gap is told as complete; a message to a user goes to all users; several messages leave in reverse; an
Idempotency-Key is forgotten. A test of the checker does as much to what readers get, each time.

## Answers of a model

Behind sse_resume, each of 150 tokens, read by somebody who comes back when the line is cut. An answer is lost with the
instance that asked for it, and whoever comes back is told so; one is not over yet when the run ends.

| broker | begun | read whole | told as lost |
|---|---|---|---|
ANSWERS
## Which faults, and how long until all was well

From the moment a fault was mended until every instance took messages again, at worst:

| broker | fault | times | seconds |
|---|---|---|---|
`)
	var answers strings.Builder
	for _, o := range r.outcomes {
		fmt.Fprintf(&answers, "| %s | %d | %d | %d |\n", o.world, o.begun, o.whole, o.lost)
		for _, kind := range slices.Sorted(maps.Keys(o.count)) {
			fmt.Fprintf(&b, "| %s | %s | %d | %.1f |\n", o.world, kind, o.count[kind], o.worst[kind].Seconds())
		}
	}
	b.WriteString(`
## What was left when all clients had gone

| broker | instance | goroutines before | after | descriptors | MB resident |
|---|---|---|---|---|---|
`)
	for _, o := range r.outcomes {
		for n, i := range o.instances {
			fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d |\n", o.world, n+1, i.idle, i.goroutines, i.descriptors, i.resident>>20)
		}
	}
	b.WriteString(`
## Who was there

Publishers send JSON, forms, lines, event streams and plain text, with and without keys. Readers take server-sent
events, envelopes, lines, polls and the Mercure protocol, plain and with gzip, of one topic, of several, by pattern and
by user; some are slow, some stand still, some come and go. Each goes to another instance each time it comes back.
Topics of values are conflated: there the newest value of each key has to arrive, and never an older one after a newer.

Not in it: slow networks between Redis and its replicas, power that fails (a killed process loses nothing that the
system has taken), more than three instances, and steps of the clock. The program is linked statically, so that
faketime can't change its time; tests with a clock of their own do that.
`)
	return strings.Replace(b.String(), "ANSWERS\n", answers.String()+"\n", 1)
}
