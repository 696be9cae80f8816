package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestPublishSendsOneMessageToItsTarget(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, strings.Replace(openSite, "sse /events {", "sse /events {\n\t\tuser {query.user}", 1))
	events := server.URL("/events")
	stream := e2etest.Subscribe(t, events+"?topic=news&topic=sports&client_id=ann&user=alice")
	stream.Connected(t)
	other := e2etest.Subscribe(t, events+"?topic=sports")
	other.Connected(t)
	for _, c := range []struct {
		args      []string
		receivers int
	}{
		{[]string{"--topic", "news", "-t", "sports", "--event", "update", "--retry", "100"}, 3}, // one for each topic
		{[]string{"--client-id", "ann"}, 1},
		{[]string{"--user", "alice"}, 1},
		{[]string{"--broadcast"}, 2},
		{[]string{"-t", "news", "--ephemeral"}, 1},
	} {
		data := fmt.Sprint("{} \n[", c.args)
		answer := run(t, slices.Concat([]string{"publish", events}, c.args, []string{data})...).ends(0)
		event := stream.Expect(t, data)
		if c.receivers > 1 {
			other.Expect(t, data)
		}
		id := "null"
		if event.ID != "" {
			id = `"` + event.ID + `"`
		}
		if want := fmt.Sprintf(`{"id":%s,"receivers":%d}`, id, c.receivers); !slices.Equal(answer, []string{want}) {
			t.Errorf("%v: printed %q, want %s", c.args, answer, want)
		}
		if (len(c.args) > 4) != (event.Name == "update" && event.Retry == 100) {
			t.Errorf("%v: the event is %+v", c.args, event)
		}
	}
	var answers []string
	for range 2 {
		answers = append(answers, run(t, "publish", events, "-t", "news", "--idempotency-key", "k", "once").ends(0)...)
	}
	if len(answers) != 2 || answers[0] != answers[1] {
		t.Errorf("the same key was answered %q", answers)
	}
	stream.Expect(t, "once")
	run(t, "publish", events, "-t", "news", "last").ends(0)
	stream.Expect(t, "last")
}

func TestPublishSendsEachLineAsItArrives(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, openSite)
	events := server.URL("/events")
	stream := e2etest.Subscribe(t, events+"?topic=news")
	stream.Connected(t)
	for name, dash := range map[string][]string{"with -": {"-"}, "without data": nil} {
		t.Run(name, func(t *testing.T) {
			c := run(t, append([]string{"publish", events, "-t", "news", "--event", "line"}, dash...)...)
			for _, line := range []string{"first", `{"second": 2}`, " third "} {
				fmt.Fprintln(c.in, line+"\n")                              // the empty line is left out
				if event := stream.Expect(t, line); event.Name != "line" { // before there are others
					t.Errorf("the event is %q", event.Name)
				}
			}
			fmt.Fprint(c.in, "without newline")
			_ = c.in.Close()
			id := stream.Expect(t, "without newline").ID
			if got, want := c.ends(0), fmt.Sprintf(`{"published":4,"last_id":"%s"}`, id); !slices.Equal(got, []string{want}) {
				t.Errorf("printed %q, want %s", got, want)
			}
			if said := c.errors(); said != "" {
				t.Errorf("on standard error stands %q", said)
			}
		})
	}
	t.Run("until it is interrupted", func(t *testing.T) {
		c := run(t, "publish", events, "-t", "news")
		fmt.Fprintln(c.in, "whole")
		id := stream.Expect(t, "whole").ID
		c.interrupt()
		if got, want := c.ends(0), fmt.Sprintf(`{"published":1,"last_id":"%s"}`, id); !slices.Equal(got, []string{want}) {
			t.Errorf("printed %q, want %s", got, want)
		}
	})
	t.Run("until one is refused", func(t *testing.T) {
		c := run(t, "publish", events, "-t", "news")
		fmt.Fprintln(c.in, "good")
		fmt.Fprintln(c.in, strings.Repeat("x", 2<<20))
		stream.Expect(t, "good")
		if out := c.ends(2); len(out) != 0 || !strings.HasPrefix(c.errors(), "refused: 413 ") || !strings.Contains(c.errors(), "(line 2; 1 published before it)") {
			t.Errorf("printed %q, and %q", out, c.errors())
		}
	})
}

func TestPublishTriesAgainAndPublishesOnce(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, "{\n\tsse {\n\t\tbroker bolt {{dir}}/sse.db\n\t}\n}\n"+openSite)
	events := server.URL("/events?topic=news")
	begin := e2etest.Subscribe(t, events).Connected(t).ID
	server.Kill()
	lines := run(t, "publish", events)
	fmt.Fprintln(lines.in, "not tried again: nobody knows what of it would come twice")
	if out := lines.ends(3); len(out) != 0 || !strings.HasPrefix(lines.errors(), "publishing ended: ") {
		t.Errorf("printed %q, and %q", out, lines.errors())
	}
	line := e2etest.NewProxy(t, server.Expand("127.0.0.1:{{port}}"))
	waiting := run(t, "publish", "http://"+line.Addr()+"/events?topic=news", "patient")
	e2etest.Await(t, "it to try", func() bool { return line.Accepted() > 0 })
	server.Restart()
	waiting.ends(0)
	e2etest.Publish(t, events, "last")
	stream := e2etest.Subscribe(t, events, e2etest.LastEventID(begin))
	stream.Expect(t, "patient")
	stream.Expect(t, "last")

	server.Stop()
	began := time.Now()
	inDoubt := run(t, "publish", "http://"+line.Addr()+"/events?topic=news", "it was taken, but not answered")
	gaveUp := run(t, "publish", events, "nobody is there")
	if out := gaveUp.ends(3); len(out) != 0 || !strings.HasPrefix(gaveUp.errors(), "not published: ") {
		t.Errorf("printed %q, and %q", out, gaveUp.errors())
	}
	if took := time.Since(began); took < 5*time.Second {
		t.Errorf("it gave up after %v", took)
	}
	if out := inDoubt.ends(3); len(out) != 0 || !strings.HasPrefix(inDoubt.errors(), "perhaps published: ") ||
		!strings.Contains(inDoubt.errors(), "add --idempotency-key ") {
		t.Errorf("printed %q, and %q", out, inDoubt.errors())
	}
}
