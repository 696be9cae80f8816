package js_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience bounds each wait; it is long because tests load the machine.
const patience = 30 * time.Second

func TestMain(m *testing.M) { e2etest.Main(m) }

// installed is a copy of the package with what npm installs, as package-lock.json pins it, built anew.
var installed struct {
	once sync.Once
	dir  string // empty if it could not be built
}

func build(t *testing.T) string {
	t.Helper()
	npm := e2etest.Need(t, "npm")
	installed.once.Do(func() {
		dir, err := os.MkdirTemp("", "sse-js-") //nolint:usetesting // it outlives the test that builds it
		if err != nil {
			t.Fatal(err)
		}
		e2etest.CopyWithPackages(t, ".", dir)
		run := exec.Command(npm, "run", "build")
		run.Dir = dir
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", run, err, out)
		}
		installed.dir = dir
	})
	if installed.dir == "" {
		t.Fatal("the package could not be built, as another test tells")
	}
	return installed.dir
}

// program is a program of testdata that prints an object a line.
type program struct {
	t     *testing.T
	lines chan string
	stdin io.Closer
	tell  func(line string)
	ended chan error
}

// run starts a program; it ends with the test.
func run(t *testing.T, name string, args ...string) *program {
	t.Helper()
	cmd := exec.Command(e2etest.Need(t, "node"), append([]string{filepath.Join(build(t), "testdata", name)}, args...)...)
	p := &program{t: t, lines: make(chan string, 1000), ended: make(chan error, 1)}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = in
	p.tell = func(line string) { _, _ = io.WriteString(in, line+"\n") }
	go func() {
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
		close(p.lines)
		p.ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("%s: %s", cmd, &complaints)
		}
	})
	return p
}

// listen runs a subscription with these options.
func listen(t *testing.T, url string, options map[string]any) *program {
	t.Helper()
	text := []byte("{}")
	if options != nil {
		var err error
		if text, err = json.Marshal(options); err != nil {
			t.Fatal(err)
		}
	}
	return run(t, "listen.mjs", url, string(text))
}

// next returns the next line that has none of these texts in it.
func (p *program) next(but ...string) string {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatal("the program ended")
			}
			if !containsAny(line, but) {
				return line
			}
		case <-timeout:
			p.t.Fatal("the program is silent")
		}
	}
}

func containsAny(line string, texts []string) bool {
	for _, text := range texts {
		if strings.Contains(line, text) {
			return true
		}
	}
	return false
}

// expect reads what is printed, and nothing else, but for states and greetings.
func (p *program) expect(want ...string) {
	p.t.Helper()
	for _, w := range want {
		if line := p.next(`"state"`, `"greeting"`); !strings.Contains(line, w) {
			p.t.Fatalf("it printed %s, want %s", line, w)
		}
	}
}

// await skips what is printed until a line has a text.
func (p *program) await(want string) string {
	p.t.Helper()
	for {
		if line := p.next(); strings.Contains(line, want) {
			return line
		}
	}
}

// leave closes the subscription, and waits for the program to end by itself.
func (p *program) leave() (last string) {
	p.t.Helper()
	_ = p.stdin.Close()
	for line := range p.lines {
		last = line
	}
	return last
}
