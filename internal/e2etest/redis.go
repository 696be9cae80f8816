package e2etest

import (
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Redis is a real redis-server of a test's own. It keeps its port and its files
// over restarts. Its methods that can fail the test belong to the test's
// goroutine.
type Redis struct {
	t       testing.TB
	program string
	args    []string
	port    int
	dir     string
	logFile string
	proc    *process
}

// RedisServer starts a redis-server on a free loopback port with a directory of
// its own, and waits until it answers. It saves nothing unless args say so, as
// in RedisServer(t, "--appendonly", "yes", "--appendfsync", "always").
func RedisServer(t testing.TB, args ...string) *Redis {
	t.Helper()
	return startServer(t, Need(t, "redis-server"), args)
}

// ValkeyServer is RedisServer with Valkey. The test is skipped if this machine has none, since not every
// system has a package of it.
func ValkeyServer(t testing.TB, args ...string) *Redis {
	t.Helper()
	path, err := exec.LookPath("valkey-server")
	if err != nil {
		notice := "SKIPPED: " + t.Name() + " needs valkey-server"
		tellUser(notice)
		t.Skip(notice)
	}
	return startServer(t, path, args)
}

func startServer(t testing.TB, program string, args []string) *Redis {
	t.Helper()
	dir := t.TempDir()
	r := &Redis{
		t:       t,
		program: program,
		port:    FreePort(t),
		dir:     dir,
		logFile: filepath.Join(dir, "redis.log"),
	}
	r.args = append([]string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(r.port), "--dir", dir, "--save", "", "--daemonize", "no",
	}, args...)
	t.Cleanup(func() {
		if r.proc != nil {
			r.proc.kill()
		}
		showLogOnFailure(t, filepath.Base(program)+" at "+r.Addr(), r.logFile)
	})
	r.start()
	return r
}

func (r *Redis) start() {
	r.t.Helper()
	proc, err := startProcess(exec.Command(r.program, r.args...), r.logFile)
	if err != nil {
		r.t.Fatalf("starting redis-server: %v", err)
	}
	r.proc = proc
	if err := proc.await(r.ping); err != nil {
		r.t.Fatalf("starting redis-server: %v", err)
	}
}

// ping fails while Redis still loads its data.
func (r *Redis) ping() error {
	_, err := r.Do(time.Second, "PING")
	if err != nil && strings.HasPrefix(err.Error(), "NOAUTH") {
		return nil // it has a password, and answers
	}
	return err
}

// Addr returns host and port.
func (r *Redis) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)) }

// URL returns redis://host:port.
func (r *Redis) URL() string { return "redis://" + r.Addr() }

// Dir returns the directory of its files, dump.rdb among them.
func (r *Redis) Dir() string { return r.dir }

// Log returns all that it has logged.
func (r *Redis) Log() string { return readLog(r.t, r.logFile) }

// Freeze stops it in its tracks (SIGSTOP): connections stay open and nothing is
// answered until Thaw.
func (r *Redis) Freeze() {
	r.t.Helper()
	if err := r.proc.freeze(); err != nil {
		r.t.Fatalf("freezing redis-server: %v", err)
	}
}

// Thaw undoes Freeze.
func (r *Redis) Thaw() {
	r.t.Helper()
	if err := r.proc.thaw(); err != nil {
		r.t.Fatalf("thawing redis-server: %v", err)
	}
}

// Stop shuts it down in good order, as its system service does.
func (r *Redis) Stop() {
	r.t.Helper()
	_ = r.proc.signal(syscall.SIGTERM)
	if err := r.proc.wait(patience); err != nil {
		r.t.Fatalf("stopping redis-server: %v", err)
	}
}

// Kill ends it without any order (SIGKILL), as a power cut does.
func (r *Redis) Kill() { r.proc.kill() }

// Restart starts it again on the same port and directory, after Stop if it
// still runs.
func (r *Redis) Restart() {
	r.t.Helper()
	if !r.proc.ended() {
		r.Stop()
	}
	r.start()
}
