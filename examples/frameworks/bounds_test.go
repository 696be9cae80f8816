package frameworks_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// listeners are the programs that listen by themselves, with the arguments before the URL.
func listeners(t *testing.T) map[string][]string {
	t.Helper()
	root := e2etest.RepoRoot(t)
	return map[string][]string{
		"python": {e2etest.Need(t, "python3", "python"), filepath.Join(root, "examples", "frameworks", "listen.py")},
		"go":     {e2etest.Build(t, "./examples/frameworks/golang")},
	}
}

var nextTry = regexp.MustCompile(`next try in (\S+?) ?(s|ms)?\n`)

// waits returns the first wait that a program told.
func waits(text string) (time.Duration, bool) {
	m := nextTry.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	if wait, err := time.ParseDuration(m[1] + m[2]); err == nil {
		return wait, true
	}
	seconds, err := strconv.ParseFloat(m[1], 64)
	return time.Duration(seconds * float64(time.Second)), err == nil
}

// What servers may say, and what each listener makes of it.
func TestListenersBearWhatServersSay(t *testing.T) {
	t.Parallel()
	const jitter = 4 // waits vary by a quarter
	programs := listeners(t)
	over := input(t, "status-204.http")
	for _, c := range []struct {
		name    string
		answers []string
		hears   string        // on standard output, unless it is still waiting
		waits   time.Duration // 0 if it does not
		ends    int           // its exit code; -1 if it goes on
	}{
		{"retry-zero.sse", []string{input(t, "retry-zero.sse"), over}, "message x\n", 100 * time.Millisecond, 0},
		{"retry-huge.sse", []string{input(t, "retry-huge.sse")}, "message x\n", time.Hour, -1},
		{"retry-after-30-days.http", []string{input(t, "retry-after-30-days.http")}, "", time.Hour, -1},
		{"retry-after-date.http", []string{input(t, "retry-after-date.http")}, "", time.Hour, -1},
		{"status-204.http", []string{over}, "", 0, 0},
		{"html-200.http", []string{input(t, "html-200.http")}, "", 0, 1},
		{"empty-id.http", []string{input(t, "empty-id.http"), over}, "message first\nmessage second\n", 100 * time.Millisecond, 0},
		{"event-error", []string{e2etest.EventStream("\uFEFFretry:50\nevent:error\ndata:boom\n\n:\n\n"), over}, "error boom\n", 100 * time.Millisecond, 0},
	} {
		for name, program := range programs {
			t.Run(c.name+" "+name, func(t *testing.T) {
				t.Parallel()
				server := e2etest.Speak(t, c.answers...)
				cmd := exec.Command(program[0], append(program[1:], server.URL)...)
				out, said := new(e2etest.Written), new(e2etest.Written)
				cmd.Stdout, cmd.Stderr = out, said
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				ended := make(chan int, 1)
				go func() { _ = cmd.Wait(); ended <- cmd.ProcessState.ExitCode() }()
				t.Cleanup(func() { _ = cmd.Process.Kill() })
				if c.waits > 0 {
					e2etest.Await(t, "it waits", func() bool { _, told := waits(said.String()); return told })
					wait, _ := waits(said.String())
					if wait < c.waits-c.waits/jitter-time.Millisecond || wait > c.waits+c.waits/jitter+time.Millisecond {
						t.Errorf("it waits %v, want about %v: %s", wait, c.waits, said)
					}
				}
				if c.ends >= 0 {
					select {
					case code := <-ended:
						if code != c.ends {
							t.Errorf("it ended with %d, want %d: %s", code, c.ends, said)
						}
					case <-time.After(patience):
						t.Fatalf("it goes on: %s", said)
					}
				}
				// What it has written to one pipe may come later than what it has written to another since.
				e2etest.Await(t, fmt.Sprintf("it hears %q", c.hears), func() bool { return out.String() == c.hears })
				asked := server.Asked()
				for _, request := range asked {
					if id := request.Header.Values("Last-Event-ID"); id != nil {
						t.Errorf("it came back with the ID %q", id)
					}
				}
			})
		}
	}
}

func input(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".sse") {
		return e2etest.EventStream(string(content))
	}
	return string(content)
}

// However long a server is away, the wait stays half a minute, or what the server asked for.
func TestWaitsNeverOverflow(t *testing.T) {
	t.Parallel()
	python := listeners(t)["python"]
	const program = `import sys; sys.path.insert(0, sys.argv[1]); import listen
print(*(listen.pause(retry, tries, 0) for retry in (0, 1, 1e300) for tries in (9, 63, 64, 5000)))`
	out, err := exec.Command(python[0], "-B", "-c", program, filepath.Dir(python[1])).CombinedOutput()
	waits := strings.Fields(string(out))
	if err != nil || len(waits) != 12 {
		t.Fatalf("%v: %s", err, out)
	}
	for i, text := range waits {
		wait, err := strconv.ParseFloat(text, 64)
		least, most := 22.4, 37.6
		if i >= 8 { // told to wait for an hour
			least, most = 2700, 4500
		}
		if err != nil || wait < least || wait > most {
			t.Errorf("wait %d is %s s, want %v to %v", i, text, least, most)
		}
	}
}
