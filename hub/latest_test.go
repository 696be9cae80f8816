package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// writeKey appends a message with a key at a topic.
func (d *diary) writeKey(topic, key string) Position {
	d.now = d.now.Add(time.Second)
	before := d.last
	d.last.Major++
	f := &Frame{chunk: strings.Repeat("x", 12), key: key, time: d.now.UnixNano(), position: d.last}
	d.frames.append(f, before)
	d.append(f, Topics(topic), d.now)
	return d.last
}

// setPolicies makes other policies hold, and visits all logs.
func (d *diary) setPolicies(list ...Policy) {
	d.rules = newPolicies(list)
	d.setLimits(d.limits)
}

func latestOf(pattern string, age time.Duration) Policy {
	return Policy{Pattern: pattern, History: &Retention{Latest: true, Age: age}}
}

func TestTheNewestOfEachTopicAndKeyIsKept(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 2, Age: time.Minute, Bytes: cost(100, 10, 5)})
	d.setPolicies(latestOf("p/*", 0))
	d.writeKey("p/a", "")  // 1
	d.writeKey("p/a", "k") // 2
	d.writeKey("p/a", "l") // 3
	d.writeKey("p/b", "")  // 4
	d.writeKey("p/a", "k") // 5
	d.writeKey("p/b", "")  // 6
	want(t, d.kept(Position{}, "p/a"), 1, 3, 5)
	want(t, d.kept(Position{}, "p/b"), 6)
	d.wantLost(2, "p/a") // what was replaced is missing to whoever missed it
	d.wantLost(4, "p/b")
	d.wantLost(4, "p/*")
	for i := range 1000 { // neither count, nor age, nor what else is kept touches them
		d.write(50, fmt.Sprint("other/", i%100))
	}
	d.now = d.now.Add(time.Hour)
	d.sweep()
	want(t, d.kept(Position{}, "p/a"), 1, 3, 5)
	want(t, d.kept(Position{}, "p/b"), 6)
	if got, want := d.bytes, 4*costOf(&Frame{chunk: strings.Repeat("x", 12)})+2*(keyCost+1)+2*costOfLog(Topics("p/a")[0]); got != want {
		t.Errorf("they count %d bytes; want %d", got, want)
	}
}

func TestWhatIsTheNewestAgesIfItsPolicySaysSo(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 10, Age: time.Hour})
	d.setPolicies(latestOf("short", time.Minute), latestOf("long", 3*time.Hour),
		Policy{Pattern: "day", History: &Retention{Count: 2, Age: 24 * time.Hour}}, Policy{Pattern: "none", History: &Retention{}})
	for _, topic := range []string{"long", "day", "day", "day", "usual", "short", "none"} {
		d.writeKey(topic, "k")
	}
	all := []string{"long", "day", "usual", "short", "none"}
	want(t, d.kept(Position{}, all...), 1, 3, 4, 5, 6)
	for _, step := range []struct {
		after time.Duration
		left  []uint64
	}{
		{2 * time.Minute, []uint64{1, 3, 4, 5}},
		{time.Hour, []uint64{1, 3, 4}},
		{2 * time.Hour, []uint64{3, 4}},
		{24 * time.Hour, nil},
	} {
		d.now = d.now.Add(step.after)
		d.sweep()
		n := 0
		for _, l := range d.logs[ToTopic] {
			n += len(l.frames)
		}
		if n != len(step.left) { // before kept looks, which trims
			t.Errorf("the sweep leaves %d messages; want %v", n, step.left)
		}
		want(t, d.kept(Position{}, all...), step.left...)
	}
	d.wantLost(6, "short")
	d.wantLost(7, "none")
	if d.bytes != 0 || len(d.aging) != 0 {
		t.Errorf("of nothing %d bytes are left, and %d logs that age", d.bytes, len(d.aging))
	}
}

func TestTheNewestGiveWayToTheByteLimitLast(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 10})
	d.setPolicies(latestOf("p/*", 0))
	d.writeKey("p/a", "")
	d.writeKey("p/b", "")
	d.writeKey("other", "")
	d.setLimits(HistoryLimits{Count: 10, Bytes: d.bytes - 1})
	want(t, d.kept(Position{}, "p/a", "p/b", "other"), 1, 2)
	d.setLimits(HistoryLimits{Count: 10, Bytes: d.bytes - 1})
	want(t, d.kept(Position{}, "p/a", "p/b", "other"), 2)
	d.wantLost(1, "p/a")
}

