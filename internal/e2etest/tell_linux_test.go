package e2etest_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

const asChild = "SSE_TEST_CHILD_NEEDS"

// TestSkipIsTold runs itself once more as a test that skips, whose own output
// nobody sees.
func TestSkipIsTold(t *testing.T) {
	if program := os.Getenv(asChild); program != "" {
		e2etest.Need(t, program)
		return
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tell := func(stderr any) {
		// The shell stands for go test, which hides what its child writes.
		cmd := exec.Command("/bin/sh", "-c", `echo before >&2; (exec "$0" "$@" >/dev/null 2>&1); echo "status $?" >&2`,
			os.Args[0], "-test.run=^TestSkipIsTold$")
		cmd.Env = append(os.Environ(), asChild+"=no-such-program", "SSE_TEST_REQUIRE_ALL=")
		switch stderr := stderr.(type) {
		case *os.File:
			cmd.Stderr = stderr
		case *bytes.Buffer:
			cmd.Stderr = stderr // through a pipe
		}
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
	}
	const want = "before\nSKIPPED: TestSkipIsTold needs no-such-program; run `make test`, which installs it\nstatus 0\n"

	var pipe bytes.Buffer
	tell(&pipe)
	if pipe.String() != want {
		t.Errorf("through a pipe: %q", pipe.String())
	}
	tell(file)
	got, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	// Not everybody may have the file, but nobody may spoil it.
	if string(got) != want && (os.Geteuid() == 0 || strings.Contains(string(got), "SKIP")) {
		t.Errorf("in a file: %q", got)
	}
}
