package sse

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails the package if a test leaves a goroutine behind. The servers of the last sites may take a moment
// to shut down on a busy machine.
func TestMain(m *testing.M) {
	code := runAtHome(m)
	if code == 0 {
		err := goleak.Find()
		for deadline := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(deadline); {
			err = goleak.Find()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// runAtHome runs the tests with a data directory of their own, not the user's: hubs keep a record there.
func runAtHome(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sse")
	if err == nil {
		err = os.Setenv("XDG_DATA_HOME", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	return m.Run()
}
