package e2etest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a running Caddy of a test's own. It keeps its ports and directories
// over restarts.
//
// URL, AdminURL, Expand, Reload, Goroutines and Log may be called from any
// goroutine; the other methods belong to the test's.
type Server struct {
	t       testing.TB
	binary  string
	dir     string // holds config, log, home and what {{dir}} is used for
	workDir string
	env     []string
	admin   string // address of the admin endpoint
	tls     string // "" = no handshake to wait for
	proc    *process
	asked   bool // to end, so that its end is no failure

	caddyfile string // as it was loaded last

	mu   sync.Mutex        // guards vars
	vars map[string]string // by name, without braces
}

// ServerOption changes how [Start] starts a server.
type ServerOption func(*Server)

// Env adds environment variables, each NAME=value. Template variables in them
// are replaced.
func Env(vars ...string) ServerOption {
	return func(s *Server) { s.env = append(s.env, vars...) }
}

// WorkDir runs the server in dir, which relative paths in the Caddyfile start
// from. Without it that is a directory of the server's own.
func WorkDir(dir string) ServerOption {
	return func(s *Server) { s.workDir = dir }
}

// Var gives the template variable {{name}} a value.
func Var(name, value string) ServerOption {
	return func(s *Server) { s.vars[name] = value }
}

// BinaryAt runs the Caddy at this path instead of [Binary].
func BinaryAt(path string) ServerOption {
	return func(s *Server) { s.binary = path }
}

// AwaitTLS makes a start wait until a TLS handshake with this address, such as
// 127.0.0.1:{{tls}}, succeeds: Caddy makes its certificates after it has begun
// to serve.
func AwaitTLS(address string) ServerOption {
	return func(s *Server) { s.tls = address }
}

// Start runs Caddy with a Caddyfile, waits until it serves, and stops it when
// the test ends. The test fails if the server ends by itself, panics, reports a
// data race, or does not stop when asked.
//
// Template variables in the Caddyfile, as in http://127.0.0.1:{{port}}, stand
// for whatever [Var] says; {{dir}} for a directory of the server's own; every
// other one for a free port, the same wherever the name occurs, also after a
// reload and a restart.
//
// The admin endpoint has a free port too. A Caddyfile must not set `admin`. One
// with HTTPS needs `skip_install_trust` and `auto_https disable_redirects`, or
// it wants port 80 and the system's trust store; see also [AwaitTLS].
func Start(t testing.TB, caddyfile string, options ...ServerOption) *Server {
	t.Helper()
	s := &Server{
		t:     t,
		dir:   t.TempDir(),
		admin: fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
		vars:  map[string]string{},
	}
	s.vars["dir"] = filepath.ToSlash(s.dir)
	s.workDir = s.dir
	for _, option := range options {
		option(s)
	}
	if s.binary == "" {
		s.binary = Binary(t)
	}
	t.Cleanup(s.cleanup)
	if err := s.writeConfig(s.Expand(caddyfile)); err != nil {
		t.Fatal(err)
	}
	s.start()
	return s
}

func (s *Server) start() {
	s.t.Helper()
	args := []string{"run", "--config", s.configFile()}
	if config := s.adapted(s.caddyfile); config != nil {
		args[2] = s.WriteFile("caddy.json", string(config))
	} else {
		args = append(args, "--adapter", "caddyfile")
	}
	proc, err := startProcess(s.command(args...), s.logFile())
	if err != nil {
		s.t.Fatalf("starting caddy: %v", err)
	}
	s.proc, s.asked = proc, false
	for _, ready := range []func() error{s.serves, s.shakesHands} {
		if err := proc.await(ready); err != nil {
			s.asked = true // its end is told here
			s.t.Fatalf("starting caddy: %v", err)
		}
	}
}

// command returns a command of the server's own binary, in its place and with its environment.
func (s *Server) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.binary, args...)
	cmd.Dir = s.workDir
	cmd.Env = homeIn(s.dir)
	for _, v := range s.env {
		cmd.Env = append(cmd.Env, s.Expand(v))
	}
	cmd.Env = append(cmd.Env, "CADDY_ADMIN="+s.admin, "GORACE=atexit_sleep_ms=0") // or it lingers for 1 s
	return cmd
}

