package boltlog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
	"github.com/caddy-sse/caddy-sse/topic"
)

// This test checks exact resume on a file that is trimmed, restarted, killed and cleaned at random. The test
// knows all that was ever published. It runs in a synctest bubble, where hours take no time.

func TestResumeIsExactOrAGapOverRestartsAndCrashes(t *testing.T) {
	complete, gaps, restarts := 0, 0, 0
	for _, limits := range []hub.HistoryLimits{
		{Count: 3}, {Count: 10, Age: 10 * time.Minute}, {Count: 100, Bytes: 2000}, {Count: 1000}, {},
	} {
		t.Run(fmt.Sprint(limits), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRecords(t, limits)
				for range 600 {
					r.step()
				}
				t.Logf("%d messages, %d restarts, %d times complete, %d gaps",
					len(r.book)-1, r.restarts, r.complete, r.gaps)
				complete, gaps, restarts = complete+r.complete, gaps+r.gaps, restarts+r.restarts
			})
		})
	}
	if complete < 50 || gaps < 50 || restarts < 50 {
		t.Error("this shows nothing")
	}
}

// records are a hub on a file, its regulars, and the book of everything published.
type records struct {
	*diskHub
	random   *rand.Rand
	book     [][]hub.Address // by position: positions go on when the log is renamed
	regulars []*regular

	restarts, complete, gaps int
}

// regular is a client that comes and goes, and comes back with any of the IDs it was told.
type regular struct {
	hub.Subscription
	told []string        // IDs
	here *hubtest.Client // nil while it is away
}

func newRecords(t testing.TB, limits hub.HistoryLimits) *records {
	r := &records{
		diskHub: newDiskHub(t, hub.Limits{History: limits}),
		random:  rand.New(rand.NewPCG(rand.Uint64(), 0)),
		book:    make([][]hub.Address, 1),
	}
	r.hasty = true
	topics := [][]string{{"a/1"}, {"a/1", "b/2"}, {"a/*"}, {"**"}, {}, {"b/0", "b/1", "b/2", "b/3"}}
	for i := range hubtest.Visitors {
		s := hubtest.With(topics[i%len(topics)]...)
		s.ClientID = fmt.Sprint("c", i)
		if i%2 == 0 {
			s.User = fmt.Sprint("u", i%4)
		}
		r.regulars = append(r.regulars, &regular{Subscription: s})
	}
	return r
}

// step makes one thing happen, at random.
func (r *records) step() {
	switch p := r.random.IntN(100); {
	case p < 45:
		r.post()
	case p < 80:
		v := r.regulars[r.random.IntN(len(r.regulars))]
		if v.here == nil {
			r.arrive(v)
		} else {
			r.depart(v)
		}
	case p < 90:
		time.Sleep(time.Duration(r.random.IntN(300)) * time.Second)
	case p < 94:
		r.again(r.restart)
	case p < 97:
		r.again(r.crash)
	case p < 98:
		r.again(func() {
			r.update(func(tx *bbolt.Tx) error {
				return put(tx.Bucket(metaBucket), unsyncedKey, []byte("another boot"))
			})
			r.crash()
		})
	default:
		ahead := time.Duration(r.random.IntN(120)) * time.Minute
		r.fold(time.Hour, 3+r.random.IntN(20), time.Now().Add(ahead))
		r.again(r.restart)
	}
}

// again ends all connections and the run, and begins another run.
func (r *records) again(begin func()) {
	for _, v := range r.regulars {
		r.depart(v)
	}
	r.restarts++
	begin()
}

// depart ends a regular's connection.
func (r *records) depart(v *regular) {
	if v.here != nil {
		v.here.Leave()
		v.here = nil
	}
}

