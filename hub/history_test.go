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
	return &diary{newHistory(limits), t, time.Unix(1_000_000, 0), Position{}}
}

// write appends a message of size bytes at each topic.
func (d *diary) write(size int, topics ...string) Position {
	d.now = d.now.Add(time.Second)
	m := &Message{To: Topics(topics...), previous: d.last, Time: d.now, frame: make([]byte, size)}
	d.last.Major++
	m.Position = d.last
	d.append(m, d.now)
	return m.Position
}

// kept returns the positions kept of topics and patterns, after p.
func (d *diary) kept(p Position, names ...string) (kept []uint64) {
	s := with(names...)
	messages, more := after(d.logsOf(Topics(s.Topics...), s.Patterns, p, d.now), p, 1<<30, 1<<30)
	if more {
		d.t.Error("there is more than all")
	}
	for _, m := range messages {
		kept = append(kept, m.Position.Major)
	}
	return kept
}

func (d *diary) wantLost(want uint64, names ...string) {
	d.t.Helper()
	s := with(names...)
	if got := d.lost(Topics(s.Topics...), s.Patterns, Position{}); got.Major != want {
		d.t.Errorf("the newest loss from %v is said to be at %v; want %d", names, got, want)
	}
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

	d.now = d.now.Add(5 * time.Second) // nobody publishes, and it ages all the same
	want(t, d.kept(Position{}, "a"), 7, 8, 9, 10, 11, 12)
	d.wantLost(6, "a")

	d.now = d.now.Add(time.Hour)
	d.sweep(d.now)
	if len(d.logs) != 0 || d.recent.Len() != 0 || d.bytes != 0 {
		t.Errorf("of a topic whose messages have all aged %d logs and %d bytes are left", len(d.logs), d.bytes)
	}
	d.wantLost(12, "a") // what there was is known for ever
}

func TestTheTopicsPublishedToLongestAgoGiveWayToTheByteLimit(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 100, Bytes: 100})
	d.write(30, "a")
	d.write(30, "b")
	d.write(30, "a")
	d.write(30, "c") // 120 bytes: b has waited longest
	want(t, d.kept(Position{}, "a"), 1, 3)
	want(t, d.kept(Position{}, "b"))
	want(t, d.kept(Position{}, "c"), 4)
	d.write(30, "c")
	want(t, d.kept(Position{}, "a"), 3) // the oldest of the topic that is next
	d.write(90, "newest")
	want(t, d.kept(Position{}, "a", "b", "c"))
	want(t, d.kept(Position{}, "newest"), 6)
	d.wantLost(3, "a")
	d.wantLost(2, "b")
	d.wantLost(5, "c")
	d.wantLost(0, "newest")

	d.write(101, "huge") // larger than all there may be
	want(t, d.kept(Position{}, "newest", "huge"))
	d.wantLost(7, "huge")
	if d.bytes != 0 {
		t.Errorf("an empty history counts %d bytes", d.bytes)
	}
}

func TestAMessageOfManyTopicsCountsOnceAndLivesAsLongAsOneKeepsIt(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 2})
	d.write(10, "a", "b", "c")
	if d.bytes != 10 {
		t.Errorf("a message of 10 bytes in three topics counts %d", d.bytes)
	}
	d.write(10, "a")
	d.write(10, "a")
	want(t, d.kept(Position{}, "a"), 2, 3)
	want(t, d.kept(Position{}, "a", "b", "c", "*"), 1, 2, 3)
	d.write(10, "b")
	d.write(10, "b")
	d.write(10, "c")
	if d.bytes != 60 {
		t.Errorf("six messages of 10 bytes count %d", d.bytes)
	}
	d.write(10, "c")
	if d.bytes != 60 {
		t.Errorf("after the first of seven is gone the history counts %d bytes", d.bytes)
	}
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

func TestAPatternCannotBeSureOnceATopicIsForgotten(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 1, Age: time.Minute})
	d.write(10, "gone/a")
	d.now = d.now.Add(time.Hour)
	d.sweep(d.now)
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
		d.last.Major++
		d.append(&Message{To: []Address{to}, Position: d.last}, d.now)
	}
	d.wantLost(0, "**")
	d.write(10, "a")
	d.wantLost(4, "**")
}

func TestATopicThatComesBackStillKnowsWhatItLost(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 10, Age: time.Minute})
	d.write(10, "a")
	d.now = d.now.Add(time.Hour)
	d.sweep(d.now)
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
	d.setLimits(HistoryLimits{Count: 3}, d.now)
	want(t, d.kept(Position{}, "a"), 15, 17, 19)
	d.setLimits(HistoryLimits{Count: 3, Bytes: 50}, d.now)
	want(t, d.kept(Position{}, "a"), 17, 19)
	d.setLimits(HistoryLimits{Count: 3, Bytes: 50, Age: 2 * time.Second}, d.now)
	want(t, d.kept(Position{}, "a", "b"), 18, 19, 20)
	d.setLimits(HistoryLimits{}, d.now)
	want(t, d.kept(Position{}, "a", "b"))
	d.wantLost(19, "a")
	d.wantLost(20, "b")
}

