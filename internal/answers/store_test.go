package answers

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// plenty are bounds that no test reaches by accident.
var plenty = Bounds{
	MaxBytes: 1 << 20, MaxTime: time.Hour, MaxTotal: 1 << 30, MaxLive: 100, Abandon: time.Minute, TTL: 10 * time.Minute,
}

// asked is an answer with what became of its upstream.
type asked struct {
	*Answer
	t      *testing.T
	causes func() []error // why it was cancelled
}

// open asks as the first.
func open(t *testing.T, s *Store, change ...func(*Request)) asked {
	t.Helper()
	r := Request{URL: "/chat", Host: "example.com", Bounds: plenty}
	for _, f := range change {
		f(&r)
	}
	var mu sync.Mutex
	var causes []error
	a, mine, err := s.Open(context.Background(), &r, func(cause error) {
		mu.Lock()
		defer mu.Unlock()
		causes = append(causes, cause)
	})
	if err != nil || !mine {
		t.Fatalf("opening an answer: %v, %v", mine, err)
	}
	return asked{a, t, func() []error {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(causes)
	}}
}

// begin makes it an event stream.
func (a asked) begin() asked {
	a.t.Helper()
	if !a.Begin(Head{Kind: Events, Header: map[string][]string{}}) {
		a.t.Fatal("the answer is not kept")
	}
	return a
}

func (a asked) say(text string) {
	a.t.Helper()
	if own, err := a.Write([]byte(text)); own != nil || err != nil {
		a.t.Fatalf("writing %q: %q, %v", text, own, err)
	}
}

// rest returns all that follows a number, without the answer's ID, and how it ends.
func (a asked) rest(after uint64) (string, End) {
	a.t.Helper()
	r, err := a.Read(after)
	if err != nil {
		return err.Error(), Open
	}
	defer r.Close()
	return drain(r)
}

func drain(r *Reader) (string, End) {
	var all strings.Builder
	buf := make([]byte, 0, 64)
	for {
		out, end := r.Next(buf)
		if len(out) == 0 {
			return strings.ReplaceAll(all.String(), r.answer.ID, "ID"), end
		}
		all.Write(out)
	}
}

func (a asked) wantRest(after uint64, want string, wantEnd End) {
	a.t.Helper()
	if got, end := a.rest(after); got != want || end != wantEnd {
		a.t.Errorf("after %d: got %q, %d\nwant %q, %d", after, got, end, want, wantEnd)
	}
}

func (a asked) wantState(state State, reason Reason, causes ...error) {
	a.t.Helper()
	if s, r := a.State(); s != state || r != reason {
		a.t.Errorf("it is %s %s; want %s %s", s, r, state, reason)
	}
	if got := a.causes(); !slices.Equal(got, causes) {
		a.t.Errorf("the upstream was cancelled with %v; want %v", got, causes)
	}
}

func (s *Store) has(t *testing.T, owner, id string) bool {
	t.Helper()
	a, _ := s.Find(context.Background(), &Request{Owner: owner}, id)
	if a == nil {
		return false
	}
	a.Leave()
	return true
}

func TestReadersReadFromWhereTheyHaveBeen(t *testing.T) {
	a := open(t, NewStore()).begin()
	early, err := a.Read(0)
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	a.say("data: one\n\n: a comment\n\nda")
	<-early.Wake()
	if got, end := drain(early); got != "id: ID.1\ndata: one\n\n: a comment\n\n" || end != Open {
		t.Errorf("got %q, %d", got, end)
	}
	a.say("ta: two\n\n")
	long := "data: " + strings.Repeat("x", 200_000) + "\n\n"
	a.say(long)
	a.wantRest(1, ": a comment\n\nid: ID.2\ndata: two\n\nid: ID.3\n"+long, Open)
	a.wantRest(3, "", Open)
	a.wantRest(4, ErrNeverGiven.Error(), Open)
	a.End(true)
	a.wantRest(2, "id: ID.3\n"+long, InGoodOrder)
	a.wantRest(3, ErrOver.Error(), Open)
	if got, end := drain(early); got != "id: ID.2\ndata: two\n\nid: ID.3\n"+long || end != InGoodOrder {
		t.Errorf("got %d bytes, %d", len(got), end)
	}
	a.wantState(Done, "")
	a.Leave()
	a.store.Close(ErrExit)
}