// post publishes a few messages at once. The regulars that are here must get them.
func (r *records) post() {
	batch := make([]*broker.Publication, 1+r.random.IntN(4))
	var targets [][]hub.Address
	for i := range batch {
		to := hubtest.RandomTarget(r.random)
		targets = append(targets, to)
		batch[i] = &broker.Publication{Message: &hub.Message{To: to, Data: []byte(strconv.Itoa(len(r.book) + i))}}
	}
	if n, err := r.log.Publish(r.t.Context(), batch); n != len(batch) || err != nil {
		r.t.Fatalf("published %d of %d: %v", n, len(batch), err)
	}
	var ids []hub.ID
	for i, p := range batch {
		id, _ := hub.ParseID(p.Receipt.ID)
		if id != (hub.ID{Epoch: r.hub.Position().Epoch, Position: hub.Position{Major: uint64(len(r.book))}}) {
			r.t.Fatalf("the message after position %d got the ID %s", len(r.book)-1, id)
		}
		r.book = append(r.book, targets[i])
		ids = append(ids, id)
	}
	for _, v := range r.regulars {
		if v.here == nil {
			continue
		}
		wanted := slices.DeleteFunc(slices.Clone(ids), func(id hub.ID) bool {
			return !v.wants(r.book[id.Position.Major])
		})
		r.check(v, "while it was here", r.read(v), wanted)
	}
}

// wants reports whether a message to these addresses is for the regular.
func (v *regular) wants(to []hub.Address) bool {
	return slices.ContainsFunc(to, func(a hub.Address) bool {
		switch a.Kind {
		case hub.ToTopic:
			return topic.Covered(v.Topics, a.Name) || topic.Covered(v.Patterns, a.Name)
		case hub.ToClient:
			return a.Name == v.ClientID
		case hub.ToUser:
			return a.Name == v.User
		case hub.ToBroadcast:
		}
		return true
	})
}

// read returns the IDs of what a regular gets now.
func (r *records) read(v *regular) (ids []hub.ID) {
	for _, e := range v.here.Events() {
		id, ok := hub.ParseID(e.ID)
		if _, err := strconv.Atoi(e.Text); !ok || err != nil {
			r.t.Fatalf("a client got %+v", e)
		}
		v.told = append(v.told, e.ID)
		ids = append(ids, id)
	}
	return ids
}

// arrive brings a regular back, and compares what it gets with the book.
func (r *records) arrive(v *regular) {
	s := v.Subscription
	if n := len(v.told); n > 0 {
		s.LastEventID = v.told[max(0, n-1-r.random.IntN(1+r.random.IntN(n)))]
	}
	v.here = r.hub.Join(s)
	v.told = append(v.told, v.here.Welcome.ID)
	got := r.read(v)
	from, _ := hub.ParseID(s.LastEventID)
	now := r.hub.Position()
	var missed []hub.ID
	for p := from.Position.Major + 1; p <= now.Position.Major; p++ {
		if v.wants(r.book[p]) {
			missed = append(missed, hub.ID{Epoch: now.Epoch, Position: hub.Position{Major: p}})
		}
	}
	switch v.here.Resume {
	case hub.ResumeNone:
		r.check(v, "when it was new", got, nil)
	case hub.ResumeComplete:
		r.complete++
		if from.Epoch != now.Epoch {
			r.t.Errorf("%s is of another log, and the client is told %q", s.LastEventID, v.here.Resume)
		}
		r.check(v, "when it came back", got, missed)
	case hub.ResumeGap:
		r.gaps++
		if from.Epoch != now.Epoch {
			return
		}
		// The client gets some of what it missed, in order and each message once.
		some := slices.DeleteFunc(missed, func(id hub.ID) bool { return !slices.Contains(got, id) })
		r.check(v, "after a gap", got, some)
	}
}

// check compares the IDs that a regular got with those it should get.
func (r *records) check(v *regular, when string, got, wanted []hub.ID) {
	r.t.Helper()
	if !slices.Equal(got, wanted) {
		r.t.Fatalf("%v, told %q at %s, got %s\n%v\nwant\n%v",
			v.Subscription, v.here.Resume, v.here.Welcome.ID, when, hubtest.Brief(got), hubtest.Brief(wanted))
	}
}
