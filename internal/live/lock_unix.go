//go:build unix

package live

import (
	"io"
	"os"
	"syscall"
)

// lockFile locks a file until it is closed. It fails at once if another process has it locked.
func lockFile(f *os.File) error {
	return syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart})
}
