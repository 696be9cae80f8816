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
var installed = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "sse-js-"); err != nil {
		return "", err
	}
	for _, name := range []string{"src", "testdata"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(name)); err != nil {
			return "", err
		}
	}
	for _, name := range []string{"package.json", "package-lock.json", "tsconfig.json"} {
		content, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		}
		if err != nil {
			return "", err
		}
	}
	for _, command := range [][]string{
		{"npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"},
		{"npm", "run", "build"},
	} {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", &failed{cmd.String(), string(out)}
		}
	}
	return dir, nil
})

type failed struct{ command, out string }

func (f *failed) Error() string { return f.command + ": " + f.out }

func build(t *testing.T) string {
	t.Helper()
	e2etest.Need(t, "npm")
	dir, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	return dir
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

// expect reads what is printed, and nothing else, but for states.
func (p *program) expect(want ...string) {
	p.t.Helper()
	for _, w := range want {
		if line := p.next(`"state"`); !strings.Contains(line, w) {
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
