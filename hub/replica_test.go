package hub_test

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestAnotherLogIsAGapToEveryClientAndItsIDsToItAlone(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	begin := h.Position().String()
	h.PublishAll("a", 1, 30)
	s := hubtest.Returning(hubtest.With("a"), begin)
	s.Queue = 10
	catchingUp := h.Enter(s)
	catchingUp.Turn()
	live, waiting := h.Listen(hubtest.With("a")), h.Listen(hubtest.With("b"))
	h.Publish(hub.Topics("b"), "old")
	old := h.Position().String()

	h.Switch(hub.Origin{Epoch: "new"}, "broker_changed")
	h.Publish(hub.Topics("a", "b"), "new")
	hubtest.Want(t, catchingUp.Texts(), hubtest.Gap("broker_changed"), "new")
	hubtest.Want(t, waiting.Texts(), "old", hubtest.Gap("broker_changed"), "new")
	batch := live.TakeAll()
	hubtest.Want(t, hubtest.TextsOf(t, batch), hubtest.Gap("broker_changed"), "new")
	hubtest.Want(t, []string{hubtest.Decode(t, batch[0]).ID, hubtest.Decode(t, batch[1]).ID}, "new-0", "new-1")

	h.Enter(hubtest.Returning(hubtest.With("a"), old)).WantResume(hub.ResumeGap, "new-0", "new")
	h.Enter(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeGap, "new-0", "new")
	h.Enter(hubtest.Returning(hubtest.With("a"), "new-0")).WantResume(hub.ResumeComplete, "new-0", "new")
}

func TestARestoredLogResumesClientsOfItsOwn(t *testing.T) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 3}})
	live := h.Listen(hubtest.With("a"))
	h.Follow(hub.Origin{Epoch: "log", Lost: hub.Position{Major: 2, Minor: 0}})
	for i, text := range []string{"3", "4", "5", "6"} {
		h.Restore(&hub.Message{To: hub.Topics("a"), Data: []byte(text), Position: hub.Position{Major: uint64(i + 3), Minor: 0}})
	}
	h.Announce("log_changed")
	batch := live.TakeAll()
	hubtest.Want(t, hubtest.TextsOf(t, batch), hubtest.Gap("log_changed"))
	hubtest.Want(t, []string{hubtest.Decode(t, batch[0]).ID}, "log-6")

	h.Enter(hubtest.Returning(hubtest.With("a"), "log-4")).WantResume(hub.ResumeComplete, "log-4", "5", "6")
	h.Enter(hubtest.Returning(hubtest.With("a"), "log-3")).WantResume(hub.ResumeComplete, "log-3", "4", "5", "6")
	h.Enter(hubtest.Returning(hubtest.With("a"), "log-2")).WantResume(hub.ResumeGap, "log-2", "4", "5", "6") // 3 is over the count
	h.Enter(hubtest.Returning(hubtest.With("b"), "log-2")).WantResume(hub.ResumeComplete, "log-2")
	h.Enter(hubtest.Returning(hubtest.With("b"), "log-1")).WantResume(hub.ResumeGap, "log-1") // who knows what the log has lost
	h.Enter(hubtest.Returning(hubtest.With("b"), "log-7")).WantResume(hub.ResumeGap, "log-6")
}

func TestWhatALogForgotBeforeItsRestartIsKnown(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	h.Follow(hub.Origin{Epoch: "log"})
	h.ForgetAll(hub.Position{Major: 3, Minor: 0})
	h.Forget(hub.Address{Kind: hub.ToTopic, Name: "a"}, hub.Position{Major: 5, Minor: 0})
	h.Restore(&hub.Message{To: hub.Topics("a", "b"), Data: []byte("6"), Position: hub.Position{Major: 6, Minor: 0}})
	h.Forget(hub.Address{Kind: hub.ToTopic, Name: "b"}, hub.Position{Major: 4, Minor: 0})
	h.Advance(hub.Position{Major: 8, Minor: 0})
	h.Advance(hub.Position{Major: 7, Minor: 0}) // which it has passed
	h.Announce("test")
	for topic, lost := range map[string]uint64{"a": 5, "b": 4, "c": 3, "*": 5} {
		for p := range uint64(9) {
			want, id := hub.ResumeComplete, hub.ID{Epoch: "log", Position: hub.Position{Major: p, Minor: 0}}.String()
			if p < lost {
				want = hub.ResumeGap
			}
			if l := h.Enter(hubtest.Returning(hubtest.With(topic), id)); l.Resume != want || l.Welcome.ID != id {
				t.Errorf("%s after %s: %q at %s; want %q, as %d is lost", topic, id, l.Resume, l.Welcome.ID, want, lost)
			}
		}
	}
	h.Enter(hubtest.Returning(hubtest.With("a"), "log-9")).WantResume(hub.ResumeGap, "log-0", "6")
	h.Enter(hubtest.Returning(hubtest.With("c"), "log-9")).WantResume(hub.ResumeGap, "log-8")
}