// What a reader gets depends on where it has been, and never on when it comes: also what belongs to no event, as
// comments before the first, between two, and behind the last.
func TestReadersGetTheSameWheneverTheyCome(t *testing.T) {
	said := []string{
		": hello\n\n", "data: a\n", "\n: be", "tween\n\n\n", "data: b\r\n\r", "\n", "\n: more\r\r", ":\n\ndata: c\n\n", ": bye\n\n", ": end",
	}
	rest := []string{
		": hello\n\nid: ID.1\ndata: a\n\n: between\n\n\nid: ID.2\ndata: b\r\n\r\n\n: more\r\r:\n\nid: ID.3\ndata: c\n\n: bye\n\n: end",
		": between\n\n\nid: ID.2\ndata: b\r\n\r\n\n: more\r\r:\n\nid: ID.3\ndata: c\n\n: bye\n\n: end",
		"\n\n: more\r\r:\n\nid: ID.3\ndata: c\n\n: bye\n\n: end",
		": bye\n\n: end",
	}
	for came := range len(said) + 1 { // after how many writes
		a := open(t, NewStore()).begin()
		var readers []*Reader
		for i := range len(said) + 1 {
			if i == came {
				first, err := a.ReadFirst()
				if err != nil {
					t.Fatal(err)
				}
				readers = append(readers, first)
				for n := range a.Status().Events + 1 {
					r, err := a.Read(n)
					if err != nil {
						t.Fatal(err)
					}
					readers = append(readers, r)
				}
			}
			if i < len(said) {
				a.say(said[i])
			}
		}
		a.End(true)
		for i, r := range readers {
			want := rest[max(0, i-1)]
			if got, end := drain(r); got != want || end != InGoodOrder {
				t.Errorf("reader %d, who came after %d writes, got %q, %d\nwant %q", i, came, got, end, want)
			}
			r.Close()
		}
		for n := range uint64(3) {
			a.wantRest(n, rest[n], InGoodOrder)
		}
		a.wantRest(3, ErrOver.Error(), Open)
	}
}

func TestWhoAskedGetsAnAnswerWithoutEvents(t *testing.T) {
	a := open(t, NewStore()).begin()
	a.say(": hello\n\n")
	a.End(true)
	first, err := a.ReadFirst()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if got, end := drain(first); got != ": hello\n\n" || end != InGoodOrder {
		t.Errorf("got %q, %d", got, end)
	}
	a.wantRest(0, ErrOver.Error(), Open)
}

func TestAnAnswerTakesLittleRoom(t *testing.T) {
	a := open(t, NewStore()).begin()
	const events, each = 5000, 40
	block := "data: " + strings.Repeat("x", each-8) + "\n\n"
	for range events {
		a.say(block)
	}
	if room, most := a.store.Stats().Bytes, int64(events*(each*3/2+48)); room > most {
		t.Errorf("%d events of %d bytes take %d; want at most %d", events, each, room, most)
	}
	a.End(true)
	a.Leave()
	a.store.Close(ErrExit)
}

func TestKeysAndNamesFindAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		body := sha256.Sum256([]byte("a question"))
		keyed := func(r *Request) { r.Owner, r.Key, r.Body, r.Name = "alice", "k", body, "run" }
		first := open(t, s, keyed)
		again := func(change func(*Request)) (*Answer, bool, error) {
			r := Request{URL: "/chat", Host: "example.com", Bounds: plenty}
			keyed(&r)
			change(&r)
			a, mine, err := s.Open(context.Background(), &r, func(error) {})
			if a != nil {
				a.Leave()
			}
			return a, mine, err
		}
		if a, mine, err := again(func(*Request) {}); a != first.Answer || mine || err != nil {
			t.Errorf("the same key got %v, %v", mine, err)
		}
		if _, _, err := again(func(r *Request) { r.Body[0]++ }); !errors.Is(err, ErrKeyReused) {
			t.Errorf("the same key with another body got %v", err)
		}
		for name, change := range map[string]func(*Request){
			"owner": func(r *Request) { r.Owner, r.Name = "bob", "" },
			"URL":   func(r *Request) { r.URL, r.Name = "/other", "" },
			"host":  func(r *Request) { r.Host, r.Name = "example.org", "" },
		} {
			if a, mine, _ := again(change); a == first.Answer || !mine {
				t.Errorf("another %s is no other request", name)
			}
		}
		named := func(owner string) *Answer {
			a, _ := s.Named(context.Background(), &Request{Owner: owner, Host: "example.com", Name: "run"})
			if a != nil {
				a.Leave()
			}
			return a
		}
		if named("alice") != first.Answer || named("bob") != nil {
			t.Error("a name is not its owner's")
		}
		if s.has(t, "bob", first.ID) || s.has(t, "", first.ID) || !s.has(t, "alice", first.ID) {
			t.Error("an answer is not its owner's")
		}
		second := open(t, s, func(r *Request) { r.Owner, r.Name = "alice", "run" })
		if named("alice") != second.Answer {
			t.Error("a new answer does not take the name over")
		}
		first.Pass()
		if _, mine, _ := again(func(r *Request) { r.Name = "" }); !mine {
			t.Error("a key stays with an answer that is nothing to keep")
		}
		if named("alice") != second.Answer {
			t.Error("the older answer took the name along")
		}
		s.Close(ErrExit)
	})
}

func TestBoundsAbortAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		small := open(t, s, func(r *Request) { r.MaxBytes = 30 }).begin()
		small.say("data: one\n\n")
		if _, err := small.Write([]byte("data: two\n\ndata: " + strings.Repeat("x", 20))); err == nil {
			t.Error("it takes more than it may")
		}
		small.wantState(Aborted, MaxBytes, ErrEnded)
		lost := func(number int, reason Reason) string {
			return fmt.Sprintf("id: ID.%d\n%s", number, reason.block())
		}
		small.wantRest(1, "id: ID.2\ndata: two\n\n"+lost(3, MaxBytes), InGoodOrder)
		small.wantRest(3, ErrOver.Error(), Open)
		if events := small.Status().Events; events != 2 {
			t.Errorf("%d events are told", events)
		}
		small.Leave()

		slow := open(t, s, func(r *Request) { r.MaxTime = time.Second }).begin()
		slow.say("data: one\n\n")
		time.Sleep(time.Second)
		synctest.Wait()
		slow.wantState(Aborted, MaxTime, ErrEnded)
		slow.wantRest(1, lost(2, MaxTime), InGoodOrder)

		pending := open(t, s, func(r *Request) { r.MaxTime = time.Second })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		pending.wantState(Pending, "") // it may be no stream at all
		pending.begin().wantState(Aborted, MaxTime, ErrEnded)
		s.Close(ErrExit)
	})
}

func TestWhatNobodyReadsIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		left := open(t, s).begin()
		kept := open(t, s, func(r *Request) { r.Abandon = 0 }).begin()
		left.Leave()
		kept.Leave()
		time.Sleep(59 * time.Second)
		if !s.has(t, "", left.ID) { // somebody asks, and leaves: it begins anew
			t.Fatal("it is gone")
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		left.wantState(Live, "")
		time.Sleep(time.Second)
		synctest.Wait()
		left.wantState(Aborted, Abandoned, ErrEnded)
		kept.wantState(Live, "")
		if stats := s.Stats(); stats.Abandoned != 1 || stats.Aborted != 0 || stats.Live != 1 || stats.Kept != 1 {
			t.Errorf("counted %+v", stats)
		}
		s.Close(ErrExit)
	})
}

func TestOfUpstreamsThatNobodyReadsTheLongestAloneGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		var all []asked
		for range 4 {
			all = append(all, open(t, s, func(r *Request) { r.MaxLive = 2 }).begin())
		}
		for _, a := range all[:3] {
			a.Leave()
		}
		all[0].wantState(Aborted, Abandoned, ErrEnded)
		for _, a := range all[1:] {
			a.wantState(Live, "")
		}
		s.Close(ErrExit)
		all[1].wantState(Aborted, OwnerLost, ErrEnded)
	})
}

func TestTheLongestEndedGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		var all []asked
		for i := range 4 {
			a := open(t, s, func(r *Request) {
				r.MaxTotal, r.Key = 100<<10, fmt.Sprint(i)
			}).begin()
			a.say("data: " + strings.Repeat("x", 20<<10) + "\n\n")
			a.say("data: two\n\n")
			if i != 1 { // which stays live
				a.End(true)
				a.Leave()
			}
			all = append(all, a)
		}
		trimmed, ok := errors.AsType[*TrimmedError](errOf(all[0].Read(1)))
		if !ok || trimmed.Oldest != 3 {
			t.Errorf("reading what gave way: %v", trimmed)
		}
		if _, err := all[0].Read(2); !errors.Is(err, ErrOver) {
			t.Errorf("who has had all is told %v", err)
		}
		for _, a := range all[1:] {
			if text, _ := a.rest(1); text != "id: ID.2\ndata: two\n\n" {
				t.Errorf("of another there is %q", text)
			}
		}
		open(t, s, func(r *Request) { r.Key = "0" }) // it may be asked again
		time.Sleep(plenty.TTL)
		synctest.Wait()
		for i, a := range all {
			if s.has(t, "", a.ID) != (i == 1) {
				t.Errorf("answer %d: after ttl it is there: %v", i, i != 1)
			}
		}
		s.Close(ErrExit)
	})
}

