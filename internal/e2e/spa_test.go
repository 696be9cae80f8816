package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// A single-page app's try_files takes the route's requests. Whoever starts Caddy is told, and so is whoever reloads it;
// the cure that the log names is one.
func TestStartAndReloadTellThatAnAppTakesTheRoute(t *testing.T) {
	t.Parallel()
	const trapped = "http://127.0.0.1:{{port}} {\n\troot * {{dir}}\n\tsse /events\n\ttry_files {path} /index.html\n\tfile_server\n}\n"
	const cured = "http://127.0.0.1:{{port}} {\n\troot * {{dir}}\n\thandle /events {\n\t\tsse\n\t}\n" +
		"\thandle {\n\t\ttry_files {path} /index.html\n\t\tfile_server\n\t}\n}\n"
	const warning = "requests for /events do not reach sse"
	server := e2etest.Start(t, trapped)
	server.WriteFile("index.html", "<!doctype html><title>App</title>")
	if answer := e2etest.Send(t, http.MethodGet, server.URL("/events"), ""); !strings.Contains(answer.Body, "<title>App") {
		t.Errorf("/events is answered %d: %s", answer.Status, answer.Body)
	}
	if log := server.Log(); strings.Count(log, warning) != 1 || !strings.Contains(log, "handle /events { sse }") {
		t.Errorf("the log does not warn once, and name the cure:\n%s", log)
	}
	if err := server.Reload(cured); err != nil {
		t.Fatal(err)
	}
	e2etest.Subscribe(t, server.URL("/events?topic=a")).Connected(t)
	if answer := e2etest.Send(t, http.MethodGet, server.URL("/any/path"), ""); !strings.Contains(answer.Body, "<title>App") {
		t.Errorf("the app is answered %d: %s", answer.Status, answer.Body)
	}
	if strings.Count(server.Log(), warning) != 1 {
		t.Error("the cure is warned of, too")
	}
	if err := server.Reload(trapped); err != nil {
		t.Fatal(err)
	}
	if strings.Count(server.Log(), warning) != 2 {
		t.Error("the reload does not warn")
	}
}
