package e2etest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

const modulePath = "github.com/caddy-sse/caddy-sse"

// What this test process has built: one binary of each kind at most.
var (
	builds      = build{program: "./cmd/caddy", race: raceEnabled, ready: os.Getenv("SSE_TEST_CADDY")}
	plainBuilds = build{program: "./cmd/caddy", plain: true}
	programs    sync.Map // of *build, by path
)

type build struct {
	program string // a package's path from the root of the repository
	race    bool   // with the race detector
	plain   bool   // as xcaddy builds releases
	ready   string // a binary that is there already; "" = none

	mu     sync.Mutex // guards the rest
	dir    string     // "" = nothing built, nothing to remove
	binary string
	err    error
}

// Binary returns the Caddy under test: the one SSE_TEST_CADDY names, or one
// built now, once per test process. It is built with -race if the tests are.
func Binary(t testing.TB) string {
	t.Helper()
	binary, err := builds.get(t)
	if err != nil {
		t.Fatalf("building ./cmd/caddy: %v", err)
	}
	return binary
}

// Plain runs the server without the race detector even if the tests have it:
// for bounds of time that hold for what users run.
func Plain() ServerOption {
	return func(s *Server) {
		if !raceEnabled {
			return
		}
		var err error
		if s.binary, err = plainBuilds.get(s.t); err != nil {
			s.t.Fatalf("building ./cmd/caddy: %v", err)
		}
	}
}

// Program runs another program of this repository, such as "./examples/events/caddy": a Caddy with
// more in it.
func Program(program string) ServerOption {
	return func(s *Server) { s.binary = Build(s.t, program) }
}

// Build returns the binary of a program of this repository, such as "./examples/events/caddy". It is built
// once per test process, with -race if the tests are.
func Build(t testing.TB, program string) string {
	t.Helper()
	b, _ := programs.LoadOrStore(program, &build{program: program, race: raceEnabled})
	binary, err := b.(*build).get(t)
	if err != nil {
		t.Fatalf("building %s: %v", program, err)
	}
	return binary
}

func (b *build) get(t testing.TB) (string, error) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.binary == "" && b.err == nil {
		b.binary, b.err = b.makeLocked(RepoRoot(t))
	}
	return b.binary, b.err
}

func (b *build) makeLocked(root string) (string, error) {
	if b.ready != "" {
		if _, err := os.Stat(b.ready); err != nil {
			return "", fmt.Errorf("reading SSE_TEST_CADDY: %w", err)
		}
		return filepath.Abs(b.ready)
	}
	dir, err := os.MkdirTemp("", "caddy-sse-test-")
	if err != nil {
		return "", err
	}
	b.dir = dir
	binary := filepath.Join(dir, path.Base(b.program))
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	// No version control stamp: git refuses to read a clone of another user's.
	args := []string{"build", "-buildvcs=false", "-o", binary}
	if b.race {
		args = append(args, "-race")
	}
	if b.plain {
		args = append(args, "-trimpath")
	}
	cmd := exec.Command("go", append(args, b.program)...)
	cmd.Dir = root
	if b.plain {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return binary, nil
}

// removeBuilds removes all that this process has built.
func removeBuilds() {
	builds.remove()
	plainBuilds.remove()
	programs.Range(func(_, b any) bool {
		b.(*build).remove()
		return true
	})
}

func (b *build) remove() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}

// RepoRoot returns the directory of this module's go.mod.
func RepoRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		switch {
		case err == nil && strings.HasPrefix(string(mod), "module "+modulePath+"\n"):
			return dir
		case err != nil && !errors.Is(err, os.ErrNotExist):
			t.Fatal(err)
		case dir == filepath.Dir(dir):
			t.Fatalf("the working directory is not in %s", modulePath)
		}
		dir = filepath.Dir(dir)
	}
}
