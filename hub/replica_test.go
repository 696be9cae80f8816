package hub_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestAnotherLogIsAGapToEveryClientAndItsIDsToItAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		begin := h.Position().String()
		h.PublishAll("a", 1, 30)
		catchingUp := h.Enter(hubtest.Returning(hubtest.With("a"), begin))
		catchingUp.Let(10)
		catchingUp.Want(hubtest.Numbers(1, 10)...)
		live, waiting := h.Join(hubtest.With("a")), h.Join(hubtest.With("b"))
		waiting.Block()
		h.Publish(hub.Topics("b"), "old")
		old := h.Position().String()

		h.Switch(hub.Origin{Epoch: "new"}, "broker_changed")
		h.Publish(hub.Topics("a", "b"), "new")
		waiting.Open()
		waiting.Want("old", hubtest.Gap("broker_changed"), "new")
		hubtest.Want(t, live.Events(), hubtest.Event{Text: hubtest.Gap("broker_changed"), ID: "new-0"},
			hubtest.Event{Text: "new", ID: "new-1"})
		catchingUp.Open()
		got := catchingUp.Texts() // what was kept of the old log is no more
		hubtest.Want(t, got[len(got)-2:], hubtest.Gap("broker_changed"), "new")
		hubtest.Want(t, got[:len(got)-2], hubtest.Numbers(11, 30)[:len(got)-2]...)

		h.Join(hubtest.Returning(hubtest.With("a"), old)).WantResume(hub.ResumeGap, "new-0", "new")
		h.Join(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeGap, "new-0", "new")
		h.Join(hubtest.Returning(hubtest.With("a"), "new-0")).WantResume(hub.ResumeComplete, "new-0", "new")
	})
}

// What it had still to be given of history went with the old log, though the ring has what came since then.
func TestWhoIsCatchingUpIsToldOfAnotherLogBeforeAnythingElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		begin := h.Position().String()
		h.PublishAll("a", 1, 30)
		c := h.Enter(hubtest.Returning(hubtest.With("a"), begin))
		c.Let(10)
		c.Want(hubtest.Numbers(1, 10)...)
		h.PublishAll("a", 31, 35)
		h.Switch(hub.Origin{Epoch: "new"}, "broker_changed")
		h.Publish(hub.Topics("a"), "new")
		c.Open()
		c.Want(hubtest.Gap("broker_changed"), "new")
	})
}

// Also where nothing is left of the ring in which they would have read it.
func TestEveryoneIsToldOfAnotherLogHoweverFarBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		hub.Shrink(h.Hub, 5, 32, 5)
		behind, farBehind := h.Join(hubtest.With("a")), h.Join(hubtest.With("a"))
		farBehind.Block()
		h.PublishAll("a", 1, 50)
		behind.Want(hubtest.Numbers(1, 50)...)
		behind.Block()
		for i := range 3 {
			h.Switch(hub.Origin{Epoch: fmt.Sprint("new", i)}, "broker_changed")
			h.PublishAll("b", 1, 20)
		}
		h.Publish(hub.Topics("a"), "new")
		for _, c := range []*hubtest.Client{behind, farBehind} {
			c.Open()
			got := c.Texts()
			if len(got) < 2 || got[len(got)-1] != "new" || got[len(got)-2] != hubtest.Gap("broker_changed") {
				t.Errorf("got %v", hubtest.Brief(got))
			}
		}
	})
}

func TestARestoredLogResumesClientsOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 3}})
		live := h.Join(hubtest.With("a"))
		h.Follow(hub.Origin{Epoch: "log", Lost: hub.Position{Major: 2}})
		for i, text := range []string{"3", "4", "5", "6"} {
			h.Restore(&hub.Message{To: hub.Topics("a"), Data: []byte(text), Position: hub.Position{Major: uint64(i + 3)}})
		}
		h.Announce("log_changed")
		hubtest.Want(t, live.Events(), hubtest.Event{Text: hubtest.Gap("log_changed"), ID: "log-6"})

		back := func(id, topic string) *hubtest.Client { return h.Join(hubtest.Returning(hubtest.With(topic), id)) }
		back("log-4", "a").WantResume(hub.ResumeComplete, "log-4", "5", "6")
		back("log-3", "a").WantResume(hub.ResumeComplete, "log-3", "4", "5", "6")
		back("log-2", "a").WantResume(hub.ResumeGap, "log-2", "4", "5", "6") // 3 is over the count
		back("log-2", "b").WantResume(hub.ResumeComplete, "log-2")
		back("log-1", "b").WantResume(hub.ResumeGap, "log-1") // who knows what the log has lost
		back("log-7", "b").WantResume(hub.ResumeGap, "log-6")
	})
}

