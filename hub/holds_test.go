//go:build holdtimes && linux

package hub

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// How long the hub's lock is held, by kind of step, beside 100,000 kept topics, patterns and clients:
//
//	go test -tags holdtimes -run TestHolds -v ./hub
func TestHolds(t *testing.T) {
	h, begin := crowded(t)
	holds.take()
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"publish", func() { publishMany(h, 100_000) }},
		{"publish to 100 topics", func() {
			var names []string
			for i := range 100 {
				names = append(names, fmt.Sprintf("room/%d/x", i*500))
			}
			for range 300 {
				_, _ = h.Append(&Message{To: Topics(names...), Data: payload}, begin.Epoch)
			}
		}},
		{"publish 1 MiB", func() {
			big := make([]byte, 1<<20)
			for range 20 {
				_, _ = h.Append(&Message{To: Topics("big"), Data: big}, begin.Epoch)
			}
		}},
		{"publish beside patterns that begin alike", func() {
			topic, names := alike()
			var clients []*Client
			for some := range slices.Chunk(names, 100) {
				clients = append(clients, enter(t, h, patterns(some...)))
			}
			for range 20 {
				deliver(h, topic, begin.Epoch)
			}
			for _, c := range clients {
				h.Leave(c, ErrGone)
			}
		}},
		{"join, 100 patterns", func() { joinMany(t, h, 100, "") }},
		{"resume, 100 patterns", func() { joinMany(t, h, 100, begin.String()) }},
		{"unknown ID, 100 patterns", func() { joinMany(t, h, 20, "rubbish") }},
		{"resume, 100 topics", func() {
			var names []string
			for i := range 100 {
				names = append(names, fmt.Sprintf("room/%d/x", i*700))
			}
			for range 300 {
				s := topics(names...)
				s.LastEventID = begin.String()
				h.Leave(enter(t, h, s), ErrGone)
			}
		}},
		{"replay of **", func() {
			s := patterns("**")
			s.LastEventID = begin.String()
			c := enter(t, h, s)
			for c.sentMessages.Load() < 200_000 {
				time.Sleep(time.Millisecond)
			}
			h.Leave(c, ErrGone)
		}},
		{"replay of 100 patterns beside publishing", func() {
			for range 20 {
				s := patterns(wide()...)
				s.LastEventID = begin.String()
				c := enter(t, h, s)
				publishMany(h, 2000)
				h.Leave(c, ErrGone)
			}
		}},
		{"the latest of **", func() {
			s := patterns("**")
			s.Since = Since{Latest: true}
			for range 3 {
				c := enter(t, h, s)
				for c.sentMessages.Load() < 100_000 {
					publishMany(h, 100)
				}
				h.Leave(c, ErrGone)
			}
		}},
		{"the latest of 100 patterns beside publishing", func() {
			for range 20 {
				s := patterns(wide()...)
				s.Since = Since{Latest: true}
				c := enter(t, h, s)
				publishMany(h, 2000)
				h.Leave(c, ErrGone)
			}
		}},
		{"100,000 values that are held", func() {
			h.Apply(Limits{
				History:  HistoryLimits{Count: 10, Age: time.Hour},
				Policies: []Policy{{Pattern: "room/*/x", Conflate: true, Interval: time.Second}},
			})
			for range 3 {
				publishMany(h, 200_000)
				time.Sleep(2 * time.Second) // in which all leave
			}
			publishMany(h, 200_000)
			h.Apply(Limits{History: HistoryLimits{Count: 10, Age: time.Hour}}) // and all that are left
		}},
		{"users come and go", func() {
			for i := range 2 * maxExpiries {
				s := topics("lobby")
				s.ClientID, s.User = fmt.Sprint("made-up-", i), "alice"
				h.Leave(enter(t, h, s), ErrGone)
			}
		}},
		{"waiting for IDs", func() {
			h.Follow(Origin{Epoch: "shared", Sparse: true, Shared: true, Keeps: 1 << 20})
			h.Announce("log_lost")
			h.LogFound()
			ctx, cancel := context.WithCancel(t.Context())
			var waiting sync.WaitGroup
			for i := range maxArrivals {
				waiting.Go(func() { h.AwaitID(ctx, ID{"shared", Position{uint64(i + 1), 7}}.String()) })
			}
			for n := 0; n < maxArrivals; {
				time.Sleep(time.Millisecond)
				h.mu.Lock()
				n = len(h.arrivals)
				h.mu.Unlock()
			}
			h.Lose(Position{1 << 40, 0}, "history_trimmed")
			waiting.Wait()
			cancel()
		}},
		{"a sparse log", func() {
			for i := range uint64(1_000_000) {
				n := h.Deliver(&Message{To: Topics("news"), Data: payload[:1], Position: Position{1<<40 + i + 1, 0}})
				h.Wait(t.Context(), n)
			}
		}},
		{"marks of a file", func() {
			gone := make(map[Address]Position)
			for i := range uint64(1 << 16) {
				gone[Address{ToTopic, fmt.Sprint("gone/", i)}] = Position{i + 1, 0}
			}
			h.Follow(Origin{Epoch: NewEpoch(), Trims: true})
			h.ForgetOnly(gone, Position{})
			h.Announce("broker_changed")
			publishMany(h, 300_000)
		}},
		{"listening", func() { h.Listening(true); h.Listening(true); h.Listening(false); h.StopListening() }},
		{"owners", func() { h.Owners() }},
		{"lists", func() {
			h.ListTopics("", 100)
			h.ListClients(ClientQuery{Limit: 100})
			all := choice{query: ClientQuery{}, most: 1000}
			var most time.Duration
			for _, s := range h.shards {
				for at := math.MaxInt; at > 0; {
					h.askShard(s, func(s *shard) {
						began := threadTime()
						at = all.look(s, at)
						most = max(most, threadTime()-began)
					})
				}
			}
			t.Logf("%-40s %-18s longest %8v", "lists", "of a shard", most)
			h.ListMessages("room/1/x", 100)
		}},
		{"reload: fewer messages", func() {
			h.Apply(Limits{History: HistoryLimits{Count: 2, Age: time.Hour}})
		}},
		{"reload: fewer bytes, publishing", func() {
			done := make(chan struct{})
			go func() {
				defer close(done)
				publishMany(h, 20_000)
			}()
			h.Apply(Limits{History: HistoryLimits{Count: 2, Age: time.Hour, Bytes: 4 << 20}})
			<-done
		}},
		{"presence everywhere", func() {
			h.Apply(Limits{
				History: HistoryLimits{Count: 2, Age: time.Hour}, Policies: []Policy{{Pattern: "**", Presence: true}},
			})
			h.Members(true, time.Now())
			for range 3 {
				c := enter(t, h, patterns("room/**", "hall/**"))
				time.Sleep(2 * time.Second) // in which all topics are told of it
				h.PresenceOf("room/1/x")
				h.Members(false, time.Now())
				h.Leave(c, ErrGone)
			}
			var all []*Client
			for range 50_000 {
				s := topics("lobby")
				s.User = NewEpoch()
				all = append(all, enter(t, h, s))
			}
			time.Sleep(2 * time.Second)
			h.PresenceOf("lobby")
			h.Members(false, time.Now())
			for _, c := range all {
				h.Leave(c, ErrGone)
			}
			time.Sleep(2 * time.Second)
			h.Apply(Limits{History: HistoryLimits{Count: 2, Age: time.Hour}})
		}},
		{"sweep", func() {
			publishMany(h, 200_000)
			h.Apply(Limits{History: HistoryLimits{Count: 10, Age: time.Nanosecond}})
			h.sweep()
		}},
		{"another log", func() {
			h.Follow(Origin{Epoch: NewEpoch(), Trims: true})
			h.Announce("broker_changed")
			h.Claimed()
		}},
		{"drain", func() { h.Drain() }},
	} {
		step.do()
		settled(h)
		all := holds.take()
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if a := all[name]; a.most > 20*time.Microsecond || a.n > 1000 {
				t.Logf("%-40s %-18s %7d x, median %8v, 99.9%% %8v, longest %8v",
					step.name, name, a.n, a.median, a.mostOften, a.most)
			}
		}
	}
	h.Close()
	h.eachClient(func(c *Client) { go h.Leave(c, ErrGone) })
	h.WaitEmpty(time.Minute)
}

