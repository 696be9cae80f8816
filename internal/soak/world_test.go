package soak

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience is how long a soak waits for what ought to happen soon, on a machine that it loads itself.
const patience = 90 * time.Second

// world is a broker, the instances on it, and who uses them.
type world struct {
	t         *testing.T
	name      string
	instances []*instance
	faults    []fault
	lossy     bool // a fault may take the end of the log, or all of it
	ledger    *e2etest.Ledger
	values    *values
	answers   *answers
	from      string // the ID of the first message, before all that is judged

	tamper         func(eventstream.Event) []eventstream.Event // what readers get instead; nil is nothing else
	expectFindings bool                                        // they are no failure of the test

	mu  sync.Mutex // guards the rest
	rng *rand.Rand
}

// instance is a Caddy, and the line to it.
type instance struct {
	server *e2etest.Server
	line   *e2etest.Proxy
	idle   int // goroutines before anybody came
}

// site is what every instance serves. Heartbeats are frequent, so that readers notice soon when a line is dead. Idle
// connections to the model, which Caddy keeps for two minutes, would pass for a leak.
const site = `{
	sse {
		history 200000
		history_bytes 512MiB
		BROKER
		topic values/* {
			history latest
			conflate on
		}
	}
}
http://127.0.0.1:{{port}} {
	sse /events {
		user {http.request.header.X-User}
		retry 100ms
		heartbeat 1s
		compress gzip
		publish {
			open
		}
	}
	mercure {
		hub default
		publisher_jwt nobody-publishes-here-by-this-protocol
		anonymous
		heartbeat 1s
	}
	handle /model {
		sse_resume
		reverse_proxy MODEL {
			transport http {
				keepalive off
			}
		}
	}
}
`

func (w *world) siteWith(broker string) string {
	return strings.NewReplacer("BROKER", broker, "MODEL", w.answers.model.Addr()).Replace(site)
}

// start adds instances with a config.
func (w *world) start(n int, config string) {
	w.t.Helper()
	for range n {
		server := e2etest.Start(w.t, config, e2etest.Plain())
		address := strings.TrimPrefix(server.URL(""), "http://")
		i := &instance{server: server, line: e2etest.NewProxy(w.t, address)}
		i.idle, _ = server.Goroutines()
		w.instances = append(w.instances, i)
	}
}

// random makes one draw from the world's numbers, which publishers and readers share.
func random[T any](w *world, draw func(*rand.Rand) T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return draw(w.rng)
}

// between is a random time.
func (w *world) between(least, most time.Duration) time.Duration {
	return least + random(w, func(rng *rand.Rand) time.Duration { return time.Duration(rng.Int64N(int64(most - least))) })
}

// url is a path on one of the instances, as a load balancer without any wits would choose it.
func (w *world) url(path string) string {
	i := random(w, func(rng *rand.Rand) int { return rng.IntN(len(w.instances)) })
	return "http://" + w.instances[i].line.Addr() + path
}