// What a log had from before is for those who come back, also when one who was here reads on in the middle of it.
func TestWhatALogRestoresIsNotForWhoIsHere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		hub.Shrink(h.Hub, 12, 32, 8)
		c := h.Join(hubtest.With("a"))
		c.Block()
		h.Publish(hub.Topics("a"), "old")
		h.Follow(hub.Origin{Epoch: "new"})
		at := hub.Position{}
		restore := func(topic string, n int) {
			for range n {
				at.Major++
				h.Restore(&hub.Message{To: hub.Topics(topic), Data: []byte("restored"), Position: at})
				settle()
			}
		}
		restore("b", 10) // more than it looks at in a turn
		c.Let(1)
		c.Want("old")
		restore("a", 20) // more than the ring holds
		c.Open()
		settle()
		h.Announce("log_changed")
		h.Publish(hub.Topics("a"), "new")
		c.Want(hubtest.Gap("log_changed"), "new")
	})
}

func TestWhatALogForgotBeforeItsRestartIsKnown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Follow(hub.Origin{Epoch: "log"})
		h.ForgetAll(hub.Position{Major: 3})
		h.Forget(hub.Address{Kind: hub.ToTopic, Name: "a"}, hub.Position{Major: 5})
		h.Restore(&hub.Message{To: hub.Topics("a", "b"), Data: []byte("6"), Position: hub.Position{Major: 6}})
		h.Forget(hub.Address{Kind: hub.ToTopic, Name: "b"}, hub.Position{Major: 4})
		h.Advance(hub.Position{Major: 8})
		h.Advance(hub.Position{Major: 7}) // which it has passed
		h.Announce("test")
		for topic, lost := range map[string]uint64{"a": 5, "b": 4, "c": 3, "*": 5} {
			for p := range uint64(9) {
				want, id := hub.ResumeComplete, hub.ID{Epoch: "log", Position: hub.Position{Major: p}}.String()
				if p < lost {
					want = hub.ResumeGap
				}
				if c := h.Join(hubtest.Returning(hubtest.With(topic), id)); c.Resume != want || c.Welcome.ID != id {
					t.Errorf("%s after %s: %q at %s; want %q, as %d is lost", topic, id, c.Resume, c.Welcome.ID, want, lost)
				}
			}
		}
		if got := h.Lost(hub.Topics("a")[0]); got.Major != 5 {
			t.Errorf("the newest loss of a is said to be %v", got)
		}
		h.Join(hubtest.Returning(hubtest.With("a"), "log-9")).WantResume(hub.ResumeGap, "log-5", "6")
		h.Join(hubtest.Returning(hubtest.With("c"), "log-9")).WantResume(hub.ResumeGap, "log-8")
	})
}

func TestASparseLogKnowsTheIDsItGaveOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Switch(hub.Origin{Epoch: "log", Sparse: true, Lost: hub.Position{Major: 5, Minor: 1}}, "test")
		first := h.Enter(hubtest.With("a"))
		for _, p := range []hub.Position{{Major: 7}, {Major: 7, Minor: 1}, {Major: 9, Minor: 3}} {
			h.Deliver(&hub.Message{To: hub.Topics("a"), Data: []byte(p.String()), Position: p})
		}
		back := func(id string) *hubtest.Client { return h.Join(hubtest.Returning(hubtest.With("a"), id)) }
		back(first.Welcome.ID).WantResume(hub.ResumeComplete, "log-5-1", "7", "7-1", "9-3")
		back("log-7").WantResume(hub.ResumeComplete, "log-7", "7-1", "9-3")
		back("log-9-3").WantResume(hub.ResumeComplete, "log-9-3")
		for _, unknown := range []string{"log-7-2", "log-8", "log-6", "log-5", "log-9-4"} {
			back(unknown).WantResume(hub.ResumeGap, "log-5-1", "7", "7-1", "9-3")
		}
		back("log-0").WantResume(hub.ResumeGap, "log-0", "7", "7-1", "9-3")
	})
}

