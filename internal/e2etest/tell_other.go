//go:build !linux

package e2etest

import "os"

// tellUser writes a line to the terminal if there is one: go test shows nothing
// of what a passing test binary writes.
func tellUser(line string) {
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
	if err != nil {
		return // go test -v will show it
	}
	_, _ = tty.WriteString(line + "\n")
	_ = tty.Close()
}
