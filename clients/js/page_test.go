package js_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// A page can be hidden for its scripts only: a browser without a window shows each of its tabs.
const hide = `(() => {
	Object.defineProperty(document, "hidden", { value: %t, configurable: true });
	document.dispatchEvent(new Event("visibilitychange"));
})()`

func TestPageResumesKeepsItsIDAndPausesWhileHidden(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, strings.Replace(open, ":{{port}} {", ":{{port}} {\n\troot * {{dir}}\n\tfile_server", 1))
	page := openPage(t, server, `
		import { subscribe } from "./caddy-sse.js";
		window.got = [];
		window.gaps = 0;
		window.subscription = subscribe("events", {
			topics: ["a"],
			pauseWhileHidden: true,
			event({ data }) {
				got.push(data);
				if (data === "throw") throw new Error("from the page");
			},
			gap() { gaps++; },
		});`)
	publish := func(data string) { e2etest.Publish(t, server.URL("/events?topic=a"), data) }
	page.Await(`window.subscription?.state === "live"`)
	id := e2etest.Eval[string](page, `subscription.clientId`)

	publish("throw")
	publish("goes on")
	page.Await(`got.join() === "throw,goes on"`)

	page.Await(`(`+hide+`, subscription.state === "paused")`, true)
	awaitClients(t, server, 0)
	publish("while hidden")
	page.Await(`(`+hide+`, subscription.state !== "paused")`, false)
	page.Await(`got.join() === "throw,goes on,while hidden"`)

	server.Kill()
	server.Restart()
	publish("after a restart")
	page.Await(`got.at(-1) === "after a restart" && got.length === 4 && gaps === 0`)

	// The name is the tab's, over reloads.
	page.Do(chromedp.Reload())
	page.Await(`window.subscription?.state === "live" && subscription.clientId === %q`, id)
}

// openPage opens a page with a script, which can import the client from "./caddy-sse.js".
func openPage(t *testing.T, server *e2etest.Server, script string) e2etest.Page {
	t.Helper()
	client, err := os.ReadFile(filepath.Join("dist", "caddy-sse.js"))
	if err != nil {
		t.Fatal(err)
	}
	server.WriteFile("caddy-sse.js", string(client))
	server.WriteFile("index.html", `<!doctype html><title>Test</title><script type="module">`+script+`</script>`)
	return e2etest.OpenPage(e2etest.Chromium(t), t, server.URL("/index.html"))
}

// awaitClients waits until so many clients are connected.
func awaitClients(t *testing.T, server *e2etest.Server, n int) {
	t.Helper()
	e2etest.Await(t, "clients to come or go", func() bool {
		var page struct {
			Clients []any
			Next    string
		}
		e2etest.Send(t, http.MethodGet, server.AdminURL("/sse/hubs/default/clients"), "").Decode(t, &page)
		return len(page.Clients) == n
	})
}

// What is kept for the tab may be the name of whoever was signed in before.
func TestIDThatBelongsToAnotherIsReplacedOnce(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, `
:{{port}} {
	root * {{dir}}
	file_server
	sse /events {
		user {query.u}
		publish {
			open
		}
	}
}
`)
	page := openPage(t, server, `
		import { subscribe } from "./caddy-sse.js";
		window.start = (user) => (window.subscription = subscribe("events?u=" + user, { topics: "a" }));`)
	page.Await(`window.start?.("alice")`)
	page.Await(`subscription.state === "live"`)
	alice := e2etest.Eval[string](page, `subscription.clientId`)
	page.Await(`window.start("bob")`) // while alice is there
	page.Await(`subscription.state === "live" && subscription.clientId !== %q`, alice)
}