func TestALossInTheLogIsToldOnceWhereItStoodAndKnown(t *testing.T) {
	for _, sparse := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			h := hubtest.New(t, hubtest.Plenty)
			h.Switch(hub.Origin{Epoch: "log", Sparse: sparse}, "test")
			h.PublishAll("a", 1, 30)
			live := h.Join(hubtest.With("a"))
			catchingUp := h.Enter(hubtest.Returning(hubtest.With("a"), "log-0"))
			catchingUp.Let(10)
			catchingUp.Want(hubtest.Numbers(1, 10)...)

			h.Lose(hub.Position{Major: 40}, "history_trimmed")
			h.PublishAll("a", 41, 42)
			events := live.Events()
			hubtest.Want(t, hubtest.TextsOf(events), hubtest.Gap("history_trimmed"), "41", "42")
			hubtest.Want(t, []string{events[0].ID}, "log-40")
			catchingUp.Open()
			catchingUp.Want(slices.Concat(hubtest.Numbers(11, 30), []string{hubtest.Gap("history_trimmed"), "41", "42"})...)

			check := func() {
				t.Helper()
				back := func(id, topic string) *hubtest.Client { return h.Join(hubtest.Returning(hubtest.With(topic), id)) }
				back("log-30", "a").WantResume(hub.ResumeGap, "log-30", "41", "42")
				back("log-30", "*").WantResume(hub.ResumeGap, "log-30", "41", "42")
				back("log-30", "b").WantResume(hub.ResumeGap, "log-30") // who knows
				back("log-40", "a").WantResume(hub.ResumeComplete, "log-40", "41", "42")
				back("log-41", "a").WantResume(hub.ResumeComplete, "log-41", "42")
				if lost := h.Lost(hub.Topics("any")[0]); lost.Major != 40 {
					t.Errorf("the newest loss is said to be %v", lost)
				}
			}
			check()
			hub.Shrink(h.Hub, 5, 32, 10)
			for i := range 100 { // and what told of it is no more
				h.Publish(to(hub.ToClient, "nobody"), strconv.Itoa(i))
				settle()
			}
			check()
		})
	}
}

func TestALossIsToldOnceThoughWhatToldOfItIsGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		hub.Shrink(h.Hub, 5, 32, 10)
		c := h.Join(hubtest.With("a"))
		c.Block()
		h.PublishAll("a", 1, 3)
		h.Lose(hub.Position{Major: 10}, "history_trimmed")
		settle() // that the shard goes on is what the ring waits for
		h.PublishAll("a", 11, 30)
		c.Open()
		c.Want(slices.Concat([]string{hubtest.Gap("slow_client")}, hubtest.Numbers(1, 3), hubtest.Numbers(11, 30))...)
	})
}

func TestAHubThatReturnsToALogItLeftSaysGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		follow := func(epoch string, kept ...string) {
			h.Follow(hub.Origin{Epoch: epoch})
			for i, text := range kept {
				h.Restore(&hub.Message{To: hub.Topics("a"), Data: []byte(text), Position: hub.Position{Major: uint64(i + 1)}})
			}
			h.Announce("broker_changed")
		}
		back := func(id string) *hubtest.Client { return h.Join(hubtest.Returning(hubtest.With("a"), id)) }
		follow("first")
		h.PublishAll("a", 1, 2)
		follow("second")
		h.Publish(hub.Topics("a"), "meanwhile")
		back("second-0").WantResume(hub.ResumeComplete, "second-0", "meanwhile")
		follow("first", "1", "2")
		for _, id := range []string{"first-1", "first-2"} { // who was there with one of these has missed what was said meanwhile
			if c := back(id); c.Resume != hub.ResumeGap || c.Reason != "unknown_id" {
				t.Errorf("%s from before the return: %q", id, c.Resume)
			}
		}
		h.PublishAll("a", 3, 4)
		back("first-3").WantResume(hub.ResumeComplete, "first-3", "4")
		if c := back("first-2"); c.Resume != hub.ResumeGap {
			t.Errorf("first-2 from before the return: %q", c.Resume)
		}

		follow("first", "1", "2", "3", "4") // again, which is no departure
		back("first-3").WantResume(hub.ResumeComplete, "first-3", "4")
		if c := back("first-2"); c.Resume != hub.ResumeGap {
			t.Errorf("first-2 from before the return: %q", c.Resume)
		}
	})
}

