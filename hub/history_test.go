package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/topic"
)

// diary is a history that the test writes, one message a second.
type diary struct {
	*history
	t    *testing.T
	now  time.Time
	last Position
}

func newDiary(t *testing.T, limits HistoryLimits) *diary {
	most := usual
	return &diary{newHistory(limits, newSequence(), &most), t, time.Unix(1_000_000, 0), Position{}}
}

// write appends a message of size bytes at each topic.
func (d *diary) write(size int, topics ...string) Position { return d.writeTo(size, Topics(topics...)) }

func (d *diary) writeTo(size int, to []Address) Position {
	d.now = d.now.Add(time.Second)
	before := d.last
	d.last.Major++
	f := &Frame{chunk: strings.Repeat("x", size+2), time: d.now.UnixNano(), position: d.last}
	d.frames.append(f, before)
	d.append(f, to, d.now)
	return d.last
}

// kept returns the positions kept of topics and patterns, after p.
func (d *diary) kept(p Position, names ...string) (kept []uint64) {
	s := with(names...)
	from := d.frames.after(p, leaving{}, 1)
	logs, few := d.find(wants{addresses: Topics(s.Topics...), patterns: s.Patterns}, from, d.now)
	if !few {
		d.t.Error("there are more logs than are merged")
	}
	frames, next := merged(nil, runs(logs, from, 1<<30), d.frames.next, 1<<30, 1<<30)
	if next != d.frames.next {
		d.t.Error("there is more than all")
	}
	for _, f := range frames {
		kept = append(kept, f.position.Major)
	}
	return kept
}

func (d *diary) wantLost(want uint64, names ...string) {
	d.t.Helper()
	s := with(names...)
	if got := d.lost(wants{addresses: Topics(s.Topics...), patterns: s.Patterns}, Position{}); got.Major != want {
		d.t.Errorf("the newest loss from %v is said to be at %v; want %d", names, got, want)
	}
}

// sweep ages all topics.
func (d *diary) sweep() {
	for !d.trimOld(d.now) {
	}
}

// setLimits makes other limits hold.
func (d *diary) setLimits(limits HistoryLimits) {
	d.history.setLimits(limits, d.rules)
	for at := d.all.n - 1; at >= 0; at = min(at, d.all.n) - 1 {
		d.setPolicy(*d.all.at(at))
		d.trim(*d.all.at(at), d.now)
	}
	for !d.trimBytes() {
	}
}

// cost is what so many messages of that size, in so many topics of one letter, count.
func cost(messages, size, topics int) int64 {
	f := &Frame{chunk: strings.Repeat("x", size+2)}
	return int64(messages)*costOf(f) + int64(topics)*costOfLog(Topics("a")[0])
}

func TestHistoryKeepsItsCountPerTopic(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 3})
	for range 5 {
		d.write(10, "busy")
	}
	d.write(10, "quiet")
	want(t, d.kept(Position{}, "busy"), 3, 4, 5)
	want(t, d.kept(Position{}, "quiet"), 6)
	d.wantLost(2, "busy")
	d.wantLost(0, "quiet")
	d.wantLost(2, "quiet", "busy")
	d.wantLost(0, "never heard of")
}

func TestHistoryForgetsWhatIsOlderThanItsAge(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 100, Age: 10 * time.Second})
	for range 12 {
		d.write(10, "a")
	}
	want(t, d.kept(Position{}, "a"), 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	d.wantLost(1, "a")

	d.now = d.now.Add(5 * time.Second) // nobody publishes, and it still ages
	want(t, d.kept(Position{}, "a"), 7, 8, 9, 10, 11, 12)
	d.wantLost(6, "a")

	d.now = d.now.Add(time.Hour)
	d.sweep()
	if d.all.n != 0 || d.order.oldest != nil || len(d.aging) != 0 || d.bytes != 0 || len(d.trees[ToTopic].root.topics) != 0 {
		t.Errorf("of a topic whose messages have all aged %d logs and %d bytes are left", d.all.n, d.bytes)
	}
	d.wantLost(12, "a") // what there was is known for ever
}

