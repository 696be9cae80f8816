package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// What docs/tuning.md tells to write into nginx.
func TestNginxPassesStreamsAndPublishesOnAsTheyCome(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, `
		{
			servers {
				trusted_proxies static private_ranges
				trusted_proxies_strict
			}
		}
		http://127.0.0.1:{{port}} {
			sse /events {
				max_clients_per_ip 1
				publish {
					open
				}
			}
		}`)
	front := nginx(t, server)
	stream := e2etest.Subscribe(t, front+"/events?topic=news", e2etest.Header("X-Forwarded-For", "192.0.2.1"))
	stream.Connected(t)
	e2etest.Publish(t, front+"/events?topic=news", "one")
	event := stream.Expect(t, "one")

	// Each line is there before the next is sent.
	lines, body := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front+"/events?topic=news", lines)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	answered := make(chan error, 1)
	go func() {
		response, err := e2etest.H1(t).Do(request)
		if err == nil {
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				err = fmt.Errorf("answered %s", response.Status)
			}
		}
		answered <- err
	}()
	for i := range 3 {
		fmt.Fprintln(body, i)
		stream.Expect(t, fmt.Sprint(i))
	}
	_ = body.Close()
	if err := <-answered; err != nil {
		t.Error(err)
	}

	// The address is the client's, and so is the limit.
	_, err = e2etest.Open(t.Context(), front+"/events?topic=news", e2etest.Header("X-Forwarded-For", "192.0.2.1"))
	if err == nil || !strings.Contains(err.Error(), "429") {
		t.Errorf("a second stream of the same address: %v, want 429", err)
	}
	again := e2etest.Subscribe(t, front+"/events?topic=news", e2etest.LastEventID(event.ID), e2etest.Header("X-Forwarded-For", "192.0.2.2"))
	if resume := again.Connected(t).Resume; resume != "complete" {
		t.Errorf("resume is %q", resume)
	}
	for i := range 3 {
		again.Expect(t, fmt.Sprint(i))
	}
}

// nginx runs one in front of a server, as docs/tuning.md tells, and returns its URL.
func nginx(t *testing.T, server *e2etest.Server) string {
	t.Helper()
	program := e2etest.Need(t, "nginx", "/usr/sbin/nginx")
	docs, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "docs", "tuning.md"))
	if err != nil {
		t.Fatal(err)
	}
	location := regexp.MustCompile("(?s)```nginx\n(.*?)```").FindSubmatch(docs)
	if location == nil || !bytes.Contains(location[1], []byte("127.0.0.1:8080")) {
		t.Fatal("docs/tuning.md does not show nginx in front of 127.0.0.1:8080")
	}
	dir := t.TempDir()
	port := e2etest.FreePort(t)
	config := fmt.Sprintf(`
		daemon off;
		master_process off;
		pid nginx.pid;
		error_log stderr;
		events {}
		http {
			access_log off;
			client_body_temp_path body;
			proxy_temp_path proxy;
			fastcgi_temp_path fastcgi;
			uwsgi_temp_path uwsgi;
			scgi_temp_path scgi;
			server {
				listen 127.0.0.1:%d;
				%s
			}
		}`, port, strings.ReplaceAll(string(location[1]), "127.0.0.1:8080", server.Expand("127.0.0.1:{{port}}")))
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-p", dir, "-c", "nginx.conf", "-e", "stderr")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("nginx said:\n%s", &log)
		}
	})
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		answer, err := e2etest.Do(t.Context(), http.MethodHead, url+"/events", "")
		if err == nil && answer.Status == http.StatusOK {
			return url
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not serve: %v %d", err, answer.Status)
		}
	}
}
