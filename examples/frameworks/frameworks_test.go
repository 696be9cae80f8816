package frameworks_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience bounds each wait; it is long because tests load the machine.
const patience = 30 * time.Second

func TestMain(m *testing.M) { e2etest.Main(m) }

func TestNodeListensAndResumes(t *testing.T) {
	node := e2etest.Need(t, "node")
	root := copyWithPackages(t)
	listensAndResumes(t, root, node, filepath.Join(root, "examples", "frameworks", "listen.mjs"))
}

func TestPythonListensAndResumes(t *testing.T) {
	listensAndResumes(t, e2etest.RepoRoot(t), e2etest.Need(t, "python3"), "examples/frameworks/listen.py")
}

func TestGoListensAndResumes(t *testing.T) {
	listensAndResumes(t, e2etest.RepoRoot(t), e2etest.Build(t, "./examples/frameworks/golang"))
}

func TestHtmxShowsAndResumes(t *testing.T) {
	server := start(t, copyWithPackages(t))
	page := e2etest.OpenPage(e2etest.Chromium(t), t, server.URL("/"))
	page.Await(`$("#news")?._htmx?.sse`)
	awaitClient(t, server)
	publish := func(data string) { e2etest.Publish(t, server.URL("/events?topic=fragments"), data) }
	shown := func(want string) {
		t.Helper()
		page.Await(`$$("#news li").map((li) => li.innerHTML).join("|") === %q`, want)
	}
	publish("<li>one</li>")
	publish("<li>two <b>bold</b></li>")
	shown("two <b>bold</b>|one")
	page.Await(`document.getAnimations().length === 0`)
	page.Screenshots("htmx")

	server.Kill()
	server.Restart()
	publish("<li>three</li>")
	shown("three|two <b>bold</b>|one")
	publish("<li>four</li>")
	shown("four|three|two <b>bold</b>|one")
}

// listensAndResumes runs a program that prints what it hears.
func listensAndResumes(t *testing.T, root string, program ...string) {
	t.Helper()
	server := start(t, root)
	heard := run(t, root, append(program, server.URL("/events?topic=news")))
	expect := func(want string) {
		t.Helper()
		select {
		case line := <-heard:
			if line != want {
				t.Fatalf("it printed %q, want %q", line, want)
			}
		case <-time.After(patience):
			t.Fatalf("it never printed %q", want)
		}
	}
	publish := func(data string) {
		t.Helper()
		e2etest.Publish(t, server.URL("/events?topic=news"), data)
	}
	expect("connected none")
	publish("hello")
	expect("message hello")
	publish("snow ☃: two\nlines")
	expect("message snow ☃: two")
	expect("lines")

	// Away, and back with a message that nobody could hear yet, unless it is quicker than we are.
	for i := range 2 {
		server.Kill()
		server.Restart()
		missed := fmt.Sprintf("missed %d", i)
		publish(missed)
		expect("connected complete")
		expect("message " + missed)
	}
}

// start runs the example as its README says, but for the port and a log that outlives a restart.
func start(t *testing.T, root string) *e2etest.Server {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "examples", "frameworks", "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content, []byte(":8080")) {
		t.Fatal("the Caddyfile listens elsewhere than on :8080")
	}
	caddyfile := "{\n\tsse {\n\t\tbroker bolt {{dir}}/sse.db\n\t}\n}\n" + strings.ReplaceAll(string(content), ":8080", ":{{port}}")
	return e2etest.Start(t, caddyfile, e2etest.WorkDir(root))
}

// copyWithPackages returns the root of a copy of the example with what npm installs, as package-lock.json
// pins it.
func copyWithPackages(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join("examples", "frameworks")
	e2etest.CopyWithPackages(t, filepath.Join(e2etest.RepoRoot(t), dir), filepath.Join(root, dir))
	return root
}

// run starts a program and returns the lines it prints; it ends with the test.
func run(t *testing.T, dir string, command []string) <-chan string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = dir
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, in := io.Pipe()
	cmd.Stdout = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = out.Close()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", cmd, &complaints)
		}
	})
	lines := make(chan string, 100)
	go func() {
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	return lines
}

// awaitClient waits until somebody listens.
func awaitClient(t *testing.T, server *e2etest.Server) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		answer := e2etest.Send(t, "GET", server.AdminURL("/sse/hubs/default/clients"), "")
		if strings.Contains(answer.Body, "client_id") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody listens: %s", answer.Body)
		}
	}
}
