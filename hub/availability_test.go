package hub_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestALogIsUpIfItIsInReachAndTakesMessages(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	var told []string
	h.BrokerChanged = func(up bool, err error) { told = append(told, fmt.Sprint(up, " ", err)) }
	full, gone := errors.New("full"), errors.New("gone")
	for _, step := range []struct {
		happens func()
		up      bool
		news    string
	}{
		{func() { h.LogFound() }, true, ""},
		{func() { h.LogRefuses(full) }, false, "false full"},
		{func() { h.LogLost(gone) }, false, ""},
		{func() { h.LogFound() }, false, ""},
		{func() { h.LogRefuses(nil) }, true, "true <nil>"},
		{func() { h.LogLost(gone) }, false, "false gone"},
		{func() { h.LogRefuses(full) }, false, ""},
		{func() { h.LogRefuses(nil) }, false, ""},
		{func() { h.LogFound() }, true, "true <nil>"},
	} {
		told = nil
		step.happens()
		if news := strings.Join(told, ", "); news != step.news || h.LogUp() != step.up {
			t.Fatalf("told %q, up %v; want %q, %v", news, h.LogUp(), step.news, step.up)
		}
	}
}
