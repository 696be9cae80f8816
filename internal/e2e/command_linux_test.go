package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// screen is a terminal and what has been written to it.
type screen struct {
	terminal *os.File // the program's side

	mu    sync.Mutex // guards shown
	shown strings.Builder
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		e2etest.Lack(t, "a terminal: "+err.Error())
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	s := new(screen)
	if s.terminal, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.terminal.Close() })
	go func() { // ends with the terminal
		for buffer := make([]byte, 1<<10); ; {
			n, err := keyboard.Read(buffer)
			s.mu.Lock()
			s.shown.Write(buffer[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// start runs a command whose standard error is the terminal.
func (s *screen) start(t *testing.T, in, out *os.File, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(e2etest.Binary(t), append([]string{"sse"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, s.terminal
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestTerminalShowsACountWhileOutputGoesToAFile(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, openSite)
	events := server.URL("/events?topic=news")
	file := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	input, lines, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()

	elsewhere, both, publishing := newScreen(t), newScreen(t), newScreen(t)
	toFile := elsewhere.start(t, nil, out, "listen", events)
	toTerminal := both.start(t, nil, both.terminal, "listen", events)
	for _, s := range []*screen{elsewhere, both} {
		e2etest.Await(t, "connected", func() bool { return strings.Contains(s.text(), "connected ") })
	}
	publisher := publishing.start(t, input, out, "publish", events)
	for _, text := range []string{"0", "1", "2", "\x1b]0;3\a", "4", "5", "6"} {
		fmt.Fprintln(lines, text)
	}
	e2etest.Await(t, "a count of messages", func() bool { return strings.Contains(elsewhere.text(), "\r\x1b[K7 messages, ") })
	e2etest.Await(t, "a count of lines", func() bool { return strings.Contains(publishing.text(), "\r\x1b[K7 lines, ") })
	_ = lines.Close()
	if err := publisher.Wait(); err != nil {
		t.Error(err)
	}
	e2etest.Await(t, "the last message", func() bool { return strings.HasSuffix(both.text(), "\r\n6\r\n") })
	for _, cmd := range []*exec.Cmd{toFile, toTerminal} {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	e2etest.Await(t, "the last count", func() bool { return strings.HasSuffix(elsewhere.text(), "\r\x1b[K7 messages\r\n") })
	if shown := both.text(); strings.Contains(shown, "messages") || !strings.Contains(shown, "\ufffd]0;3\ufffd\r\n") {
		t.Errorf("where the messages themselves are shown, be they meant for the terminal, stands %q", shown)
	}
	if got, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(got), "0\n1\n2\n\x1b]0;3\a\n4\n5\n6\n{") {
		t.Errorf("the file has %q, %v", got, err)
	}
}

func TestListenReportsThatItsOutputCanNotBeWritten(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, openSite)
	events := server.URL("/events?topic=news")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	terminal := newScreen(t)
	cmd := terminal.start(t, nil, full, "listen", events)
	e2etest.Await(t, "connected", func() bool { return strings.Contains(terminal.text(), "connected ") })
	e2etest.Publish(t, events, "x")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("it ended with %d", code)
	}
	e2etest.Await(t, "the reason", func() bool { return strings.Contains(terminal.text(), "can't be written: ") })
}
