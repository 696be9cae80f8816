//go:build linux || darwin

package e2e

import (
	"syscall"
	"testing"
)

// needFiles lets the server, and this process, have n connections. The test is
// skipped where the system does not allow that. (A soft limit is no matter: Go
// programs raise it themselves.)
func needFiles(t *testing.T, n uint64) {
	t.Helper()
	n += 500 // others
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max >= n {
		return
	}
	had := limit.Max
	limit.Max += n - limit.Max
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Skipf("SKIPPED: %s needs %d open files, the hard limit is %d, and only root may raise it", t.Name(), n, had)
	}
}