// homeIn is this process's environment with everything that names a place of
// the user's files pointing into dir.
func homeIn(dir string) []string {
	return append(os.Environ(),
		"HOME="+dir, "AppData="+dir,
		"XDG_CONFIG_HOME="+filepath.Join(dir, "config"),
		"XDG_DATA_HOME="+filepath.Join(dir, "data"),
		"XDG_CACHE_HOME="+filepath.Join(dir, "cache"))
}

// serves asks for the config, which Caddy gives once all of it runs.
func (s *Server) serves() error {
	answer, err := s.askAdmin(http.MethodGet, "/config/", "")
	switch {
	case err != nil:
		return err
	case answer.Status != http.StatusOK || strings.TrimSpace(answer.Body) == "null":
		return fmt.Errorf("the admin endpoint says %d: %s", answer.Status, answer.Body)
	}
	return nil
}

func (s *Server) shakesHands() error {
	if s.tls == "" {
		return nil
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", s.Expand(s.tls), anyCertificate())
	if err != nil {
		return err
	}
	return conn.Close()
}

// askAdmin makes one request on a connection of its own: Caddy closes the admin
// endpoint's at every reload.
func (s *Server) askAdmin(method, path, body string, options ...Option) (Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return Do(ctx, method, s.AdminURL(path), body, options...)
}

func (s *Server) configFile() string { return filepath.Join(s.dir, "Caddyfile") }
func (s *Server) logFile() string    { return filepath.Join(s.dir, "caddy.log") }

func (s *Server) writeConfig(caddyfile string) error {
	s.caddyfile = caddyfile
	return os.WriteFile(s.configFile(), []byte(caddyfile), 0o600)
}

var variable = regexp.MustCompile(`\{\{([a-z][a-z0-9_]*)\}\}`)

// Expand replaces the template variables in text as [Start] does: it is how a
// test learns a port, as in Expand("https://127.0.0.1:{{tls}}/").
func (s *Server) Expand(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return variable.ReplaceAllStringFunc(text, func(match string) string {
		name := strings.Trim(match, "{}")
		if _, known := s.vars[name]; !known {
			s.vars[name] = strconv.Itoa(FreePort(s.t))
		}
		return s.vars[name]
	})
}

// URL returns the URL of a path on http://127.0.0.1:{{port}}.
func (s *Server) URL(path string) string {
	return s.Expand("http://127.0.0.1:{{port}}") + path
}

// AdminURL returns the URL of a path on the admin endpoint.
func (s *Server) AdminURL(path string) string { return "http://" + s.admin + path }

// Reload loads a Caddyfile as `caddy reload --force` does. The error is Caddy's
// answer, and the old config then goes on; a later Restart uses what was loaded
// last. Whoever connects afterwards meets the config that runs.
func (s *Server) Reload(caddyfile string) error {
	caddyfile = s.Expand(caddyfile)
	body, kind := caddyfile, "text/caddyfile"
	if config := s.adapted(caddyfile); config != nil {
		body, kind = string(config), "application/json"
	}
	answer, err := s.askAdmin(http.MethodPost, "/load", body,
		Header("Content-Type", kind), Header("Cache-Control", "must-revalidate"))
	if err != nil {
		return err
	}
	if err := s.awaitListeners(); err != nil {
		return err
	}
	if answer.Status != http.StatusOK {
		return fmt.Errorf("loading the config: %d: %s", answer.Status, strings.TrimSpace(answer.Body))
	}
	return s.writeConfig(caddyfile)
}

// awaitListeners waits until the config that does not run listens nowhere.
func (s *Server) awaitListeners() error {
	_, admin, _ := net.SplitHostPort(s.admin)
	s.mu.Lock()
	ports := append(slices.Collect(maps.Values(s.vars)), admin)
	s.mu.Unlock()
	for _, text := range ports {
		if port, err := strconv.Atoi(text); err == nil {
			if err := AwaitOneListener(port); err != nil {
				return err
			}
		}
	}
	return nil
}

// Signal sends a signal, after which the server may end.
func (s *Server) Signal(sig os.Signal) error {
	s.asked = true
	return s.proc.signal(sig)
}

// Wait returns how the server ended: nil is an exit status of 0, and
// [ErrTimeout] says that it still runs.
func (s *Server) Wait(timeout time.Duration) error { return s.proc.wait(timeout) }

// Stop ends the server with SIGTERM and fails the test if that does not work
// soon.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.stop(); err != nil {
		s.t.Fatal(err)
	}
}