func TestAHubThatReturnsToALogOverRestartsSaysGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var past hub.Past
		noted := 0
		type log struct {
			hub.Origin
			end uint64
		}
		file, other, memory := hub.Origin{Epoch: "file"}, hub.Origin{Epoch: "other"}, hub.Origin{Transient: true}
		for i, process := range []struct {
			name           string
			logs           []log    // followed one after the other
			complete, gaps []string // what IDs are told
			notes          int      // how often the past has changed
		}{
			{"memory, before anything", []log{{memory, 3}}, nil, nil, 0},
			{"the first start", []log{{file, 2}}, []string{"file-1", "file-2"}, nil, 1},
			{"a restart", []log{{file, 3}}, []string{"file-1", "file-3"}, nil, 0},
			{"memory", []log{{memory, 7}}, nil, []string{"file-1", "file-3"}, 1},
			{"memory, a restart", []log{{memory, 5}}, nil, []string{"file-1"}, 0},
			{"a return", []log{{file, 3}}, nil, []string{"file-1", "file-3"}, 1},
			{"a restart after that", []log{{file, 5}}, []string{"file-4", "file-5"}, []string{"file-1", "file-3"}, 0},
			{"a reload to another and back", []log{{file, 5}, {other, 4}, {file, 6}}, nil, []string{"file-1", "file-6"}, 2},
			{"a restart with the other", []log{{other, 5}}, nil, []string{"other-1", "other-5", "file-6"}, 1},
		} {
			h := hubtest.New(t, hubtest.Plenty)
			noted = 0
			h.Recall(past, func(p hub.Past) { past, noted = p, noted+1 })
			for _, l := range process.logs {
				if l.Transient {
					l.Epoch = fmt.Sprint("memory", i)
				}
				h.Follow(l.Origin)
				h.Advance(hub.Position{Major: l.end})
				h.Announce("broker_changed")
			}
			for want, ids := range map[hub.Resume][]string{hub.ResumeComplete: process.complete, hub.ResumeGap: process.gaps} {
				for _, id := range ids {
					if c := h.Enter(hubtest.Returning(hubtest.With("a"), id)); c.Resume != want {
						t.Errorf("%s: %s is told %q", process.name, id, c.Resume)
					}
				}
			}
			if noted != process.notes {
				t.Errorf("%s: the past has changed %d times, want %d: %+v", process.name, noted, process.notes, past)
			}
		}
	})
}

func TestALogThatWasLeftLongAgoIsStillKnownToHaveBeenLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		for i := range 3 * hub.MaxLeft {
			h.Switch(hub.Origin{Epoch: fmt.Sprint("log", i)}, "broker_changed")
		}
		if n := hub.LeftoversOf(h.Hub).Left; n > hub.MaxLeft {
			t.Errorf("%d logs are remembered", n)
		}
		for i := range 3 * hub.MaxLeft {
			epoch := fmt.Sprint("log", i)
			h.Follow(hub.Origin{Epoch: epoch})
			h.Restore(&hub.Message{To: hub.Topics("a"), Position: hub.Position{Major: 1}})
			h.Announce("broker_changed")
			if c := h.Enter(hubtest.Returning(hubtest.With("b"), epoch+"-1")); c.Resume != hub.ResumeGap {
				t.Fatalf("%s is said to be complete", epoch)
			}
		}
	})
}

func TestAHubCountsItsListeners(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Join(hubtest.With("a", "b"))
		h.Join(hubtest.With("a", "*"))
		for want, to := range map[int][]hub.Address{
			3: hub.Topics("a"), 2: hub.Topics("b"), 5: hub.Topics("a", "b"), 1: hub.Topics("c"), 0: {{Kind: hub.ToUser, Name: "a"}},
		} {
			if got := h.Count(to); got != want {
				t.Errorf("%v has %d listeners; want %d", to, got, want)
			}
		}
		if got := h.Listening(false)[hub.Topics("a")[0]]; got != 2 {
			t.Errorf("%d clients listen at a; want 2", got)
		}
		h.Join(hubtest.With("a"))
		if got := h.Listening(false)[hub.Topics("a")[0]]; got != 3 {
			t.Errorf("%d clients listen at a; want 3", got)
		}
		h.StopListening()
	})
}

func TestALogThatTrimsIsToldWhatIsNoLongerKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 2}})
		h.Switch(hub.Origin{Epoch: "log", Trims: true}, "test")
		h.Publish(hub.Topics("a", "b"), "1")
		h.PublishAll("a", 2, 4)
		h.PublishEphemeral(hub.Topics("a"), "tick")
		var dropped []string
		for _, m := range h.Dropped() {
			dropped = append(dropped, fmt.Sprint(m.Position, " ", m.To))
		}
		hubtest.Want(t, dropped, "2 [topic a]") // b still has the first
		h.PublishAll("b", 5, 6)
		dropped = nil
		for _, m := range h.Dropped() {
			dropped = append(dropped, fmt.Sprint(m.Position, " ", m.To))
		}
		hubtest.Want(t, dropped, "1 [topic a topic b]")
		hubtest.Want(t, []int{len(h.Dropped())}, 0)
	})
}
