package hub_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestALogIsUpIfItIsInReachAndTakesMessages(t *testing.T) {
	bubble(t, func(t *testing.T) { aLogIsUp(t) })
}

func aLogIsUp(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	h.LogReplaced()
	if h.HasHadLog() {
		t.Error("the hub has had a log before there was one")
	}
	var told []string
	h.BrokerChanged = func(up bool, err error) { told = append(told, fmt.Sprint(up, " ", err)) }
	full, gone := errors.New("full"), errors.New("gone")
	for _, step := range []struct {
		happens func()
		up      bool
		news    string
		why     string // it is not up
	}{
		{func() { h.LogFound() }, true, "", ""},
		{func() { h.LogRefuses(full) }, false, "false full", "full"},
		{func() { h.LogLost(gone) }, false, "", "gone"},
		{func() { h.LogFound() }, false, "", "full"},
		{func() { h.LogRefuses(nil) }, true, "true <nil>", ""},
		{func() { h.LogLost(gone) }, false, "false gone", "gone"},
		{func() { h.LogRefuses(full) }, false, "", "gone"},
		{func() { h.LogRefuses(nil) }, false, "", "gone"},
		{func() { h.LogFound() }, true, "true <nil>", ""},
		{func() { h.LogReplaced() }, false, "", "the log has not been reached yet"},
	} {
		told = nil
		before := h.LogState()
		time.Sleep(time.Minute)
		step.happens()
		if news := strings.Join(told, ", "); news != step.news || h.LogUp() != step.up {
			t.Fatalf("told %q, up %v; want %q, %v", news, h.LogUp(), step.news, step.up)
		}
		state, why := h.LogState(), ""
		if state.Err != nil {
			why = state.Err.Error()
		}
		if state.Up != step.up || why != step.why {
			t.Fatalf("the state is %+v; want %v because of %q", state, step.up, step.why)
		}
		if age := time.Since(state.Since); (age == 0) != (state.Up != before.Up || step.why == "the log has not been reached yet") {
			t.Fatalf("it has been so for %v, and %v before", age, before)
		}
		if !h.HasHadLog() {
			t.Fatal("a hub that has had a log once has had one")
		}
	}
}

// Whoever looks after a hub is told what its clients are told: FLUSHALL is no other broker.
func TestALostLogIsToldToTheOperatorToo(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	var told []string
	h.HistoryLost = func(reason string, clients int) { told = append(told, fmt.Sprint(reason, " ", clients)) }
	h.Join(hubtest.With("a"))
	h.Join(hubtest.With("b"))
	h.Announce("broker_changed")
	h.Announce("log_lost")
	h.Lose(hub.Position{Major: 10}, "history_trimmed")
	if got := strings.Join(told, ", "); got != "log_lost 2, history_trimmed 2" {
		t.Errorf("the operator was told %q", got)
	}
}
