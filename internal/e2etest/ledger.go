package e2etest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// Outcome is what a publisher knows of a message.
type Outcome int

// The outcomes.
const (
	OutcomePublished Outcome = iota // answered 200
	OutcomeRefused                  // answered that it was not published
	OutcomeUnknown                  // not answered, or that nobody knows
)

// Ledger knows every message that was published and how that was answered, and
// judges what clients got: whatever was acknowledged must have come, once and in
// order, or a gap must have been told before the place where it is missing.
//
// Its methods may be called from any goroutine.
type Ledger struct {
	mu       sync.Mutex // guards the rest
	messages map[string]message
	refused  map[string]bool
	doubtful map[string]bool // had to be sent again
	unknowns int
}

type message struct {
	id, text string
	topic    string
	epoch    string
	position position
}

// position is a place in a log, as IDs tell it.
type position struct{ major, minor uint64 }

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.major, q.major), cmp.Compare(p.minor, q.minor))
}

func (p position) after(q position) bool { return p.compare(q) > 0 }

// parseID reads "<epoch>-<major>" or "<epoch>-<major>-<minor>".
func parseID(id string) (epoch string, p position, err error) {
	epoch, rest, _ := strings.Cut(id, "-")
	major, minor, found := strings.Cut(rest, "-")
	if p.major, err = strconv.ParseUint(major, 10, 64); err == nil && found {
		p.minor, err = strconv.ParseUint(minor, 10, 64)
	}
	return epoch, p, err
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{messages: make(map[string]message), refused: make(map[string]bool), doubtful: make(map[string]bool)}
}

// Drive publishes numbered messages to a topic, one after the other, until ctx
// ends. One whose outcome is unknown is sent again until it is known, as
// publishers with an Idempotency-Key do. publish may be asked for the same text
// several times; it says how that was answered, and with what ID.
func (l *Ledger) Drive(ctx context.Context, name, topic string, pause time.Duration, publish func(text string) (string, Outcome)) {
	for n := 0; ctx.Err() == nil; n++ {
		text := fmt.Sprintf("%s/%d", name, n)
		id, outcome := publish(text)
		for doubtful := false; outcome == OutcomeUnknown || doubtful && outcome == OutcomeRefused; {
			doubtful = true
			l.mu.Lock()
			l.unknowns++
			l.doubtful[text] = true
			l.mu.Unlock()
			time.Sleep(max(pause, 10*time.Millisecond))
			id, outcome = publish(text)
		}
		l.Note(text, topic, id, outcome)
		time.Sleep(pause)
	}
}

// Note enters what became of a message.
func (l *Ledger) Note(text, topic, id string, outcome Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if outcome == OutcomeRefused {
		l.refused[text] = true
		return
	}
	m := message{id: id, text: text, topic: topic}
	m.epoch, m.position, _ = parseID(id)
	l.messages[text] = m
}

// Counts returns how many messages were published, were refused, and had to be
// sent again.
func (l *Ledger) Counts() (published, refused, again int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.messages), len(l.refused), l.unknowns
}

// IDs returns by text the IDs that were acknowledged, and of which texts another copy may stand elsewhere, since they
// had to be sent again.
func (l *Ledger) IDs() (ids map[string]string, doubtful map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids = make(map[string]string, len(l.messages))
	for text, m := range l.messages {
		ids[text] = m.id
	}
	return ids, maps.Clone(l.doubtful)
}

// Judge returns what is wrong with the events that a client got who subscribed
// to topics at an ID. The last event must be one that was published after all
// others, so that nothing is still on its way. A gap told at a reconnect covers
// everything that is no longer kept; who knows up to where that is has a gap
// event without ID and with that ID as its data.
func (l *Ledger) Judge(from string, topics []string, events []eventstream.Event) (faults []string) {
	return l.judge(from, topics, events, false)
}

// JudgeFailover is Judge for a log that lost its end when another server took
// its place. Whoever knows of a lost message has to see that first, so a gap may
// be told after messages that were published since.
func (l *Ledger) JudgeFailover(from string, topics []string, events []eventstream.Event) (faults []string) {
	return l.judge(from, topics, events, true)
}