func errOf(_ *Reader, err error) error { return err }

func TestHeadsOfWhatGaveWayAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		for range 1000 {
			a := open(t, s, func(r *Request) { r.MaxTotal = 64 << 10 }).begin()
			a.say("data: x\n\n")
			a.End(true)
			a.Leave()
		}
		if stats := s.Stats(); stats.Bytes > 64<<10 || stats.Kept > 64 {
			t.Errorf("there are %d bytes of %d answers", stats.Bytes, stats.Kept)
		}
		s.Close(ErrExit)
	})
}

func TestStopEndsInGoodOrderAlsoBeforeTheFirstByte(t *testing.T) {
	s := NewStore()
	a := open(t, s).begin()
	a.say("data: one\n\nda")
	a.Stop()
	a.wantState(Stopped, "", ErrStopped)
	a.wantRest(0, "id: ID.1\ndata: one\n\n", InGoodOrder)
	a.End(false) // what the cancelled upstream does
	a.wantState(Stopped, "", ErrStopped)
	pending := open(t, s)
	pending.Stop()
	<-pending.Decided()
	pending.wantRest(0, ErrOver.Error(), Open)
	if pending.Begin(Head{}) {
		t.Error("what was stopped begins")
	}
	s.Close(ErrExit)
}

func TestOwnIDsArePassedOn(t *testing.T) {
	s := NewStore()
	a := open(t, s, func(r *Request) { r.Key = "k" }).begin()
	a.say("data: one\n\n")
	own, err := a.Write([]byte("data: two\n\nid: 9\ndata: three"))
	if string(own) != "id: 9\ndata: three" || err != nil {
		t.Errorf("passed on %q, %v", own, err)
	}
	a.wantRest(0, ErrNoStream.Error(), Open)
	first, err := a.ReadFirst()
	if err != nil {
		t.Fatal(err)
	}
	if got, end := drain(first); got != "id: ID.1\ndata: one\n\nid: ID.2\ndata: two\n\n" || end != Cut {
		t.Errorf("its own request got %q, %d", got, end)
	}
	if s.has(t, "", a.ID) || s.Stats().Bytes != 0 {
		t.Error("it is kept")
	}
	s.Close(ErrExit)
}

func TestLinesThatLackTheirEndAreCut(t *testing.T) {
	s := NewStore()
	a := open(t, s)
	a.Begin(Head{Kind: Lines})
	a.say("{}\n{}\n{")
	a.wantRest(1, "{}\n", Open)
	a.End(false)
	a.wantRest(0, "{}\n{}\n", Cut)
	a.wantRest(2, "", Cut)
	s.Close(ErrExit)
}

func TestEventIDs(t *testing.T) {
	id := newID()
	for text, want := range map[string]struct {
		id     string
		number uint64
		err    error
	}{
		id + ".1":                       {id, 1, nil},
		id + ".0":                       {id, 0, nil},
		id + ".18446744073709551615":    {id, 1<<64 - 1, nil},
		id + ".18446744073709551616":    {id, 0, ErrMalformed},
		id + ".01":                      {id, 0, ErrMalformed},
		id + ".+1":                      {id, 0, ErrMalformed},
		id + ".":                        {id, 0, ErrMalformed},
		id + ".1.2":                     {id, 0, ErrMalformed},
		id:                              {id, 0, ErrMalformed},
		id + "A.1":                      {},
		"sse-1":                         {},
		"sse.1":                         {},
		"":                              {},
		strings.ToLower(id) + ".1":      {},
		"chatcmpl-123":                  {},
		strings.Repeat("\x00", 40):      {},
		"sse" + strings.Repeat("é", 13): {},
	} {
		got, number, err := ParseEventID(text)
		if got != want.id || number != want.number || !errors.Is(err, want.err) {
			t.Errorf("%q: %q, %d, %v", text, got, number, err)
		}
	}
}
