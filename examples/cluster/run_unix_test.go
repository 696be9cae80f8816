//go:build unix

package cluster_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestScriptStartsAllAndStopsAll(t *testing.T) {
	e2etest.Need(t, "redis-server")
	root, ports := copyWithFreePorts(t)
	front := "http://127.0.0.1:" + ports["8080"] + "/events?topic=cluster"
	answers := func(url string) func() bool {
		return func() bool {
			answer, err := e2etest.Do(t.Context(), http.MethodPost, url, "hello")
			return err == nil && answer.Status == http.StatusOK
		}
	}
	all := script(t, root)
	e2etest.Await(t, "the front accepts a publish", answers(front))

	listens := map[string]*e2etest.Stream{}
	e2etest.Await(t, "there is a stream on each instance", func() bool {
		stream := e2etest.Subscribe(t, front)
		name, _, _ := strings.Cut(stream.Connected(t).ClientID, ".")
		listens[name] = stream
		return listens["one"] != nil && listens["two"] != nil
	})

	// The commands of the page.
	kill := exec.Command("sh", "-c", "kill -9 $(cat build/cluster/one.pid)")
	kill.Dir = root
	if out, err := kill.CombinedOutput(); err != nil {
		t.Fatalf("killing one: %v: %s", err, out)
	}
	if err := listens["one"].Ended(patience); err == nil {
		t.Error("the stream on one did not break")
	}
	e2etest.Await(t, "the front accepts a publish without one", answers(front))
	again := script(t, root, "one")
	e2etest.Await(t, "one is back", answers("http://127.0.0.1:"+ports["8081"]+"/events?topic=cluster"))

	if err := all.Process.Signal(os.Interrupt); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	for _, cmd := range []*exec.Cmd{all, again} {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", cmd, err)
		}
	}
	for _, port := range ports {
		if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			conn.Close()
			t.Errorf("port %s is still in use", port)
		}
	}
}

// copyWithFreePorts makes a copy of the example in which every port is another
// one, which it returns by the old.
func copyWithFreePorts(t *testing.T) (root string, ports map[string]string) {
	t.Helper()
	root = t.TempDir()
	dir := filepath.Join(root, "examples", "cluster")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(e2etest.RepoRoot(t), "examples", "cluster"))); err != nil {
		t.Fatal(err)
	}
	ports = map[string]string{}
	taken := map[int]bool{}
	for _, port := range []string{"8080", "8081", "8082", "6399", "2020", "2021", "2022"} {
		free := e2etest.FreePort(t)
		for taken[free] {
			free = e2etest.FreePort(t)
		}
		taken[free] = true
		ports[port] = fmt.Sprint(free)
	}
	number := regexp.MustCompile(`\b\d{4}\b`)
	for _, name := range []string{"run", "instance.caddyfile", "front.caddyfile"} {
		content := number.ReplaceAllStringFunc(read(t, name, "80"), func(found string) string {
			if port, ok := ports[found]; ok {
				return port
			}
			return found
		})
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root, ports
}

// script starts the example's own script; whatever it starts ends with the test.
func script(t *testing.T, root string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(root, "examples", "cluster", "run"), args...)
	cmd.Env = append(os.Environ(), "CADDY="+e2etest.Binary(t), "REDIS_URL=", "HOME="+root, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // nothing is left unless the test failed
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd, &out)
		}
	})
	return cmd
}
