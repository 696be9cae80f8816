package memlog

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
	"github.com/caddy-sse/caddy-sse/topic"
)

// These tests check exact resume under load. Publishers publish to all kinds of addresses at once, clients
// come and go at random. In the end each client must have seen exactly what was published to it, or have been
// told where something is missing. All of it runs in a synctest bubble: stalls and waits take no time, but
// the goroutines still race.

const (
	publishers = 4
	visitors   = hubtest.Visitors
	posts      = 1000 // of each publisher
)

func TestClientsThatComeAndGoSeeExactlyWhatWasPublished(t *testing.T) {
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, hubtest.Plenty)
			for i := range visitors {
				w.visit(i, func(v *visitor) {
					v.Queue = []int{256, 256, 20, 3}[i%4]
					v.restless = []int{1000, 100, 20}[i%3]
				})
			}
			w.run()
			for _, v := range w.visitors {
				v.check()
				if v.gaps > 0 {
					t.Errorf("visitor %d was told %d gaps where nothing was lost", v.number, v.gaps)
				}
			}
		})
	}
}

func TestEveryLossIsToldAsAGap(t *testing.T) {
	for _, limits := range []hub.HistoryLimits{
		{Count: 5}, {Count: 100, Bytes: 3000}, {Count: 100, Age: 20 * time.Millisecond}, {Count: 1}, {},
	} {
		t.Run(fmt.Sprint(limits), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, hub.Limits{History: limits})
				for i := range visitors {
					w.visit(i, func(v *visitor) {
						v.Queue = []int{50, 10, 3}[i%3]
						v.SlowClient = []hub.SlowClient{hub.Disconnect, hub.DropOldest}[i%2]
						v.restless = []int{1000, 100, 20}[i%3]
						v.stalling, v.forgetful = i%4 == 1, i%4 == 2
					})
				}
				w.run()
				gaps, seen, published := 0, 0, 0
				for _, v := range w.visitors {
					v.check()
					gaps, seen, published = gaps+v.gaps, seen+v.seen, published+v.expected
				}
				t.Logf("of %d messages %d were seen, and %d gaps told", published, seen, gaps)
				if gaps == 0 || seen == published || seen == 0 {
					t.Error("this shows nothing")
				}
			})
		})
	}
}

// world is a hub with its publishers and visitors, and the book of all that was published.
type world struct {
	t        *testing.T
	hub      *hubtest.Hub
	log      *Log
	visitors []*visitor
	traffic  hubtest.Traffic
	over     atomic.Bool   // all is published but the end
	tooLate  chan struct{} // closed when a visitor has waited too long for the end

	mu   sync.Mutex // guards book
	book map[uint64]*posted
}

// posted is what was published at a position. It keeps the text, since a delivered message no longer has it.
type posted struct {
	*hub.Message
	text string
}

func newWorld(t *testing.T, limits hub.Limits) *world {
	h := hubtest.New(t, limits)
	return &world{
		t: t, hub: h, log: newTestLog(t, h.Hub),
		tooLate: make(chan struct{}), book: make(map[uint64]*posted),
	}
}

// visit adds a visitor.
func (w *world) visit(i int, with func(*visitor)) {
	random := rand.New(rand.NewPCG(uint64(i), rand.Uint64()))
	v := &visitor{world: w, number: i, random: random}
	v.ClientID, v.ClientOptions = fmt.Sprint("c", i), &hub.ClientOptions{QueueBytes: 1 << 20}
	if i%2 == 0 {
		v.User = fmt.Sprint("u", i%4)
	}
	for range random.IntN(4) {
		v.Topics = append(v.Topics, hubtest.RandomTopic(random))
	}
	v.Topics = topic.Distinct(v.Topics)
	v.Patterns = [][]string{nil, {"a/*"}, {"*/1", "b/**"}, {"**"}, nil}[random.IntN(5)]
	with(v)
	w.visitors = append(w.visitors, v)
}

