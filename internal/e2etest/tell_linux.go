package e2etest

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// tellUser writes a line to where the user looks. That is the standard error of
// the `go test` that started this process, because go test shows nothing of
// what a passing test binary writes. If that can't be had, go test -v will
// show it.
func tellUser(line string) {
	stderr, err := sharedStderr(os.Getppid())
	if err != nil {
		stderr, err = reopenedStderr(os.Getppid())
	}
	if err != nil {
		return
	}
	_, _ = stderr.WriteString(line + "\n")
	_ = stderr.Close()
}

// sharedStderr duplicates a process's standard error. It needs a kernel that
// allows it, as it does for root.
func sharedStderr(pid int) (*os.File, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, 2, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "stderr of the parent"), nil
}

// reopenedStderr opens it anew, which serves for a terminal and a pipe. A file
// would be written at an offset of our own, and so be overwritten.
func reopenedStderr(pid int) (*os.File, error) {
	path := fmt.Sprintf("/proc/%d/fd/2", pid)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() {
		return nil, fs.ErrInvalid
	}
	return os.OpenFile(path, os.O_WRONLY, 0)
}