// stop is also what the test's end does, so it must leave nothing that runs.
// Go programs answer SIGABRT with all their stacks.
func (s *Server) stop() error {
	if err := s.Signal(syscall.SIGTERM); err != nil {
		s.proc.kill() // Windows has no SIGTERM
		return nil
	}
	err := s.proc.wait(patience)
	if errors.Is(err, ErrTimeout) {
		_ = s.proc.signal(syscall.SIGABRT)
		_ = s.proc.wait(time.Second)
		s.proc.kill()
	}
	if err != nil {
		return fmt.Errorf("stopping caddy: %w", err)
	}
	return nil
}

// Kill ends the server without asking it (SIGKILL).
func (s *Server) Kill() {
	s.asked = true
	s.proc.kill()
}

// Freeze stops the server in its tracks (SIGSTOP): connections stay open and nothing is answered until Thaw.
func (s *Server) Freeze() {
	s.t.Helper()
	if err := s.proc.freeze(); err != nil {
		s.t.Fatalf("freezing caddy: %v", err)
	}
}

// Thaw undoes Freeze.
func (s *Server) Thaw() {
	s.t.Helper()
	if err := s.proc.thaw(); err != nil {
		s.t.Fatalf("thawing caddy: %v", err)
	}
}

// Restart starts the server again on the same ports, after Stop if it still
// runs.
func (s *Server) Restart() {
	s.t.Helper()
	if !s.proc.ended() {
		s.Stop()
	}
	s.start()
}

// RestartWith is [Server.Restart] with another Caddyfile.
func (s *Server) RestartWith(caddyfile string) {
	s.t.Helper()
	if err := s.writeConfig(s.Expand(caddyfile)); err != nil {
		s.t.Fatal(err)
	}
	s.Restart()
}

// Log returns all that the server has logged, over restarts: lines of JSON,
// and what the Go runtime wrote.
func (s *Server) Log() string { return readLog(s.t, s.logFile()) }

// PID returns the process ID.
func (s *Server) PID() int { return s.proc.cmd.Process.Pid }

// RSS returns the resident memory in bytes.
func (s *Server) RSS() (int64, error) { return s.proc.rss() }

// Goroutines returns how many goroutines the server has now.
func (s *Server) Goroutines() (int, error) {
	answer, err := s.askAdmin(http.MethodGet, "/debug/pprof/goroutine?debug=1", "")
	if err != nil {
		return 0, err
	}
	var n int
	_, err = fmt.Sscanf(answer.Body, "goroutine profile: total %d", &n)
	return n, err
}

func (s *Server) cleanup() {
	s.t.Helper()
	switch {
	case s.proc == nil:
	case !s.proc.ended():
		if err := s.stop(); err != nil {
			s.t.Error(err)
		}
	case !s.asked:
		s.t.Errorf("caddy ended by itself: %v", s.proc.err)
	}
	if crash := findCrash(s.Log()); crash != "" {
		s.t.Errorf("caddy failed:\n%s", crash)
	}
	showLogOnFailure(s.t, "caddy at "+s.admin, s.logFile())
}

// findCrash returns a log from the first data race or panic on, or "".
func findCrash(log string) string {
	for _, mark := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: ", "panic serving"} {
		if i := strings.Index("\n"+log, mark); i >= 0 {
			const most = 8 << 10
			crash := log[max(i-1, 0):]
			return crash[:min(len(crash), most)]
		}
	}
	return ""
}

// Caddy runs one caddy command to its end, such as Caddy(t, "validate",
// "--adapter", "caddyfile", "--config", file), and returns what it printed and
// how it ended.
func Caddy(t testing.TB, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(t), args...)
	cmd.Env = append(homeIn(t.TempDir()), fmt.Sprintf("CADDY_ADMIN=127.0.0.1:%d", FreePort(t)))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("caddy %s: %w", strings.Join(args, " "), ErrTimeout)
	}
	return out.String(), err
}

// WriteFile writes a file into the server's own directory, {{dir}}, with its
// template variables replaced, and returns its path.
func (s *Server) WriteFile(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(s.Expand(content)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}
