package e2etest_test

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// These tests need nothing of Caddy but `respond`.
const site = "http://127.0.0.1:{{port}} {\n\trespond {$WORD:one}\n}\n"

func get(t *testing.T, server *e2etest.Server) string {
	t.Helper()
	return e2etest.Send(t, http.MethodGet, server.URL("/"), "").Body
}

func TestServerKeepsItsPortsOverReloadAndRestart(t *testing.T) {
	server := e2etest.Start(t, site, e2etest.Env("WORD=word-{{port}}"))
	first := server.URL("/")
	want := server.Expand("word-{{port}}")
	if got := get(t, server); got != want {
		t.Fatalf("answer %q, want %q", got, want)
	}
	if err := server.Reload(strings.Replace(site, "{$WORD:one}", "two", 1)); err != nil {
		t.Fatal(err)
	}
	if got := get(t, server); got != "two" {
		t.Errorf("after the reload: %q", got)
	}
	err := server.Reload("http://127.0.0.1:{{port}} {\n\tno_such_directive\n}\n")
	if err == nil || !strings.Contains(err.Error(), "no_such_directive") {
		t.Errorf("a bad config gives %v", err)
	}
	pid := server.PID()
	server.Kill()
	server.Restart()
	if server.PID() == pid {
		t.Error("the process is the same after Restart")
	}
	server.Restart()
	if got := get(t, server); got != "two" || server.URL("/") != first {
		t.Errorf("after the restart: %q at %s", got, server.URL("/"))
	}
	if got := strings.Count(server.Log(), "serving initial configuration"); got != 3 {
		t.Errorf("the log tells of %d starts", got)
	}
}

func TestServerTellsHowItIs(t *testing.T) {
	server := e2etest.Start(t, site)
	if rss, err := server.RSS(); err != nil || rss < 10<<20 || rss > 1<<30 {
		t.Errorf("RSS %d, %v", rss, err)
	}
	if n, err := server.Goroutines(); err != nil || n < 3 {
		t.Errorf("%d goroutines, %v", n, err)
	}
	if err := server.Wait(time.Millisecond); !errors.Is(err, e2etest.ErrTimeout) {
		t.Errorf("a running server ended with %v", err)
	}
	if err := server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(patience); err != nil {
		t.Error(err)
	}
}

func TestServerThatEndsByItselfFailsTheTest(t *testing.T) {
	inner := &recorder{TB: t}
	server := e2etest.Start(inner, site)
	self, err := os.FindProcess(server.PID())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait(patience)
	inner.end()
	if !inner.failed {
		t.Error("nobody noticed")
	}
}

func TestServerSpeaksEveryProtocol(t *testing.T) {
	server := e2etest.Start(t, `{
	skip_install_trust
	auto_https disable_redirects
}
https://127.0.0.1:{{tls}} {
	tls internal
	respond {http.request.proto}
}
`, e2etest.AwaitTLS("127.0.0.1:{{tls}}"))
	url := server.Expand("https://127.0.0.1:{{tls}}/")
	for want, client := range map[string]*http.Client{
		"HTTP/1.1": e2etest.H1(t), "HTTP/2.0": e2etest.H2(t), "HTTP/3.0": e2etest.H3(t),
	} {
		if got := e2etest.Send(t, http.MethodGet, url, "", e2etest.Via(client)).Body; got != want {
			t.Errorf("%s got %q", want, got)
		}
	}
}

func TestCaddyCommandRuns(t *testing.T) {
	server := e2etest.Start(t, site)
	good := server.WriteFile("good", site)
	bad := server.WriteFile("bad", "localhost {\n\tno_such_directive\n}\n")
	if out, err := e2etest.Caddy(t, "validate", "--adapter", "caddyfile", "--config", good); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := e2etest.Caddy(t, "validate", "--adapter", "caddyfile", "--config", bad); err == nil || !strings.Contains(out, "no_such_directive") {
		t.Errorf("%v: %s", err, out)
	}
}
