package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// command is a `caddy sse ...` that runs.
type command struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out chan string // lines of standard output; closed at its end

	mu     sync.Mutex // guards stderr
	stderr bytes.Buffer
}

// Write takes what the command writes to standard error.
func (c *command) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stderr.Write(p)
}

func (c *command) errors() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stderr.String()
}

// run starts a command. Its environment has no token but what args name as NAME=value in front.
func run(t *testing.T, args ...string) *command {
	t.Helper()
	var env []string
	for len(args) > 0 && strings.Contains(args[0], "=") {
		env, args = append(env, args[0]), args[1:]
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	c := &command{t: t, cmd: exec.CommandContext(ctx, e2etest.Binary(t), append([]string{"sse"}, args...)...), out: make(chan string, 1000)}
	home := t.TempDir()
	c.cmd.Env = append(os.Environ(), append(env, "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home,
		"GORACE=atexit_sleep_ms=0")...) // or it lingers for 1 s
	c.cmd.Stderr = c
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.out)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.out <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		for range c.out { // nobody reads the rest
		}
		_ = c.cmd.Wait()
		if t.Failed() {
			t.Logf("caddy sse %s said on standard error:\n%s", strings.Join(args, " "), c.errors())
		}
	})
	return c
}

// line returns the next line of standard output.
func (c *command) line() string {
	c.t.Helper()
	select {
	case line, ok := <-c.out:
		if !ok {
			c.t.Fatalf("%v has ended", c.cmd.Args[1:])
		}
		return line
	case <-time.After(patience):
		c.t.Fatalf("%v prints nothing", c.cmd.Args[1:])
	}
	return ""
}

// ends waits for the command and returns what else it printed. It must end with this code.
func (c *command) ends(code int) (rest []string) {
	c.t.Helper()
	for line := range c.out {
		rest = append(rest, line)
	}
	_ = c.cmd.Wait()
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Errorf("%v ended with %d, want %d", c.cmd.Args[1:], got, code)
	}
	return rest
}

// awaitError waits until standard error has this in it.
func (c *command) awaitError(words string) {
	c.t.Helper()
	e2etest.Await(c.t, words, func() bool { return strings.Contains(c.errors(), words) })
}

func (c *command) interrupt() {
	c.t.Helper()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		c.t.Fatal(err)
	}
}

// listens starts a listener and waits until it is connected.
func listens(t *testing.T, args ...string) *command {
	t.Helper()
	first := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "http") }) // behind the environment
	c := run(t, slices.Insert(slices.Clone(args), first, "listen")...)
	c.awaitError("connected ")
	return c
}

func TestListenPrintsMessagesOnStandardOutputAndAllElseOnStandardError(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, openSite)
	events := server.URL("/events")
	plain := listens(t, events, "--topic", "news", "-t", "room/*", "--client-id", "ann")
	scripted := listens(t, events+"?topic=news", "--json")
	first := e2etest.Publish(t, events+"?topic=news&event=update&retry=100", "two\nlines")
	e2etest.Publish(t, events+"?topic=room/7", `{"b": 2}`)
	e2etest.Publish(t, events+"?client_id=ann", "just you")
	e2etest.Publish(t, events+"?topic=news&ephemeral", "passing")
	for _, want := range []string{"two", "lines", `{"b": 2}`, "just you", "passing"} {
		if got := plain.line(); got != want {
			t.Errorf("printed %q, want %q", got, want)
		}
	}
	var receipt struct{ ID string }
	decodeLoosely(t, first, &receipt)
	for _, want := range []map[string]string{{"id": receipt.ID, "event": "update", "data": "two\nlines"}, {"data": "passing"}} {
		var got map[string]string
		if err := json.Unmarshal([]byte(scripted.line()), &got); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("printed %v, %v, want %v", got, err, want)
		}
	}
	plain.interrupt()
	if rest := plain.ends(0); len(rest) != 0 {
		t.Errorf("also printed %q", rest)
	}
	if said := plain.errors(); strings.Contains(said, "\r") || strings.Count(said, "\n") != 1 || !strings.Contains(said, `"resume":"none"`) {
		t.Errorf("on standard error stands %q", said) // no count, since it is no terminal
	}
}

