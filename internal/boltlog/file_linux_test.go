package boltlog

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// asNobody runs f without root's right to read and write everything. Other users don't have that right
// anyway.
func asNobody(t testing.TB, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(nobody); err != nil { // for this thread only
		t.Fatal(err)
	}
	defer unix.Setfsuid(0)
	f()
}

func TestErrorForForbiddenFileSaysWhatToDo(t *testing.T) {
	dir, err := os.MkdirTemp("", "sse-bolt-") //nolint:usetesting // t.TempDir is for root only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.Chmod(dir, 0o700)
		_ = os.RemoveAll(dir)
	})
	readOnly, secret := filepath.Join(dir, "read-only"), filepath.Join(dir, "secret")
	for file, mode := range map[string]os.FileMode{readOnly: 0o444, secret: 0} {
		if err := os.WriteFile(file, storedLog(t), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	const advice = "Caddy may not write it; change its owner or mode"
	asNobody(t, func() {
		wantUnopenable(t, readOnly, advice)
		wantUnopenable(t, secret, advice)
		wantUnopenable(t, filepath.Join(dir, "new"), advice)
	})
}

func TestErrorForReadOnlyDiskSaysWhatToDo(t *testing.T) {
	dir := e2etest.SmallDisk(t, "1m")
	file := filepath.Join(dir, "sse.db")
	if err := os.WriteFile(file, storedLog(t), 0o600); err != nil {
		t.Fatal(err)
	}
	e2etest.ReadOnly(t, dir)
	wantUnopenable(t, file, "Caddy may not write it")
	wantUnopenable(t, filepath.Join(dir, "new"), "Caddy may not write it")
}
