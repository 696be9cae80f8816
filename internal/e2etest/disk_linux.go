package e2etest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// SmallDisk returns a directory on a disk of its own, of a size such as "8m".
func SmallDisk(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		Lack(t, "root, to mount a disk: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// FillDisk takes the room on a [SmallDisk], but for so many bytes, until the returned function is called.
func FillDisk(t testing.TB, dir string, but int64) (makeRoom func()) {
	t.Helper()
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	room := int64(disk.Bavail) * int64(disk.Bsize)
	if err := os.WriteFile(filler, make([]byte, max(0, room-but)), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
}

// ReadOnly makes a [SmallDisk] one that can't be written.
func ReadOnly(t testing.TB, dir string) {
	t.Helper()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}