func TestTheTopicsPublishedToLongestAgoGiveWayToTheByteLimit(t *testing.T) {
	limit := cost(3, 30, 3)
	d := newDiary(t, HistoryLimits{Count: 100, Bytes: limit})
	d.write(30, "a")
	d.write(30, "b")
	d.write(30, "a")
	want(t, d.kept(Position{}, "a", "b"), 1, 2, 3)
	d.write(30, "c") // one too many: b has waited longest
	want(t, d.kept(Position{}, "a"), 1, 3)
	want(t, d.kept(Position{}, "b"))
	want(t, d.kept(Position{}, "c"), 4)
	d.write(30, "c")
	d.write(30, "c")
	want(t, d.kept(Position{}, "a"), 3) // the oldest of the topic that is next
	d.wantLost(1, "a")
	d.wantLost(2, "b")
	d.wantLost(0, "c")

	d.write(int(limit), "huge") // larger than all there may be
	want(t, d.kept(Position{}, "a", "c", "huge"))
	d.wantLost(7, "huge")
	if d.bytes != 0 {
		t.Errorf("an empty history counts %d bytes", d.bytes)
	}
}

func TestAMessageOfManyTopicsCountsOnceAndLivesAsLongAsOneKeepsIt(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 2})
	wantBytes := func(messages int) {
		t.Helper()
		if want := cost(messages, 10, 3); d.bytes != want {
			t.Errorf("%d messages in three topics count %d bytes; want %d", messages, d.bytes, want)
		}
	}
	d.write(10, "a", "b", "c")
	wantBytes(1)
	d.write(10, "a")
	d.write(10, "a")
	want(t, d.kept(Position{}, "a"), 2, 3)
	want(t, d.kept(Position{}, "a", "b", "c", "*"), 1, 2, 3)
	d.write(10, "b")
	d.write(10, "b")
	d.write(10, "c")
	wantBytes(6)
	d.write(10, "c") // and the first is gone
	wantBytes(6)
}

func TestATopicNamedTwiceKeepsTheMessageOnce(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 1})
	d.write(10, "a", "b", "a", "a")
	want(t, d.kept(Position{}, "a"), 1)
	d.wantLost(0, "a")
}

func TestHistoryOffKnowsWhatItDidNotKeep(t *testing.T) {
	d := newDiary(t, HistoryLimits{})
	d.write(10, "a")
	d.write(10, "b")
	want(t, d.kept(Position{}, "a", "b", "**"))
	d.wantLost(1, "a")
	d.wantLost(2, "b")
	d.wantLost(0, "c")
	d.wantLost(2, "c", "*")
}

func TestWhatIsPinnedStaysAndIsTrimmedLater(t *testing.T) {
	for _, limits := range []HistoryLimits{{Count: 2}, {}, {Count: 100, Age: time.Second}} {
		d := newDiary(t, HistoryLimits{Count: 5})
		for range 5 {
			d.write(10, "a")
		}
		d.pin = 4
		d.setLimits(limits)
		for range 3 {
			d.write(10, "a")
		}
		d.sweep()
		want(t, d.kept(Position{3, 0}, "a"), 4, 5, 6, 7, 8)
		d.pin = unpinned
		for !d.trimOverdue(d.now) {
		}
		if kept := d.kept(Position{}, "a"); len(kept) > 2 || d.excess != 0 || d.excessBytes != 0 {
			t.Errorf("%+v: unpinned %v are kept, and %d are too many", limits, kept, d.excess)
		}
	}
}

func TestAPatternCannotBeSureOnceATopicIsForgotten(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 1, Age: time.Minute})
	d.write(10, "gone/a")
	d.now = d.now.Add(time.Hour)
	d.sweep()
	d.write(10, "here/a")
	d.write(10, "here/a")
	d.wantLost(1, "gone/*") // which had it
	d.wantLost(1, "else/*") // whose topics are not known
	d.wantLost(2, "here/*") // which has lost from its log
	d.wantLost(0, "else/a") // a topic is known by its own name
}

