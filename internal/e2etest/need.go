package e2etest

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Need returns the path of the first of these programs that the machine has:
// the one that is wanted, and what else will do. If it has none, the test is
// skipped and the user is told. Under SSE_TEST_REQUIRE_ALL=1, as in `make
// test`, the test fails instead.
func Need(t testing.TB, programs ...string) string {
	t.Helper()
	for _, program := range programs {
		if path, err := exec.LookPath(program); err == nil {
			return path
		}
	}
	Lack(t, programs[0]+"; run `make test`, which installs it")
	return ""
}

// Lack is Need for what is not a program: the test is skipped, or fails.
func Lack(t testing.TB, what string) {
	t.Helper()
	reason := "needs " + what
	if os.Getenv("SSE_TEST_REQUIRE_ALL") == "1" {
		t.Fatalf("%s, and SSE_TEST_REQUIRE_ALL=1", reason)
	}
	notice := fmt.Sprintf("SKIPPED: %s %s", t.Name(), reason)
	tellUser(notice)
	t.Skip(notice)
}
