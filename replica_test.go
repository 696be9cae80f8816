package sse

import (
	"testing"
)

func TestAnotherLogIsAGapToEveryClientAndItsIDsToItAlone(t *testing.T) {
	h := newTestHub(t, plenty)
	begin := h.Position().String()
	h.publishAll("a", 1, 30)
	s := returning(with("a"), begin)
	s.Queue = 10
	catchingUp := h.enter(s)
	catchingUp.take()
	live, waiting := h.join(with("a")), h.join(with("b"))
	h.publish(Topics("b"), "old")
	old := h.Position().String()

	h.follow(Origin{Epoch: "new"}, "broker_changed")
	h.publish(Topics("a", "b"), "new")
	want(t, catchingUp.texts(), gap("broker_changed"), "new")
	want(t, waiting.texts(), "old", gap("broker_changed"), "new")
	batch := live.takeAll()
	want(t, textsOf(t, batch), gap("broker_changed"), "new")
	want(t, []string{decode(t, batch[0]).ID, decode(t, batch[1]).ID}, "new-0", "new-1")

	h.enter(returning(with("a"), old)).wantResume(ResumeGap, "new-0", "new")
	h.enter(returning(with("a"), begin)).wantResume(ResumeGap, "new-0", "new")
	h.enter(returning(with("a"), "new-0")).wantResume(ResumeComplete, "new-0", "new")
}

func TestARestoredLogResumesClientsOfItsOwn(t *testing.T) {
	h := newTestHub(t, Limits{History: HistoryLimits{Count: 3}})
	live := h.join(with("a"))
	h.Follow(Origin{Epoch: "log", Lost: Position{2, 0}})
	for i, text := range []string{"3", "4", "5", "6"} {
		h.Restore(&Message{To: Topics("a"), Data: []byte(text), Position: Position{uint64(i + 3), 0}})
	}
	h.Announce("log_changed")
	batch := live.takeAll()
	want(t, textsOf(t, batch), gap("log_changed"))
	want(t, []string{decode(t, batch[0]).ID}, "log-6")

	h.enter(returning(with("a"), "log-4")).wantResume(ResumeComplete, "log-4", "5", "6")
	h.enter(returning(with("a"), "log-3")).wantResume(ResumeComplete, "log-3", "4", "5", "6")
	h.enter(returning(with("a"), "log-2")).wantResume(ResumeGap, "log-2", "4", "5", "6") // 3 is over the count
	h.enter(returning(with("b"), "log-2")).wantResume(ResumeComplete, "log-2")
	h.enter(returning(with("b"), "log-1")).wantResume(ResumeGap, "log-1") // who knows what the log has lost
	h.enter(returning(with("b"), "log-7")).wantResume(ResumeGap, "log-6")
}

func TestWhatALogForgotBeforeItsRestartIsKnown(t *testing.T) {
	h := newTestHub(t, plenty)
	h.Follow(Origin{Epoch: "log"})
	h.ForgetAll(Position{3, 0})
	h.Forget(Address{ToTopic, "a"}, Position{5, 0})
	h.Restore(&Message{To: Topics("a", "b"), Data: []byte("6"), Position: Position{6, 0}})
	h.Forget(Address{ToTopic, "b"}, Position{4, 0})
	h.Advance(Position{8, 0})
	h.Advance(Position{7, 0}) // which it has passed
	h.Announce("test")
	for topic, lost := range map[string]uint64{"a": 5, "b": 4, "c": 3, "*": 5} {
		for p := range uint64(9) {
			want, id := ResumeComplete, ID{"log", Position{p, 0}}.String()
			if p < lost {
				want = ResumeGap
			}
			if l := h.enter(returning(with(topic), id)); l.Resume != want || l.Welcome.ID != id {
				t.Errorf("%s after %s: %q at %s; want %q, as %d is lost", topic, id, l.Resume, l.Welcome.ID, want, lost)
			}
		}
	}
	h.enter(returning(with("a"), "log-9")).wantResume(ResumeGap, "log-0", "6")
	h.enter(returning(with("c"), "log-9")).wantResume(ResumeGap, "log-8")
}

