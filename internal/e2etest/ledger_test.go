package e2etest_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestLedgerFindsWhatIsWrong(t *testing.T) {
	ledger := e2etest.NewLedger()
	for n := 1; n <= 5; n++ {
		ledger.Note(strconv.Itoa(n), "a", "e-"+strconv.Itoa(n), e2etest.OutcomePublished)
	}
	ledger.Note("other", "b", "e-3-1", e2etest.OutcomePublished)
	ledger.Note("new", "a", "f-1", e2etest.OutcomePublished)
	ledger.Note("no", "a", "", e2etest.OutcomeRefused)
	for _, test := range []struct{ events, fault string }{
		{"1@e-1 2@e-2 3@e-3 4@e-4 5@e-5", ""},
		{"1@e-1 2@e-2 passing@ 3@e-3 foreign@e-3-7 4@e-4 5@e-5", ""},
		{"2@e-2 3@e-3 4@e-4 5@e-5", `"1" is missing`},
		{"1@e-1 3@e-3 4@e-4 5@e-5", `"2" is missing`},
		{"1@e-1 gap@e-2 3@e-3 4@e-4 5@e-5", ""},
		{"1@e-1 gap@ 3@e-3 4@e-4 5@e-5", ""},
		{"1@e-1 gap@e-1 3@e-3 4@e-4 5@e-5", `"2" is missing`},
		{"1@e-1 3@e-3 gap@e-4 5@e-5", `"2" is missing`},
		{"1@e-1 1@e-1 2@e-2 3@e-3 4@e-4 5@e-5", "twice"},
		{"1@e-1 2@e-2 gap@e-0 1@e-1 2@e-2 3@e-3 4@e-4 5@e-5", ""},
		{"1@e-1 3@e-3 2@e-2 4@e-4 5@e-5", `"2" came at`},
		{"1@e-1 2@e-2-9 3@e-3 4@e-4 5@e-5", "but was acknowledged at"},
		{"1@e-1 2@e-2 3@e-3 other@e-3-1 4@e-4 5@e-5", "which is for b"},
		{"1@e-1 no@e-1-1 2@e-2 3@e-3 4@e-4 5@e-5", "as not published"},
		{"1@e-1 new@f-1", "without a gap"},
		{"1@e-1 gap@f-0 new@f-1", ""},
		{"1@e-1 gap@ new@f-1", ""},
		{"1@e-1 gap=e-3@ 1@e-1 4@e-4 5@e-5", ""},
		{"1@e-1 gap=e-3@ 1@e-1 3@e-3 5@e-5", `"4" is missing`},
		{"1@e-1 gap=e-3@ 3@e-3 1@e-1 4@e-4 5@e-5", `"1" came at`},
		{"1@e-1 gap=e-3@ gap@e-1 4@e-4 5@e-5", `"2" is missing`},
		{"1@e-1 gap=f-0@ new@f-1", ""},
		{"1@x", "can't be read"},
	} {
		var events []eventstream.Event
		for word := range strings.FieldsSeq(test.events) {
			text, id, _ := strings.Cut(word, "@")
			event := eventstream.Event{ID: id, Data: []byte(text)}
			if name, covers, _ := strings.Cut(text, "="); name == "gap" {
				event.Name, event.Data = name, []byte(covers)
			}
			events = append(events, event)
		}
		faults := ledger.Judge("e-0", []string{"a"}, events)
		found := slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, test.fault) })
		if test.fault == "" && len(faults) > 0 || test.fault != "" && !found {
			t.Errorf("%s: found %q; want %q", test.events, faults, test.fault)
		}
	}
}

func TestLedgerExcusesALateGapOfAFailoverButNotAMissingOne(t *testing.T) {
	ledger := e2etest.NewLedger()
	for n := 1; n <= 3; n++ {
		ledger.Note(strconv.Itoa(n), "a", "e-"+strconv.Itoa(n), e2etest.OutcomePublished)
	}
	event := func(id, text string) eventstream.Event { return eventstream.Event{ID: id, Data: []byte(text)} }
	silent := []eventstream.Event{event("e-1", "1"), event("e-3", "3")}
	if faults := ledger.JudgeFailover("e-0", []string{"a"}, silent); len(faults) != 1 {
		t.Errorf("without a gap it found %q", faults)
	}
	told := append(silent, eventstream.Event{Name: "gap", ID: "f-0"})
	if faults := ledger.JudgeFailover("e-0", []string{"a"}, told); len(faults) > 0 {
		t.Errorf("with a late gap it found %q", faults)
	}
	if faults := ledger.Judge("e-0", []string{"a"}, told); len(faults) != 1 {
		t.Errorf("without a failover it found %q", faults)
	}
}

func TestLedgerSendsAgainUntilTheOutcomeIsKnown(t *testing.T) {
	ledger := e2etest.NewLedger()
	ctx, cancel := context.WithCancel(t.Context())
	answers := []e2etest.Outcome{
		e2etest.OutcomeUnknown, e2etest.OutcomeRefused, e2etest.OutcomePublished, // the first message
		e2etest.OutcomeRefused,   // the second
		e2etest.OutcomePublished, // the third
	}
	var asked []string
	ledger.Drive(ctx, "p", "a", 0, func(text string) (string, e2etest.Outcome) {
		outcome := answers[len(asked)]
		if asked = append(asked, text); len(asked) == len(answers) {
			cancel()
		}
		return "e-1", outcome
	})
	if want := []string{"p/0", "p/0", "p/0", "p/1", "p/2"}; !slices.Equal(asked, want) {
		t.Errorf("published were %v; want %v", asked, want)
	}
	if published, refused, again := ledger.Counts(); published != 2 || refused != 1 || again != 2 {
		t.Errorf("%d published, %d refused, %d sent again", published, refused, again)
	}
}
