package boltlog

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
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

// A process that waits for the file's lock while the file shrinks does not get the old file, which has no
// name any more. A lock belongs to a descriptor, so that a goroutine is like another process here.
func TestWhoWaitsForAFileThatShrinksIsRefused(t *testing.T) {
	for name, open := range map[string]func(path string) error{
		"while it reads all of it": func(path string) error {
			_, err := OpenFile(path)
			return err
		},
		"once it has read all of it": func(path string) error {
			_, err := openDB(path)
			return explainOpen(path, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiskHubThatKeepsItsSize(t)
			d.fill()
			d.restart() // what is still to be removed is removed first
			opened := make(chan error)
			go func() { opened <- open(d.module.File) }()
			e2etest.Await(t, "it to wait for the lock", func() bool { return descriptors(t, d.module.File) > 1 })
			if err := d.log.shrink(); err != nil {
				t.Fatal(err)
			}
			if err := <-opened; err == nil || !strings.Contains(err.Error(), "another process has it open") {
				t.Errorf("it was opened with %v", err)
			}
		})
	}
}

// descriptors returns how many descriptors of this process are open on a file.
func descriptors(t *testing.T, path string) (n int) {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if name, _ := os.Readlink("/proc/self/fd/" + fd.Name()); name == path {
			n++
		}
	}
	return n
}