// A pattern reaches topics only, so what clients and users no longer have is no loss to it.
func TestAPatternLosesNothingWithTargetedMessages(t *testing.T) {
	d := newDiary(t, HistoryLimits{})
	for _, to := range []Address{{ToClient, "c"}, {ToUser, "u"}, {Kind: ToBroadcast}} {
		d.writeTo(10, []Address{to})
	}
	d.wantLost(0, "**")
	d.write(10, "a")
	d.wantLost(4, "**")
}

func TestATopicThatComesBackStillKnowsWhatItLost(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 10, Age: time.Minute})
	d.write(10, "a")
	d.now = d.now.Add(time.Hour)
	d.sweep()
	d.write(10, "a")
	d.wantLost(1, "a")
	want(t, d.kept(Position{}, "a"), 2)
}

func TestWhatTheLogForgotIsKnownWhetherTheTopicIsKeptOrNot(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 10})
	d.write(10, "kept")
	d.forget(Address{ToTopic, "kept"}, Position{5, 0})
	d.forget(Address{ToTopic, "gone"}, Position{6, 0})
	d.forget(Address{ToTopic, "kept"}, Position{2, 0}) // which is older news
	d.wantLost(5, "kept")
	d.wantLost(6, "gone")
	d.wantLost(0, "other")
	d.wantLost(6, "*")
}

func TestForgettingAllForgetsTopicsThatAreKeptToo(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 2})
	d.write(10, "a")
	d.forgetAll(Position{5, 0})
	d.wantLost(5, "a")
	d.wantLost(5, "b")
	d.wantLost(5, "*")
	d.last = Position{7, 0}
	d.write(10, "a") // 8: one more than there was before the loss
	d.wantLost(5, "a")
	d.write(10, "a") // 9: and now the one before the loss is trimmed
	d.wantLost(5, "a")
	want(t, d.kept(Position{5, 0}, "a"), 8, 9)
}

func TestNewLimitsTrimWhatIsKept(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 100})
	for range 10 {
		d.write(10, "a")
		d.write(10, "b")
	}
	d.setLimits(HistoryLimits{Count: 3})
	want(t, d.kept(Position{}, "a"), 15, 17, 19)
	d.setLimits(HistoryLimits{Count: 3, Bytes: cost(5, 10, 2)})
	want(t, d.kept(Position{}, "a"), 17, 19)
	d.setLimits(HistoryLimits{Count: 3, Age: 2 * time.Second})
	want(t, d.kept(Position{}, "a", "b"), 18, 19, 20)
	d.setLimits(HistoryLimits{})
	want(t, d.kept(Position{}, "a", "b"))
	d.wantLost(19, "a")
	d.wantLost(20, "b")
}

func TestReplayComesInPiecesOfMessagesAndBytes(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 100})
	for i := range 6 {
		d.write(10*(i+1), "a", "b") // 10, 20, 30, 40, 50, 60 bytes
	}
	logs, _ := d.find(wants{addresses: Topics("a", "b"), patterns: []string{"*"}}, 1, d.now)
	for _, test := range []struct {
		from         uint64
		limit, bytes int
		last         uint64
	}{
		{1, 100, 1000, 6},
		{1, 6, 210, 6},
		{1, 5, 1000, 5},
		{1, 100, 209, 5},
		{1, 100, 30, 2},
		{1, 100, 29, 1},
		{1, 100, 1, 1}, // the first comes however large it is
		{6, 1, 1, 6},
		{7, 1, 1, 6},
	} {
		got, next := merged(nil, runs(logs, test.from, test.limit+1), d.frames.next, test.limit, test.bytes)
		var positions, wanted []uint64
		for p := test.from; p <= test.last; p++ {
			wanted = append(wanted, p)
		}
		for _, f := range got {
			positions = append(positions, f.position.Major)
		}
		if !slices.Equal(positions, wanted) || next != test.last+1 {
			t.Errorf("from %d, at most %d messages and %d bytes: got %v, then %d; want %v",
				test.from, test.limit, test.bytes, positions, next, wanted)
		}
	}
}