func TestWhatIsReplacedIsNoLossToWhomANewerOneMakesUpForIt(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 10})
	d.noteDropped = true
	p := latestOf("p/*", 0)
	p.Conflate = true
	d.setPolicies(p)
	d.writeKey("p/a", "k")
	d.writeKey("p/a", "k")
	d.write(10, "p/b", "other")
	d.writeKey("p/b", "")
	d.wantLost(0, "p/a", "p/b", "p/*")
	if dropped := d.dropped.items(); len(dropped) != 1 || len(dropped[0].To) != 0 {
		t.Errorf("a log that stores marks is told %+v; want a message that is a loss to no address", dropped)
	}
	d.setPolicies() // now it is
	d.setLimits(HistoryLimits{})
	d.wantLost(2, "p/a")
}

func TestPinnedValuesStayUntilTheyAreReplacedAndRead(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 10})
	d.setPolicies(latestOf("p", 0))
	d.writeKey("p", "k")
	d.writeKey("p", "l")
	d.writeKey("p", "k")
	d.pin = 3
	for range 3 {
		d.writeKey("p", "k") // 4, 5, 6
		d.writeKey("p", "l") // 5, 7, 9
	}
	want(t, d.kept(Position{}, "p"), 3, 4, 5, 6, 7, 8, 9)
	if d.excess != 5 {
		t.Errorf("%d count as excess; want 5", d.excess)
	}
	d.pin = 7
	for range 10 {
		d.trimOverdue(d.now)
	}
	want(t, d.kept(Position{}, "p"), 7, 8, 9)
	d.pin = unpinned
	for !d.trimOverdue(d.now) {
	}
	want(t, d.kept(Position{}, "p"), 8, 9)
	if d.excess != 0 || d.excessBytes != 0 || len(d.overdue) != 0 {
		t.Errorf("%d messages of %d bytes still count as excess", d.excess, d.excessBytes)
	}
}

// Against a list of everything ever written, under random policies that change, with pins that come and go.
func TestLatestHistoryAgreesWithAPlainList(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		d := newDiary(t, HistoryLimits{Count: 1000})
		type written struct {
			topic, key string
			position   uint64
		}
		var all []written
		latest := map[string]bool{}
		policies := func() {
			var list []Policy
			clear(latest)
			for _, topic := range []string{"a", "b", "c"} {
				if latest[topic] = random.IntN(3) > 0; latest[topic] {
					list = append(list, latestOf(topic, 0))
				}
			}
			d.setPolicies(list...)
		}
		policies()
		for range 300 {
			w := written{topic: string(rune('a' + random.IntN(3))), key: []string{"", "k", "l", "m"}[random.IntN(4)]}
			w.position = d.writeKey(w.topic, w.key).Major
			all = append(all, w)
			switch random.IntN(25) {
			case 0:
				d.pin = d.frames.next - uint64(random.IntN(20))
			case 1, 2:
				d.pin = unpinned
			case 3:
				policies()
			case 4:
				d.trimOverdue(d.now)
			}
		}
		d.pin = unpinned
		for !d.trimOverdue(d.now) {
		}
		if d.excess != 0 || d.excessBytes != 0 {
			t.Fatalf("seed %d: %d messages of %d bytes count as excess", seed, d.excess, d.excessBytes)
		}
		bytes := int64(0)
		for topic, l := range d.logs[ToTopic] {
			bytes += costOfLog(l.address)
			var kept, newest []uint64
			byKey := make(map[string]uint64)
			for _, w := range all {
				if w.topic == topic {
					byKey[w.key] = w.position
				}
			}
			for _, f := range l.frames {
				bytes += costOf(f)
				kept = append(kept, f.position.Major)
			}
			for _, p := range byKey {
				newest = append(newest, p)
			}
			if slices.Sort(newest); latest[topic] && !slices.Equal(kept, newest) {
				t.Fatalf("seed %d: of %s %v are kept; want %v", seed, topic, kept, newest)
			}
			for _, p := range newest {
				if !slices.Contains(kept, p) {
					t.Fatalf("seed %d: of %s %d is missing in %v", seed, topic, p, kept)
				}
			}
			for _, w := range all {
				lost := d.lost(wants{addresses: Topics(topic)}, Position{})
				if w.topic == topic && !slices.Contains(kept, w.position) && w.position > lost.Major {
					t.Fatalf("seed %d: of %s %d is not kept, and no loss", seed, topic, w.position)
				}
			}
		}
		if bytes != d.bytes {
			t.Fatalf("seed %d: %d bytes are counted; want %d", seed, d.bytes, bytes)
		}
	}
}