func TestListenEndsAfterACountOrWhenInterruptedBeforeIt(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, openSite)
	events := server.URL("/events?topic=news")
	two := listens(t, events, "--count", "2")
	three := listens(t, events, "--count", "3")
	begin := e2etest.Subscribe(t, events).Connected(t).ID
	for _, data := range []string{"1", "2"} {
		e2etest.Publish(t, events, data)
		three.line()
	}
	if got := two.ends(0); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("printed %q", got)
	}
	three.interrupt()
	three.ends(130)
	if got := run(t, "listen", events, "--count", "1", "--last-event-id", begin).ends(0); !slices.Equal(got, []string{"1"}) {
		t.Errorf("after the ID %s it printed %q", begin, got)
	}
}

func TestListenComesBackAndGoesOnWhereItWas(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, "{\n\tsse {\n\t\tbroker bolt {{dir}}/sse.db\n\t}\n}\n"+openSite)
	events := server.URL("/events?topic=news")
	listener := listens(t, events)
	var want, got []string
	for round := range 3 {
		for i := range 20 {
			want = append(want, fmt.Sprint(round, "-", i))
			e2etest.Publish(t, events, want[len(want)-1])
			if i == 10 {
				server.Kill()
				server.Restart() // the listener waits for longer before it comes back
			}
		}
		for len(got) < len(want) {
			got = append(got, listener.line())
		}
	}
	listener.interrupt()
	if got = append(got, listener.ends(0)...); !slices.Equal(got, want) {
		t.Errorf("printed %q", got)
	}
	if said := listener.errors(); strings.Count(said, `"resume":"complete"`) != 3 || strings.Count(said, "connecting again in 2s") < 3 {
		t.Errorf("on standard error stands\n%s", said)
	}
}

func TestListenEndsOnlyOnPermanentErrors(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, `
{
	sse {
		max_clients 1
	}
}
http://127.0.0.1:{{port}} {
	sse /events
	respond /nothing 404
}
`)
	events := server.URL("/events?topic=news")
	for _, url := range []string{server.URL("/nothing"), server.URL("/events?topic=a/**/b")} {
		c := run(t, "listen", url)
		if out := c.ends(2); len(out) != 0 || !strings.HasPrefix(c.errors(), "refused: 40") {
			t.Errorf("%s: printed %q, and %q", url, out, c.errors())
		}
	}
	first := listens(t, events, "--client-id", "ann")
	second := run(t, "listen", events)
	second.awaitError("503 Service Unavailable: ")
	e2etest.Send(t, http.MethodDelete, server.AdminURL("/sse/hubs/default/clients/ann"), "")
	first.ends(2)
	if said := first.errors(); !strings.HasSuffix(said, "refused: the stream was closed\n") {
		t.Errorf("the closed one says %q", said)
	}
	second.awaitError("connected ")
	second.interrupt()
	second.ends(0)
}

// Others than a hub answer 200 as well: Caddy does for what no route is for.
func TestWhereThereIsNoHubCommandsAreRefused(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, `
http://127.0.0.1:{{port}} {
	redir /moved /elsewhere 301
	respond /home "welcome"
}
http://named.example:{{port}} {
	sse /events {
		publish {
			open
		}
	}
}
`)
	for path, says := range map[string]string{
		"/events": "200 OK, but there is no hub at this address", "/home": "200 OK, but there is no hub at this address",
	} {
		for _, args := range [][]string{{"listen"}, {"publish", "hello"}, {"publish"}} {
			c := run(t, slices.Insert(slices.Clone(args), 1, server.URL(path))...)
			_ = c.in.Close()
			if out := c.ends(2); len(out) != 0 || c.errors() != "refused: "+says+"\n" {
				t.Errorf("%v of %s: printed %q, and %q", args, path, out, c.errors())
			}
		}
	}
	moved := run(t, "publish", server.URL("/moved"), "hello")
	if out := moved.ends(2); len(out) != 0 || moved.errors() != "refused: 301 Moved Permanently to /elsewhere\n" {
		t.Errorf("printed %q, and %q", out, moved.errors())
	}
	host := server.Expand("Host: named.example:{{port}}")
	if answer := run(t, "publish", server.URL("/events?topic=news"), "-H", host, "hello").ends(0); len(answer) != 1 {
		t.Errorf("the site that was named answered %q", answer)
	}
}