// run publishes everything and returns when every visitor has had the last message.
func (w *world) run() {
	for i := range publishers {
		n := 0
		w.traffic.GoLoop(posts, func(random *rand.Rand) {
			n++
			to, text := hubtest.RandomTarget(random), fmt.Append(nil, i, "-", n)
			w.publish(&hub.Message{To: to, Data: text, Ephemeral: random.IntN(10) == 0})
			if random.IntN(30) == 0 {
				time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
			}
		})
	}
	var visits sync.WaitGroup
	for _, v := range w.visitors {
		visits.Go(v.run)
	}
	w.traffic.Wait()
	w.over.Store(true)
	allEnded := make(chan struct{})
	go func() { defer close(allEnded); visits.Wait() }()
	for range 100 {
		// A client that is catching up may miss the end and be told a gap. So the end is published again.
		w.publish(&hub.Message{To: []hub.Address{{Kind: hub.ToBroadcast}}, Data: []byte(theEnd)})
		select {
		case <-allEnded:
			return
		case <-time.After(time.Second):
		}
	}
	close(w.tooLate)
	<-allEnded
}

const theEnd = "the end"

func (w *world) publish(m *hub.Message) {
	p := &posted{m, string(m.Data)}
	if _, err := w.log.Publish(w.t.Context(), []*broker.Publication{{Message: m}}); err != nil {
		w.t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !m.Ephemeral {
		w.book[m.Position.Major] = p
	}
}

// visitor is a client that comes and goes, and notes what it is told.
type visitor struct {
	hub.Subscription
	*world
	number    int
	random    *rand.Rand
	restless  int  // messages after which it is cut, about
	stalling  bool // the socket is blocked at times
	forgetful bool // at times it comes back with an ID that no log gave out

	notes []note
	ended bool // the last message has come

	gaps, seen, expected int
}

// note is one thing a visitor was told: a message, a gap, or where its stream begins.
type note struct {
	kind     string // "message", "gap", "ephemeral", "welcome"
	position uint64
	text     string
	resume   hub.Resume
	unknown  bool   // the client came with an ID that no log gave out
	covers   uint64 // position up to which a gap tells of losses; 0 for up to the next message
}

func (v *visitor) run() {
	for !v.ended {
		v.connect()
		if v.random.IntN(2) == 0 {
			time.Sleep(time.Duration(v.random.IntN(50)) * time.Millisecond)
		}
	}
}

func (v *visitor) cut() bool { return v.random.IntN(v.restless) == 0 && !v.over.Load() }

// connect is one connection of the visitor.
func (v *visitor) connect() {
	s := v.Subscription
	unknown := v.forgetful && s.LastEventID != "" && v.random.IntN(4) == 0
	if unknown {
		s.LastEventID = "nobody's-7"
	}
	p := hubtest.NewPlayer()
	p.Stalled = v.stalling
	c, welcome, err := v.hub.Join(s, p)
	if err != nil {
		v.t.Errorf("visitor %d: %v", v.number, err)
		v.ended = true
		return
	}
	defer v.hub.Leave(c, hub.ErrGone)
	if v.cut() {
		return // the client is cut before it is told anything
	}
	if s.LastEventID != "" && !unknown && welcome.ID != s.LastEventID {
		v.t.Errorf("visitor %d came back with %s and is told %s", v.number, s.LastEventID, welcome.ID)
	}
	v.LastEventID = welcome.ID
	v.note(note{
		kind: "welcome", position: v.positionOf(welcome.ID), resume: welcome.Resume, unknown: unknown,
		covers: welcome.Lost.Major,
	})
	for !v.ended {
		batch, err := c.Take(nil)
		if err != nil {
			return
		}
		for _, m := range batch {
			if v.cut() {
				return
			}
			v.read(m, c.ToldLost().Major)
		}
		if v.stalling && v.random.IntN(5) == 0 {
			time.Sleep(time.Duration(v.random.IntN(1500)) * time.Millisecond)
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-p.Woken:
		case <-p.Aborted:
			return
		case <-v.tooLate:
			v.ended = true
		}
	}
}

// read notes a message and its ID, as a browser does.
func (v *visitor) read(m *hub.Message, lost uint64) {
	e := hubtest.Decode(v.t, m)
	switch {
	case e.Name == "gap" && strings.Contains(string(e.Data), "history_trimmed"):
		v.note(note{kind: "gap", covers: lost})
	case e.Name == "gap":
		v.note(note{kind: "gap"})
	case e.ID == "":
		v.note(note{kind: "ephemeral", text: string(e.Data)})
	default:
		v.LastEventID = e.ID
		v.note(note{kind: "message", position: v.positionOf(e.ID), text: string(e.Data)})
		v.ended = string(e.Data) == theEnd
	}
}

func (v *visitor) note(n note) { v.notes = append(v.notes, n) }

func (v *visitor) positionOf(id string) uint64 {
	parsed, ok := hub.ParseID(id)
	if !ok {
		v.t.Errorf("visitor %d was told an ID that is none: %q", v.number, id)
	}
	return parsed.Position.Major
}

// wants reports whether a message is for the visitor.
func (v *visitor) wants(p *posted) bool {
	for _, to := range p.To {
		switch {
		case to.Kind == hub.ToBroadcast,
			to.Kind == hub.ToClient && to.Name == v.ClientID,
			to.Kind == hub.ToUser && to.Name == v.User,
			to.Kind == hub.ToTopic && (topic.Covered(v.Topics, to.Name) || topic.Covered(v.Patterns, to.Name)):
			return true
		}
	}
	return false
}

// check compares the notes with the book. Every missing message must have been told as a gap. Nothing may
// come twice or out of order, except for a client that comes with an unknown ID and gets its history again.
//
// A gap told by a replay covers what was lost by then. Its end may lie behind messages that are still to
// come, since other topics are kept for longer.
func (v *visitor) check() {
	if n := len(v.notes); n == 0 || v.notes[n-1].text != theEnd {
		v.t.Fatalf("visitor %d saw no end", v.number)
	}
	ephemeral := make(map[string]bool)
	last, told, covered := v.notes[0].position, true, uint64(0)
	for p := last + 1; p <= uint64(len(v.book)); p++ {
		if v.wants(v.book[p]) {
			v.expected++
		}
	}
	for i, n := range v.notes {
		switch n.kind {
		case "gap":
			v.gaps, told, covered = v.gaps+1, true, max(covered, n.covers)
		case "welcome":
			if (n.resume == hub.ResumeNone) != (i == 0) || n.unknown && n.resume != hub.ResumeGap {
				v.fail(i, "is told %q", n.resume)
			}
			if n.resume == hub.ResumeGap {
				v.gaps, told, covered = v.gaps+1, true, max(covered, n.covers)
			}
			last = n.position
		case "ephemeral":
			if ephemeral[n.text] {
				v.fail(i, "saw the ephemeral message %s twice", n.text)
			}
			ephemeral[n.text] = true
		case "message":
			v.seen++
			p := v.book[n.position]
			if p == nil || p.text != n.text || !v.wants(p) {
				v.fail(i, "saw %s at %d; published there was %v", n.text, n.position, p)
			}
			if n.position <= last {
				v.fail(i, "saw %d after %d", n.position, last)
			}
			for missing := max(last, covered) + 1; missing < n.position && !told; missing++ {
				if v.wants(v.book[missing]) {
					v.fail(i, "missed %d and was not told", missing)
				}
			}
			last, told = n.position, false
		}
	}
}

func (v *visitor) fail(i int, format string, args ...any) {
	v.t.Helper()
	around := v.notes[max(0, i-5):min(i+3, len(v.notes))]
	v.t.Errorf("visitor %d %s; its notes around that: %+v", v.number, fmt.Sprintf(format, args...), around)
	if v.t.Failed() {
		v.t.FailNow()
	}
}