func TestReplayComesInChunksOfMessagesAndBytes(t *testing.T) {
	d := newDiary(t, HistoryLimits{Count: 100})
	for i := range 6 {
		d.write(10*(i+1), "a", "b") // 10, 20, 30, 40, 50, 60 bytes
	}
	logs := d.logsOf(Topics("a", "b"), []string{"*"}, Position{}, d.now)
	for _, test := range []struct {
		after        uint64
		limit, bytes int
		last         uint64
		more         bool
	}{
		{0, 100, 1000, 6, false},
		{0, 6, 210, 6, false},
		{0, 5, 1000, 5, true},
		{0, 100, 209, 5, true},
		{0, 100, 30, 2, true},
		{0, 100, 29, 1, true},
		{0, 100, 1, 1, true}, // the first comes however large it is
		{5, 1, 1, 6, false},
		{6, 1, 1, 0, false},
	} {
		got, more := after(logs, Position{test.after, 0}, test.limit, test.bytes)
		wanted := []uint64(nil)
		for p := test.after + 1; p <= test.last; p++ {
			wanted = append(wanted, p)
		}
		var positions []uint64
		for _, m := range got {
			positions = append(positions, m.Position.Major)
		}
		if !slices.Equal(positions, wanted) || more != test.more {
			t.Errorf("after %d, at most %d messages and %d bytes: got %v, more %v; want %v, more %v",
				test.after, test.limit, test.bytes, positions, more, wanted, test.more)
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
	logs := d.logsOf(Topics("a", "b"), []string{"*"}, Position{}, d.now)
	for limit, want := range map[int]uint64{1: 14, 3: 12, 4: 11, 14: 1, 15: 0, 100: 0} {
		if before, ok := newest(logs, limit); !ok || before.Major != want {
			t.Errorf("the newest %d of 15 begin after %v, %v; want after %d", limit, before, ok, want)
		}
	}
	if before, ok := newest(nil, 10); ok {
		t.Errorf("the newest of none begin after %v", before)
	}
}

// Against a list of everything ever written, under random limits: what is kept, what is said to be
// lost, and what it all weighs.
func TestHistoryAgreesWithAPlainList(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		limits := HistoryLimits{Count: random.IntN(20), Bytes: int64(random.IntN(3) * 500), Age: time.Duration(random.IntN(3)) * 30 * time.Second}
		d := newDiary(t, limits)
		written := make(map[string][]*Message)
		for range 300 {
			var topics []string
			for range 1 + random.IntN(3) {
				topics = append(topics, fmt.Sprintf("%c/%c", 'a'+random.IntN(3), 'a'+random.IntN(4)))
			}
			topics = topic.Distinct(topics)
			d.write(10+random.IntN(50), topics...)
			for _, topic := range topics {
				written[topic] = append(written[topic], &Message{Position: d.last})
			}
			if random.IntN(20) == 0 {
				d.now = d.now.Add(time.Duration(random.IntN(40)) * time.Second)
			}
		}
		if random.IntN(2) == 0 {
			d.sweep(d.now)
		}
		checkAgainst(t, d, written)
	}
}

func checkAgainst(t *testing.T, d *diary, written map[string][]*Message) {
	t.Helper()
	weight := make(map[*Message]bool)
	for topic, all := range written {
		kept := d.kept(Position{}, topic)
		first := len(all) - len(kept)
		if l := d.logs[Address{ToTopic, topic}]; l != nil {
			for _, m := range l.messages {
				weight[m] = true
			}
		}
		if first < 0 || d.limits.Count < len(kept) {
			t.Fatalf("%s: of %d messages %d are kept; the limit is %d", topic, len(all), len(kept), d.limits.Count)
		}
		for i, position := range kept {
			if position != all[first+i].Position.Major {
				t.Fatalf("%s: what is kept is not the end of what was written: %v", topic, kept)
			}
		}
		lost := d.lost(Topics(topic), nil, Position{})
		if first > 0 && all[first-1].Position.After(lost) {
			t.Fatalf("%s: %v is no longer kept, and the newest loss is said to be at %v", topic, all[first-1].Position, lost)
		}
		pattern := strings.Split(topic, "/")[0] + "/*"
		for _, p := range []Position{{}, {50, 0}, {200, 0}, {290, 0}} {
			if lost := d.lost(nil, []string{pattern}, p); first > 0 && all[first-1].Position.After(p) && all[first-1].Position.After(lost) {
				t.Fatalf("%s: after %v a loss is not one to %s", topic, p, pattern)
			}
			beyond := 0
			for _, position := range kept {
				if position > p.Major {
					beyond++
				}
			}
			if got := d.kept(p, pattern); len(got) < beyond {
				t.Fatalf("%s: after %v %d messages are kept, and %d of %s", topic, p, beyond, len(got), pattern)
			}
		}
	}
	var bytes int64
	for m := range weight {
		bytes += int64(m.size())
	}
	if bytes != d.bytes || d.limits.Bytes > 0 && bytes > d.limits.Bytes {
		t.Fatalf("%d bytes are kept, %d are counted, %d are allowed", bytes, d.bytes, d.limits.Bytes)
	}
}
