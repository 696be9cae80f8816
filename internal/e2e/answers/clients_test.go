package answers

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

// What the clients of others do by themselves: whoever cuts them twice, each gets the whole answer exactly, and
// the model is asked once.
func TestClientsOfOthers(t *testing.T) {
	t.Parallel()
	node := e2etest.Need(t, "node")
	dir := t.TempDir()
	e2etest.CopyWithPackages(t, "clients", dir)
	t.Run("are cut twice", func(t *testing.T) {
		t.Parallel()
		clientsAreCutTwice(t, node, dir)
	})
	t.Run("join after a reload", func(t *testing.T) {
		t.Parallel()
		tanStackJoinsItsRun(t, node, dir)
	})
	t.Run("raise the error", func(t *testing.T) {
		t.Parallel()
		openAIRaisesTheError(t, node, dir)
	})
}

const runs = "bind none\n name {header.X-Run-Id}\n lookup {query.runId}"

func clientsAreCutTwice(t *testing.T, node, dir string) {
	const count, pace = 400, time.Millisecond
	for _, c := range []struct {
		program, options, path string
		reply                  func(*modeltest.Call)
	}{
		{"fetch-event-source", "", "/chat", modeltest.Plain(count, pace)},
		{"fetch-event-source-exact", "", "/chat", modeltest.Plain(count, pace)},
		{"eventsource-client", "", "/chat", modeltest.Plain(count, pace)},
		{"event-source-plus", "", "/chat", modeltest.Plain(count, pace)},
		{"eventsource", "", "/chat", modeltest.Plain(count, pace)},
		{"tanstack", runs, "/api/chat", modeltest.AGUI(count, pace)},
		{"ai-sdk", named, "/api/chat", modeltest.UIMessage(count, 5*pace)},
		{"openai", keyed, "/v1/chat/completions", modeltest.ChatCompletion(count, pace)},
	} {
		t.Run(c.program, func(t *testing.T) {
			t.Parallel()
			site := start(t, c.options)
			site.model.On(c.path, c.reply)
			line := e2etest.NewProxy(t, site.Expand("127.0.0.1:{{port}}"))
			if line.CutAfter(5_000, 9_000); c.program == "fetch-event-source" {
				// In the middle of an event it would lose that: it notes an ID before the event is there.
				line.CutBetweenEvents(5_000, 9_000)
			}
			target := "http://" + line.Addr() + strings.TrimSuffix(c.path, "/chat/completions")
			text, complaints, err := runClient(t, node, dir, c.program, target)
			if err != nil {
				t.Fatalf("it ended with %v: %s", err, complaints)
			}
			if want := modeltest.Tokens(count); text != want {
				t.Errorf("it got %q, want %q", text, want)
			}
			if calls := site.model.Calls(); calls != 1 {
				t.Errorf("the model was asked %d times", calls)
			}
			if connections := line.Accepted(); connections < 3 {
				t.Errorf("it had %d connections: it was not cut twice", connections)
			}
		})
	}
}

// A page of TanStack AI that is reloaded in the middle of an answer joins it by its run.
func tanStackJoinsItsRun(t *testing.T, node, dir string) {
	site := startWith(t, modeltest.Start(t), "metrics", runs)
	const count = 100
	goOn := make(chan struct{})
	site.model.On("/api/chat", func(c *modeltest.Call) {
		c.Begin(200)
		<-goOn
		modeltest.AGUI(count, 0)(c)
	})
	ask(t, site.URL("/api/chat"), e2etest.Header("X-Run-Id", "r1")).Close()
	readers := func() float64 { return site.metric(t, "caddy_http_requests_in_flight", `handler="subroute"`) }
	e2etest.Await(t, "nobody reads", func() bool { return readers() == 0 })
	go func() {
		defer close(goOn)
		for deadline := time.Now().Add(patience); readers() == 0 && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond)
		}
	}()
	text, complaints, err := runClient(t, node, dir, "tanstack", site.URL("/api/chat"), "rejoin")
	if err != nil || text != modeltest.Tokens(count) {
		t.Errorf("it got %q, %v: %s", text, err, complaints)
	}
	if calls := site.model.Calls(); calls != 1 {
		t.Errorf("the model was asked %d times", calls)
	}
}

// OpenAI's library raises the error that tells of a broken answer.
func openAIRaisesTheError(t *testing.T, node, dir string) {
	site := start(t, "")
	site.model.On("/v1/chat/completions", func(c *modeltest.Call) {
		c.Say(`data: {"choices":[{"index":0,"delta":{"content":"half"},"finish_reason":null}]}` + "\n\n")
		c.BreakOff()
	})
	_, complaints, err := runClient(t, node, dir, "openai", site.URL("/v1"))
	if err == nil || !strings.Contains(complaints, "upstream") {
		t.Errorf("it ended with %v: %s", err, complaints)
	}
}

// runClient runs a client to its end and returns what it wrote.
func runClient(t *testing.T, node, dir, program string, args ...string) (text, complaints string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, append([]string{filepath.Join(dir, program+".mjs")}, args...)...)
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	err = cmd.Run()
	return out.String(), errors.String(), err
}