func TestATokenOpensWhatItNames(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	const secret = "0123456789abcdef0123456789abcdef"
	server := e2etest.Start(t, `
http://127.0.0.1:{{port}} {
	sse /events {
		jwt {
			key HS256 `+secret+`
			issuer me
			audience sse
		}
		publish
	}
}
`)
	events := server.URL("/events")
	token := func(args ...string) string {
		t.Helper()
		args = append([]string{"SECRET=" + secret, "token", "--secret-env", "SECRET", "--issuer", "me", "--audience", "sse"}, args...)
		return strings.Join(run(t, args...).ends(0), "\n")
	}
	hers := token("--sub", "alice", "--subscribe", "orders/*", "--publish", "orders/42")
	listener := listens(t, "SSE_TOKEN="+hers, events, "-t", "orders/*", "--count", "2")
	run(t, "publish", events, "--token", hers, "-t", "orders/42", "paid").ends(0)
	run(t, "publish", events, "-H", "Authorization: Bearer "+token("--publish", "@user/alice"), "--user", "alice", "for you").ends(0)
	if got := listener.ends(0); !slices.Equal(got, []string{"paid", "for you"}) {
		t.Errorf("printed %q", got)
	}
	for status, args := range map[string][]string{
		"401 ": {"listen", events, "-t", "orders/1"},
		"403 ": {"listen", events, "--token", hers, "-t", "news"},
	} {
		c := run(t, args...)
		c.ends(2)
		if said := c.errors(); !strings.HasPrefix(said, "refused: "+status) {
			t.Errorf("%v is told %q", args, said)
		}
	}
	short := listens(t, events, "--token", token("--subscribe", "news", "--ttl", "8s"), "-t", "news")
	short.ends(2)
	if said := short.errors(); !strings.HasSuffix(said, "refused: the stream was expired\n") {
		t.Errorf("the expired one says %q", said)
	}

	file := server.WriteFile("secret", secret+"\n")
	from := run(t, "token", "--secret-file", file, "--subscribe", "news", "--issuer", "me", "--audience", "sse").ends(0)
	if len(from) != 1 || strings.Count(from[0], ".") != 2 {
		t.Errorf("printed %q", from)
	}
	listens(t, "SSE_TOKEN="+from[0], events, "-t", "news")
}

func TestInvalidCommandSaysWhyAndExitsWithOne(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	for _, c := range []struct{ args, says string }{
		{"nonsense", `unknown command "nonsense"`},
		{"listen", "write: caddy sse listen URL --topic TOPIC"},
		{"listen http://localhost/events news", "topics go by --topic; write: caddy sse listen http://localhost/events --topic news"},
		{"listen localhost:8080/events", "is not an address such as https://example.com/events"},
		{"listen http://localhost/events --no-such", "unknown flag"},
		{"listen http://localhost/events -H nonsense", "is not a header"},
		{"listen http://localhost/events --count many", "invalid argument"},
		{"publish", "write: caddy sse publish URL --topic TOPIC DATA"},
		{"publish http://localhost/events news hello", "topics go by --topic; write: caddy sse publish http://localhost/events --topic TOPIC 'news hello'"},
		{"publish ftp://localhost/ hello", "is not an address"},
		{"publish http://localhost/events --topic a --user b hello", "none of the others can be"},
		{"publish http://localhost/events --user= hello", "--user is empty"},
		{"publish http://localhost/events --client-id= hello", "--client-id is empty"},
		{"token --sub alice", "at least one of the flags"},
		{"token --secret-env SSE_NO_SUCH --sub alice", "the environment variable SSE_NO_SUCH is not set"},
		{"token --secret-file /no/such/file", "/no/such/file"},
		{"SHORT=secret token --secret-env SHORT", "it needs 32"},
		{"SECRET=0123456789abcdef0123456789abcdef token --secret-env SECRET --publish @nobody", "@nobody"},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			c, says := run(t, strings.Fields(c.args)...), c.says
			if out := c.ends(1); len(out) != 0 || !strings.Contains(c.errors(), says) {
				t.Errorf("printed %q, and %q", out, c.errors())
			}
			if strings.Contains(c.errors(), "0123456789abcdef") {
				t.Error("the secret is shown")
			}
		})
	}
}