func (l *Ledger) judge(from string, topics []string, events []eventstream.Event, late bool) (faults []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	j := judge{late: late, ledger: l, topics: topics, cameIn: make(map[string]int), due: make(map[string][]message)}
	for _, m := range l.messages {
		if slices.Contains(topics, m.topic) {
			j.due[m.epoch] = append(j.due[m.epoch], m)
		}
	}
	for _, due := range j.due {
		slices.SortFunc(due, func(a, b message) int { return a.position.compare(b.position) })
	}
	j.epoch, j.last, _ = parseID(from)
	for _, event := range events {
		j.next(event)
	}
	return append(j.faults, j.pending...)
}

// judge is how far a client's events have been judged. They fall into stretches
// with a gap between each two.
type judge struct {
	ledger  *Ledger
	topics  []string
	due     map[string][]message // by epoch, in order
	epoch   string
	last    position
	excused bool           // a gap was told after last, up to nobody knows where
	covered position       // what is missing up to here was told
	stretch int            // counts gaps
	cameIn  map[string]int // by text the stretch it came in, from 1
	faults  []string
	late    bool     // a gap may be told late
	pending []string // faults that a gap told later would excuse
}

func (j *judge) fault(format string, args ...any) {
	const most = 10
	if len(j.faults) < most {
		j.faults = append(j.faults, fmt.Sprintf(format, args...))
	}
}

// faultWithoutGap is a fault unless a gap is told later.
func (j *judge) faultWithoutGap(format string, args ...any) {
	j.pending = append(j.pending, fmt.Sprintf(format, args...))
}

func (j *judge) next(event eventstream.Event) {
	epoch, p, err := parseID(event.ID)
	switch {
	case event.Name == "gap":
		j.stretch++
		j.pending = nil
		j.excused, j.covered = err != nil, position{}
		if err == nil {
			j.epoch, j.last = epoch, p
		} else if epoch, p, err = parseID(string(event.Data)); err == nil {
			j.excused, j.epoch, j.last, j.covered = false, epoch, position{}, p
		}
		return
	case event.ID == "":
		return // ephemeral
	case err != nil:
		j.fault("the ID %q can't be read", event.ID)
		return
	}
	text := string(event.Data)
	j.content(text, p)
	switch {
	case j.excused:
	case epoch != j.epoch:
		j.fault("%q came from the log %s after %s, without a gap", text, epoch, j.epoch)
	case !p.after(j.last):
		j.fault("%q came at %v after %v", text, p, j.last)
	default:
		j.between(epoch, p, text)
	}
	j.epoch, j.last, j.excused = epoch, p, false
}

// content judges a message by itself.
func (j *judge) content(text string, p position) {
	known, published := j.ledger.messages[text]
	moved := j.fault
	if j.ledger.doubtful[text] { // a log that was lost has lost the keys too: what is sent again is published again
		moved = j.faultWithoutGap
	}
	switch {
	case j.ledger.refused[text]:
		j.fault("%q came, which was answered as not published", text)
	case published && known.position != p:
		moved("%q came at %v, but was acknowledged at %v", text, p, known.position)
	case published && !slices.Contains(j.topics, known.topic):
		j.fault("%q came, which is for %s", text, known.topic)
	}
	if j.cameIn[text] == j.stretch+1 {
		j.fault("%q came twice", text)
	}
	j.cameIn[text] = j.stretch + 1
}

// between looks for messages that should have come before one that did.
func (j *judge) between(epoch string, p position, came string) {
	missing := j.fault
	if j.late {
		missing = j.faultWithoutGap
	}
	due := j.due[epoch]
	i := sort.Search(len(due), func(i int) bool { return due[i].position.after(j.last) })
	for ; i < len(due) && p.after(due[i].position); i++ {
		if !due[i].position.after(j.covered) {
			continue
		}
		missing("%q is missing at %v before %q, and no gap was told", due[i].text, due[i].position, came)
	}
}

// FalseGaps returns how many gaps a client of topics was told although it had missed nothing: its messages before and
// after are of one log, with none between them.
func (l *Ledger) FalseGaps(topics []string, events []eventstream.Event) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var epoch string
	var last position
	told := false // since the last message
	for _, event := range events {
		if event.Name == "gap" {
			told = true
			continue
		}
		now, p, err := parseID(event.ID)
		if err != nil {
			continue
		}
		if told && now == epoch && !l.anyBetween(topics, epoch, last, p) {
			n++
		}
		epoch, last, told = now, p, false
	}
	return n
}

func (l *Ledger) anyBetween(topics []string, epoch string, after, before position) bool {
	for _, m := range l.messages {
		if m.epoch == epoch && m.position.after(after) && before.after(m.position) && slices.Contains(topics, m.topic) {
			return true
		}
	}
	return false
}