func TestASparseLogKnowsTheIDsItGaveOut(t *testing.T) {
	h := newTestHub(t, plenty)
	h.follow(Origin{Epoch: "log", Sparse: true, Lost: Position{5, 1}}, "test")
	first := h.enter(with("a"))
	for _, p := range []Position{{7, 0}, {7, 1}, {9, 3}} {
		h.Deliver(&Message{To: Topics("a"), Data: []byte(p.String()), Position: p})
	}
	h.enter(returning(with("a"), first.Welcome.ID)).wantResume(ResumeComplete, "log-5-1", "7", "7-1", "9-3")
	h.enter(returning(with("a"), "log-7")).wantResume(ResumeComplete, "log-7", "7-1", "9-3")
	h.enter(returning(with("a"), "log-9-3")).wantResume(ResumeComplete, "log-9-3")
	for _, unknown := range []string{"log-7-2", "log-8", "log-6", "log-5", "log-9-4"} {
		h.enter(returning(with("a"), unknown)).wantResume(ResumeGap, "log-5-1", "7", "7-1", "9-3")
	}
	h.enter(returning(with("a"), "log-0")).wantResume(ResumeGap, "log-0", "7", "7-1", "9-3")
}

func TestAsManyPositionsAreRememberedAsTheLogKeepsMessages(t *testing.T) {
	for kept, least := range map[int]int{0: fewestPositions, 200_000: 200_000, 1 << 40: mostPositions} {
		if got := newPositions(kept).least; got != least {
			t.Errorf("of a log that keeps %d, %d are remembered; want %d", kept, got, least)
		}
	}
}

func TestPositionsOfASparseLogAreForgottenInTheEnd(t *testing.T) {
	s := newPositions(1000)
	for i := range uint64(3 * fewestPositions) {
		s.add(Position{2 * i, 0})
	}
	if len(s.all) > 2*fewestPositions {
		t.Errorf("%d positions are remembered", len(s.all))
	}
	for i := range uint64(fewestPositions) {
		newest := 2 * (3*fewestPositions - 1 - i)
		if !s.has(Position{newest, 0}) || s.has(Position{newest + 1, 0}) || s.has(Position{newest, 1}) {
			t.Fatalf("of the newest positions %d is not told from those about it", newest)
		}
	}
	if s.has(Position{0, 0}) {
		t.Error("the oldest position is still known")
	}
	var none *positions
	none.add(Position{1, 0}) // a dense log's are not remembered
}

func TestALossInTheLogIsToldAndKnown(t *testing.T) {
	for _, sparse := range []bool{false, true} {
		h := newTestHub(t, plenty)
		h.follow(Origin{Epoch: "log", Sparse: sparse}, "test")
		h.publishAll("a", 1, 30)
		live := h.join(with("a"))
		s := returning(with("a"), "log-0")
		s.Queue = 10
		catchingUp := h.enter(s)
		want(t, textsOf(t, catchingUp.take()), numbers(1, 10)...)

		h.Lose(Position{40, 0}, "trimmed_meanwhile")
		h.publishAll("a", 41, 42)
		batch := live.takeAll()
		want(t, textsOf(t, batch), gap("trimmed_meanwhile"), "41", "42")
		want(t, []string{decode(t, batch[0]).ID}, "log-40")
		got := catchingUp.texts()
		if last := len(got) - 3; last < 20 || got[last] != gap("trimmed_meanwhile") || got[last-1] != "30" || got[last+1] != "41" {
			t.Errorf("the gap is not told where it is: %v", brief(got))
		}

		h.enter(returning(with("a"), "log-30")).wantResume(ResumeGap, "log-30", "41", "42")
		h.enter(returning(with("*"), "log-30")).wantResume(ResumeGap, "log-30", "41", "42")
		h.enter(returning(with("b"), "log-30")).wantResume(ResumeGap, "log-30") // who knows
		h.enter(returning(with("a"), "log-40")).wantResume(ResumeComplete, "log-40", "41", "42")
		h.enter(returning(with("a"), "log-41")).wantResume(ResumeComplete, "log-41", "42")
	}
}

func TestAHubCountsItsListeners(t *testing.T) {
	h := newTestHub(t, plenty)
	h.join(with("a", "b"))
	h.join(with("a", "*"))
	for want, to := range map[int][]Address{
		3: Topics("a"), 2: Topics("b"), 5: Topics("a", "b"), 1: Topics("c"), 0: {{ToUser, "a"}},
	} {
		if got := h.Count(to); got != want {
			t.Errorf("%v has %d listeners; want %d", to, got, want)
		}
	}
	if got := h.Listening(false)[Address{ToTopic, "a"}]; got != 2 {
		t.Errorf("%d clients listen at a; want 2", got)
	}
	h.join(with("a"))
	if got := h.Listening(false)[Address{ToTopic, "a"}]; got != 3 {
		t.Errorf("%d clients listen at a; want 3", got)
	}
	h.StopListening()
}
