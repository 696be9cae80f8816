//go:build unix

package aichat_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestScriptStartsAllAndStopsAll(t *testing.T) {
	e2etest.Need(t, "redis-server")
	ports := map[string]string{}
	for _, port := range []string{"8080", "8081", "8082", "9092", "6398", "2020", "2021", "2022"} {
		ports[port] = freePort(t, ports)
	}
	root := copyWithPorts(t, ports)
	script := exec.Command(filepath.Join(root, "examples", "ai-chat", "cluster"))
	script.Env = append(os.Environ(), "CADDY="+e2etest.Binary(t), "REDIS_URL=", "PACE=1ms",
		"ADDRESS=127.0.0.1:"+ports["9092"], "GORACE=atexit_sleep_ms=0")
	script.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	script.Stdout, script.Stderr = &out, &out
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-script.Process.Pid, syscall.SIGKILL) // nothing is left unless the test failed
		_ = script.Wait()
		if t.Failed() {
			t.Logf("the script said:\n%s", &out)
		}
	})
	for _, port := range []string{"8080", "8081", "8082", "9092", "6398"} {
		e2etest.Await(t, "port "+port+" is in use", func() bool { return listens(ports[port]) })
	}
	page := open(t, "http://127.0.0.1:"+ports["8080"]+"/")
	page.ask("Are you there?")
	page.Await(`$(".assistant").dataset.state === "done"`)

	if err := script.Process.Signal(os.Interrupt); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	if err := script.Wait(); err != nil {
		t.Error(err)
	}
	for _, port := range ports {
		if listens(port) {
			t.Errorf("port %s is still in use", port)
		}
	}
}

// copyWithPorts makes a copy of what the script uses, with other ports in its files. The backend gets its
// own from the environment.
func copyWithPorts(t *testing.T, ports map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	repo := e2etest.RepoRoot(t)
	for _, dir := range []string{"examples/ai-chat", "eventstream"} { // the backend imports eventstream
		if err := os.CopyFS(filepath.Join(root, dir), os.DirFS(filepath.Join(repo, dir))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(repo, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	number := regexp.MustCompile(`\b\d{4}\b`)
	for _, name := range []string{"cluster", "Caddyfile", "front.caddyfile"} {
		content := number.ReplaceAllStringFunc(read(t, name, "80"), func(found string) string {
			if port, ok := ports[found]; ok {
				return port
			}
			return found
		})
		if err := os.WriteFile(filepath.Join(root, "examples", "ai-chat", name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// freePort returns one that is not among these.
func freePort(t *testing.T, taken map[string]string) string {
	t.Helper()
	for {
		port := fmt.Sprint(e2etest.FreePort(t))
		free := true
		for _, other := range taken {
			free = free && other != port
		}
		if free {
			return port
		}
	}
}

func listens(port string) bool {
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