func TestASparseLogKnowsTheIDsItGaveOut(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	h.Switch(hub.Origin{Epoch: "log", Sparse: true, Lost: hub.Position{Major: 5, Minor: 1}}, "test")
	first := h.Enter(hubtest.With("a"))
	for _, p := range []hub.Position{{Major: 7, Minor: 0}, {Major: 7, Minor: 1}, {Major: 9, Minor: 3}} {
		h.Deliver(&hub.Message{To: hub.Topics("a"), Data: []byte(p.String()), Position: p})
	}
	h.Enter(hubtest.Returning(hubtest.With("a"), first.Welcome.ID)).WantResume(hub.ResumeComplete, "log-5-1", "7", "7-1", "9-3")
	h.Enter(hubtest.Returning(hubtest.With("a"), "log-7")).WantResume(hub.ResumeComplete, "log-7", "7-1", "9-3")
	h.Enter(hubtest.Returning(hubtest.With("a"), "log-9-3")).WantResume(hub.ResumeComplete, "log-9-3")
	for _, unknown := range []string{"log-7-2", "log-8", "log-6", "log-5", "log-9-4"} {
		h.Enter(hubtest.Returning(hubtest.With("a"), unknown)).WantResume(hub.ResumeGap, "log-5-1", "7", "7-1", "9-3")
	}
	h.Enter(hubtest.Returning(hubtest.With("a"), "log-0")).WantResume(hub.ResumeGap, "log-0", "7", "7-1", "9-3")
}

func TestALossInTheLogIsToldAndKnown(t *testing.T) {
	for _, sparse := range []bool{false, true} {
		h := hubtest.New(t, hubtest.Plenty)
		h.Switch(hub.Origin{Epoch: "log", Sparse: sparse}, "test")
		h.PublishAll("a", 1, 30)
		live := h.Listen(hubtest.With("a"))
		s := hubtest.Returning(hubtest.With("a"), "log-0")
		s.Queue = 10
		catchingUp := h.Enter(s)
		hubtest.Want(t, hubtest.TextsOf(t, catchingUp.Turn()), hubtest.Numbers(1, 10)...)

		h.Lose(hub.Position{Major: 40, Minor: 0}, "trimmed_meanwhile")
		h.PublishAll("a", 41, 42)
		batch := live.TakeAll()
		hubtest.Want(t, hubtest.TextsOf(t, batch), hubtest.Gap("trimmed_meanwhile"), "41", "42")
		hubtest.Want(t, []string{hubtest.Decode(t, batch[0]).ID}, "log-40")
		got := catchingUp.Texts()
		if last := len(got) - 3; last < 20 || got[last] != hubtest.Gap("trimmed_meanwhile") || got[last-1] != "30" || got[last+1] != "41" {
			t.Errorf("the gap is not told where it is: %v", hubtest.Brief(got))
		}

		h.Enter(hubtest.Returning(hubtest.With("a"), "log-30")).WantResume(hub.ResumeGap, "log-30", "41", "42")
		h.Enter(hubtest.Returning(hubtest.With("*"), "log-30")).WantResume(hub.ResumeGap, "log-30", "41", "42")
		h.Enter(hubtest.Returning(hubtest.With("b"), "log-30")).WantResume(hub.ResumeGap, "log-30") // who knows
		h.Enter(hubtest.Returning(hubtest.With("a"), "log-40")).WantResume(hub.ResumeComplete, "log-40", "41", "42")
		h.Enter(hubtest.Returning(hubtest.With("a"), "log-41")).WantResume(hub.ResumeComplete, "log-41", "42")
	}
}

func TestAHubCountsItsListeners(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	h.Listen(hubtest.With("a", "b"))
	h.Listen(hubtest.With("a", "*"))
	for want, to := range map[int][]hub.Address{
		3: hub.Topics("a"), 2: hub.Topics("b"), 5: hub.Topics("a", "b"), 1: hub.Topics("c"), 0: {{Kind: hub.ToUser, Name: "a"}},
	} {
		if got := h.Count(to); got != want {
			t.Errorf("%v has %d listeners; want %d", to, got, want)
		}
	}
	if got := h.Listening(false)[hub.Address{Kind: hub.ToTopic, Name: "a"}]; got != 2 {
		t.Errorf("%d clients listen at a; want 2", got)
	}
	h.Listen(hubtest.With("a"))
	if got := h.Listening(false)[hub.Address{Kind: hub.ToTopic, Name: "a"}]; got != 3 {
		t.Errorf("%d clients listen at a; want 3", got)
	}
	h.StopListening()
}