// soak lets so many faults loose and returns what came of it.
func (w *world) soak(faults int, most time.Duration) *outcome {
	w.t.Helper()
	begun := time.Now()
	out := &outcome{world: w.name, worst: make(map[string]time.Duration), count: make(map[string]int)}

	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	w.publishFirst()
	readers := w.readers()
	var reading sync.WaitGroup
	for _, r := range readers {
		reading.Go(func() { r.run(ctx) })
	}
	for _, r := range readers {
		e2etest.Await(w.t, r.name+" is there", r.isThere)
	}

	publishing, stop := context.WithCancel(ctx)
	var publishers sync.WaitGroup
	w.publish(publishing, &publishers)
	for range 3 {
		reading.Go(func() { w.answers.read(publishing, w) })
	}
	for n := 0; n < faults && (most == 0 || time.Since(begun) < most); n++ {
		time.Sleep(w.between(50*time.Millisecond, 500*time.Millisecond)) // any moment will do
		f := w.faults[random(w, func(rng *rand.Rand) int { return rng.IntN(len(w.faults)) })]
		mend := f.do(w)
		time.Sleep(w.between(50*time.Millisecond, 1500*time.Millisecond))
		mend()
		out.add(f.kind, w.awaitWell(f.kind))
	}
	stop()
	publishers.Wait()
	w.publishEnds()
	for _, r := range readers {
		if missing := r.awaitEnds(patience); len(missing) > 0 {
			w.t.Errorf("%s does not get %q; it has %d events, and came %d times, at last with %q: %s",
				r.name, slices.Collect(maps.Keys(missing)), len(r.got()), r.visits, r.lastID, r.trouble)
		}
	}
	cancel()
	reading.Wait()

	w.judge(readers, out)
	out.published, out.refused, out.repeated = w.ledger.Counts()
	out.rest(w)
	out.took = time.Since(begun)
	w.t.Logf("%d faults in %v: %d messages acknowledged, %d sent again, %d refused; %d events read, %d gaps, %d needless",
		faults, out.took, out.published, out.repeated, out.refused, out.events, out.gaps, out.falseGaps)
	return out
}

// awaitWell waits until every instance publishes again and returns how long that took.
func (w *world) awaitWell(after string) time.Duration {
	w.t.Helper()
	begun := time.Now()
	for n, i := range w.instances {
		for !i.publishes(w.t.Context()) {
			if time.Since(begun) > patience {
				w.t.Errorf("instance %d does not publish again after the fault: %s\n%s", n, after, i.stacks(w))
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return time.Since(begun)
}

// publishes tells whether an instance takes a message now.
func (i *instance) publishes(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := e2etest.Do(ctx, "POST", "http://"+i.line.Addr()+"/events?topic=probe", "probe")
	return err == nil && answer.Status == 200
}

// judge holds what every reader got against the ledger.
func (w *world) judge(readers []*reader, out *outcome) {
	w.t.Helper()
	for _, r := range readers {
		events := r.got()
		out.events += len(events)
		var findings []string
		if r.form == "mercure" {
			findings = w.idsOf(events)
		}
		switch {
		case r.values:
			findings = append(findings, w.values.judge(events)...)
		case w.lossy:
			findings = append(findings, w.ledger.JudgeFailover(r.from, r.covers, events)...)
		default:
			findings = append(findings, w.ledger.Judge(r.from, r.covers, events)...)
		}
		for _, finding := range findings {
			out.findings = append(out.findings, r.name+": "+finding)
		}
		for _, e := range events {
			if e.Name == "gap" {
				out.gaps++
			}
		}
		if !r.values {
			out.falseGaps += w.ledger.FalseGaps(r.covers, events)
		}
	}
	out.findings = append(out.findings, w.answers.findings...)
	out.begun, out.whole, out.lost = w.answers.begun, w.answers.whole, w.answers.lost
	if !w.expectFindings {
		for _, finding := range out.findings {
			w.t.Error(finding)
		}
	}
}

// publishFirst publishes the message before all others.
func (w *world) publishFirst() {
	w.t.Helper()
	e2etest.Await(w.t, "the first message is taken", func() (taken bool) {
		id, outcome := w.post(w.t.Context(), "first", "", "first")
		w.from = id
		return outcome == e2etest.OutcomePublished
	})
}

// publishEnds publishes the last message of each topic, after which nothing is on its way.
func (w *world) publishEnds() {
	w.t.Helper()
	for _, to := range slices.Concat(topics, []string{toUser}) {
		text := "end of " + to
		e2etest.Await(w.t, text, func() bool {
			id, outcome := w.post(w.t.Context(), to, "", text)
			if outcome == e2etest.OutcomePublished {
				w.ledger.Note(text, to, id, outcome)
			}
			return outcome == e2etest.OutcomePublished
		})
	}
	for _, key := range keys {
		e2etest.Await(w.t, "the last value", func() bool {
			_, outcome := w.post(w.t.Context(), valueTopic, key, w.values.last(key))
			return outcome == e2etest.OutcomePublished
		})
	}
}
