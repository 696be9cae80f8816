package cli

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// counter shows on a terminal how many messages have gone by, while the messages themselves go elsewhere.
// Text that is written to it replaces the count; the next count stands below.
type counter struct {
	io.Writer // the terminal
	unit      string
	messages  atomic.Uint64
}

// say writes a line for the user. What stands in it may come from outside.
func (c *counter) say(format string, args ...any) {
	fmt.Fprintln(c, printableLine(fmt.Sprintf(format, args...)))
}

// clearLine moves the cursor to the beginning of the line and empties the line.
const clearLine = "\r\x1b[K"

// show begins to count if standard error is a terminal and the messages don't come from it or go to it.
func (c *counter) show(messages *os.File) (stop func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) || term.IsTerminal(int(messages.Fd())) {
		return func() {}
	}
	c.Writer = clearing{c.Writer}
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for last := uint64(0); ; {
			select {
			case <-ticker.C:
				n := c.messages.Load()
				fmt.Fprintf(c, "%d %s, %d/s", n, c.unit, n-last)
				last = n
			case <-done:
				fmt.Fprintf(c, "%d %s\n", c.messages.Load(), c.unit)
				return
			}
		}
	}()
	return func() { close(done); <-stopped }
}

// clearing is a terminal on which each write begins with an empty line.
type clearing struct{ terminal io.Writer }

func (c clearing) Write(p []byte) (int, error) {
	_, err := c.terminal.Write(append([]byte(clearLine), p...))
	return len(p), err
}