func TestTheNewestAreCountedOverAllTopics(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 100})
	for range 5 {
		d.write(10, "a")
		d.write(10, "b")
		d.write(10, "a", "b")
	}
	logs, _ := d.find(wants{addresses: Topics("a", "b"), patterns: []string{"*"}}, 1, d.now)
	for limit, want := range map[int]uint64{1: 15, 3: 13, 4: 12, 14: 2, 15: 1, 100: 1} {
		if oldest, ok := newest(logs, limit); !ok || oldest.position.Major != want {
			t.Errorf("the newest %d of 15 begin at %v, %v; want %d", limit, oldest.position, ok, want)
		}
	}
	for _, logs := range [][]*addressLog{nil, logs} {
		if oldest, ok := newest(logs, 0); ok {
			t.Errorf("the newest of none begin at %v", oldest)
		}
	}
}

// Against a list of everything ever written, under random limits: what is kept, what is said to be
// lost, and what it all weighs.
func TestHistoryAgreesWithAPlainList(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		limits := HistoryLimits{
			Count: random.IntN(20), Bytes: int64(random.IntN(3) * 8000),
			Age: time.Duration(random.IntN(3)) * 30 * time.Second,
		}
		d := newDiary(t, limits)
		written := make(map[string][]uint64)
		for range 300 {
			var topics []string
			for range 1 + random.IntN(3) {
				topics = append(topics, fmt.Sprintf("%c/%c", 'a'+random.IntN(3), 'a'+random.IntN(4)))
			}
			topics = topic.Distinct(topics)
			d.write(10+random.IntN(50), topics...)
			for _, topic := range topics {
				written[topic] = append(written[topic], d.last.Major)
			}
			if random.IntN(20) == 0 {
				d.now = d.now.Add(time.Duration(random.IntN(40)) * time.Second)
			}
		}
		if random.IntN(2) == 0 {
			d.sweep()
		}
		if d.checkAgainst(written); t.Failed() {
			t.Fatalf("seed %d, %+v", seed, limits)
		}
	}
}

func (d *diary) checkAgainst(written map[string][]uint64) {
	d.t.Helper()
	weight := make(map[*Frame]bool)
	var bytes int64
	for topic, all := range written {
		kept := d.kept(Position{}, topic)
		first := len(all) - len(kept)
		if l := d.log(Topics(topic)[0]); l != nil {
			bytes += costOfLog(l.address)
			for _, f := range l.frames {
				if weight[f] = true; d.frames.at(f.seq) != f {
					d.t.Errorf("%s: %v is kept, and the sequence has it not", topic, f.position)
				}
			}
		}
		if first < 0 || d.limits.Count < len(kept) {
			d.t.Fatalf("%s: of %d messages %d are kept; the limit is %d", topic, len(all), len(kept), d.limits.Count)
		}
		if !slices.Equal(kept, all[first:]) {
			d.t.Fatalf("%s: what is kept is not the end of what was written: %v", topic, kept)
		}
		lost := d.lost(wants{addresses: Topics(topic)}, Position{})
		if first > 0 && all[first-1] > lost.Major {
			d.t.Fatalf("%s: %d is no longer kept, and the newest loss is said to be at %v", topic, all[first-1], lost)
		}
		pattern := strings.Split(topic, "/")[0] + "/*"
		for _, p := range []Position{{}, {50, 0}, {200, 0}, {290, 0}} {
			lost := d.lost(wants{patterns: []string{pattern}}, p)
			if first > 0 && all[first-1] > p.Major && all[first-1] > lost.Major {
				d.t.Fatalf("%s: after %v a loss is not one to %s", topic, p, pattern)
			}
			beyond := d.kept(p, topic)
			for _, position := range beyond {
				if !slices.Contains(d.kept(p, pattern), position) {
					d.t.Fatalf("%s: after %v %d is kept, and not found by %s", topic, p, position, pattern)
				}
			}
		}
	}
	for f := range weight {
		bytes += costOf(f)
	}
	if bytes != d.bytes || d.limits.Bytes > 0 && bytes > d.limits.Bytes {
		d.t.Fatalf("%d bytes are kept, %d are counted, %d are allowed", bytes, d.bytes, d.limits.Bytes)
	}
}
