package e2etest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long the harness waits for what ought to happen at once. It
// is long because tests load the machine.
const patience = 30 * time.Second

// Await returns when a condition holds, and fails the test if it does not come
// to, for longer than any load of the machine explains.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for this: %s", what)
		}
	}
}

// ErrTimeout is what waits of the caller's own length end with.
var ErrTimeout = errors.New("timed out")

// process is a running child with its output in a file. The file outlives
// restarts, as it is appended to.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; to be read after done
}

func startProcess(cmd *exec.Cmd, logFile string) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Linux ends the child when the *thread* that started it ends, so
		// the thread must be ours until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// await returns when the process is ready, or why it will not be.
func (p *process) await(ready func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := ready()
		switch {
		case err == nil:
			return nil
		case p.ended():
			return fmt.Errorf("it ended by itself: %v", p.err)
		case time.Now().After(deadline):
			return fmt.Errorf("it is not ready after %v: %w", patience, err)
		}
	}
}

func (p *process) signal(sig os.Signal) error {
	return p.cmd.Process.Signal(sig)
}

// kill ends the process without asking it, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// wait returns how the process ended, or ErrTimeout.
func (p *process) wait(timeout time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(timeout):
		return fmt.Errorf("process %d still runs after %v: %w", p.cmd.Process.Pid, timeout, ErrTimeout)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// rss returns the resident memory in bytes.
func (p *process) rss() (int64, error) {
	pid := strconv.Itoa(p.cmd.Process.Pid)
	if runtime.GOOS != "linux" {
		out, err := exec.Command("ps", "-o", "rss=", "-p", pid).Output()
		if err != nil {
			return 0, err
		}
		return parseKB(string(out))
	}
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kb, _, _ := strings.Cut(rest, "kB")
	return parseKB(kb)
}

func parseKB(s string) (int64, error) {
	kb, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	return kb << 10, err
}

func readLog(t testing.TB, logFile string) string {
	t.Helper()
	log, err := os.ReadFile(logFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading the log: %v", err)
	}
	return string(log)
}

// showLogOnFailure gives the end of a program's log to a test that failed.
func showLogOnFailure(t testing.TB, name, logFile string) {
	t.Helper()
	if !t.Failed() {
		return
	}
	const most = 32 << 10
	log := readLog(t, logFile)
	if len(log) > most {
		log = "[...]" + log[len(log)-most:]
	}
	t.Logf("log of %s:\n%s", name, log)
}