// crowded returns a hub with 100,000 topics kept, 100,000 patterns and 100,000 clients, a tenth of them users', and
// where its log began.
func crowded(t *testing.T) (*Hub, ID) {
	h := NewHub(Limits{History: HistoryLimits{Count: 10, Age: time.Hour}})
	begin := h.Position()
	publishMany(h, 300_000)
	for i := range 1000 {
		var names []string
		for j := range 100 {
			names = append(names, fmt.Sprintf("hall/%d/*", i*100+j))
		}
		enter(t, h, patterns(names...))
	}
	for i := range 99_000 {
		s := topics("room/" + strconv.Itoa(i) + "/x")
		if i%10 == 0 {
			s.User = "user" + strconv.Itoa(i)
		}
		enter(t, h, s)
	}
	settled(h)
	return h, begin
}

func publishMany(h *Hub, n int) {
	epoch := h.Position().Epoch
	for i := range n {
		deliver(h, fmt.Sprintf("room/%d/x", i%100_000), epoch)
	}
}

// wide returns 100 patterns, each of which may match a part of all topics.
func wide() (names []string) {
	for i := range 99 {
		names = append(names, fmt.Sprintf("*/%d/*", i*997))
	}
	return append(names, "room/*/x")
}

func joinMany(t *testing.T, h *Hub, n int, id string) {
	for range n {
		s := patterns(wide()...)
		s.LastEventID = id
		h.Leave(enter(t, h, s), ErrGone)
	}
}

// alike returns a topic and 65,536 patterns that have its beginning, in some spelling, and do not match it.
func alike() (topic string, patterns []string) {
	patterns = []string{""}
	for range 16 {
		topic += "a/"
		for _, p := range patterns {
			patterns = append(patterns, p+"*/")
		}
		for i := range len(patterns) / 2 {
			patterns[i] += "a/"
		}
	}
	for i := range patterns {
		patterns[i] += "x"
	}
	return topic + "y", patterns
}
