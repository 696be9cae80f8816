package reconnect_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

func TestBothResumeAfterACut(t *testing.T) {
	page := open(t, start(t, "%s"))
	page.Click(`[data-break=""]`)
	for _, column := range []string{"browser", "own"} {
		page.Await(`$("#%s .log").textContent.includes("The connection ended")`, column)
		comesBack(page, column, 1)
	}
	nothingIsMissing(t, page)
}

// EventSource dispatches a message that is called error where it tells that a connection was lost.
func TestAMessageCalledErrorIsNoLostConnection(t *testing.T) {
	server := start(t, "%s")
	page := open(t, server)
	e2etest.Publish(t, server.URL("/events?topic=ticks&event=error"), "boom")
	for _, column := range []string{"browser", "own"} {
		comesBack(page, column, 0) // what came behind it
		if page.Is(fmt.Sprintf(`$("#%s .log").textContent.includes("ended")`, column)) {
			t.Errorf("%s says: %s", column, page.Text("#"+column+" .log"))
		}
	}
}

func TestNoPageTakesAMessageForALostConnection(t *testing.T) {
	pages, err := filepath.Glob("../*/www/*.js")
	if err != nil || len(pages) < 8 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		script, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, handler := range strings.Split(string(script), "onerror =")[1:] {
			if first, _, _ := strings.Cut(handler, "lost("); !strings.Contains(first, `"data" in e`) {
				t.Errorf("%s takes any error for a lost connection", page)
			}
		}
	}
}

func TestOnlyTheBrowserGivesUpOnARefusal(t *testing.T) {
	page := open(t, start(t, "%s"))
	resumes := map[string]int{}
	for _, status := range []string{"503", "429", "401"} {
		page.Click(fmt.Sprintf(`[data-break="%s"]`, status))
		page.Await(`$("#browser .state").dataset.state === "closed" && !$("#anew").hidden`)
		page.Await(`$("#own .log").textContent.includes("the server answered %s") || $("#own .log").textContent.includes("The server answered %s")`, status, status)
		resumes["own"]++
		comesBack(page, "own", resumes["own"])
		if status == "503" {
			page.Screenshots("reconnect-given-up")
		}
		// A new EventSource goes on exactly where the old one was.
		awaitNewSource(page)
		resumes["browser"]++
		comesBack(page, "browser", resumes["browser"])
	}
	nothingIsMissing(t, page)
	page.Screenshots("reconnect")
}

// The Retry-After of a refusal is heeded, and told.
func TestOwnClientWaitsAsLongAsItIsTold(t *testing.T) {
	page := open(t, start(t, "%s"))
	page.Click(`[data-break="429"]`)
	page.Await(`/Waits 3\.\d s: the server answered 429/.test($("#own .log").textContent)`)
	comesBack(page, "own", 1)
}

// Not the page's cookie, but the hub itself.
func TestOwnClientOutlastsAFullHub(t *testing.T) {
	server := start(t, "{\n\tsse {\n\t\tmax_clients 2\n\t}\n}\n%s")
	line := e2etest.NewProxy(t, server.Expand("127.0.0.1:{{port}}"))
	page := openAt(t, "http://"+line.Addr()+"/")
	line.Cut()
	guests := []*e2etest.Stream{}
	e2etest.Await(t, "both places to be taken by others", func() bool {
		guest, err := e2etest.Open(t.Context(), server.URL("/events?topic=x"))
		if err == nil {
			guests = append(guests, guest)
		}
		return len(guests) == 2
	})
	line.Heal()
	page.Await(`$("#browser .state").dataset.state === "closed"`)
	page.Await(`$("#own .log").textContent.includes("the server answered 503")`)
	for _, guest := range guests {
		guest.Close()
	}
	comesBack(page, "own", 1)
	awaitNewSource(page)
	comesBack(page, "browser", 1)
	nothingIsMissing(t, page)
}

func TestBothOutlastARestart(t *testing.T) {
	server := start(t, "{\n\tsse {\n\t\tbroker bolt {{dir}}/sse.db\n\t}\n}\n%s")
	page := open(t, server)
	server.Kill()
	page.Await(`$("#own .state").dataset.state === "reconnecting" && $("#browser .state").dataset.state === "reconnecting"`)
	page.Await(`$("#publishing").textContent.includes("does not answer")`)
	server.Restart()
	comesBack(page, "browser", 1)
	comesBack(page, "own", 1)
	nothingIsMissing(t, page)
}

// Whatever the path looks like, nothing else of the admin endpoint can be reached.
func TestOnlyTheClientsOfTheHubArePassedOn(t *testing.T) {
	e2etest.WantNothingElsePassedOn(t, func(behind string) string {
		return start(t, "%s", "{$CADDY_ADMIN:localhost:2019}", behind).Expand("127.0.0.1:{{port}}")
	}, http.MethodDelete, "/sse/hubs/default/clients/", "/sse/hubs/default/clients/a", "/sse/hubs/default/clients/a.b~c")
}

// start runs the example as its README says, but for the port, what stands around the site, and what is
// replaced in it.
func start(t *testing.T, around string, replaced ...string) *e2etest.Server {
	t.Helper()
	content, err := os.ReadFile("Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content, []byte(":8080")) {
		t.Fatal("the Caddyfile listens elsewhere than on :8080")
	}
	site := strings.NewReplacer(append(replaced, ":8080", ":{{port}}")...).Replace(string(content))
	caddyfile := strings.Replace(around, "%s", site, 1)
	return e2etest.Start(t, caddyfile, e2etest.WorkDir(e2etest.RepoRoot(t)))
}

func open(t *testing.T, server *e2etest.Server) e2etest.Page {
	t.Helper()
	return openAt(t, server.URL("/"))
}

func openAt(t *testing.T, url string) e2etest.Page {
	t.Helper()
	page := e2etest.OpenPage(e2etest.Chromium(t), t, url)
	for _, column := range []string{"browser", "own"} {
		comesBack(page, column, 0)
	}
	return page
}

// comesBack waits until a column is live after so many resumes, and has something new since.
func comesBack(page e2etest.Page, column string, resumes int) {
	page.Await(`$("#%s .state")?.dataset.state === "live" && Number($("#%s [data-figure=resumes]").textContent) >= %d`, column, column, resumes)
	received := e2etest.Eval[int](page, `Number($("#%s [data-figure=received]").textContent)`, column)
	page.Await(`Number($("#%s [data-figure=received]").textContent) > %d + 1`, column, received)
}

// awaitNewSource presses the button until the refusal has passed.
func awaitNewSource(page e2etest.Page) {
	for !page.Is(`$("#browser .state").dataset.state === "live"`) {
		page.Click("#anew")
		page.Await(`["live", "closed"].includes($("#browser .state").dataset.state)`)
	}
}

func nothingIsMissing(t *testing.T, page e2etest.Page) {
	t.Helper()
	for _, column := range []string{"browser", "own"} {
		page.Await(`$$("#%s .cell").every((cell) => cell.dataset.how)`, column)
		for _, figure := range []string{"missing", "twice"} {
			if got := page.Text(fmt.Sprintf("#%s [data-figure=%s]", column, figure)); got != "0" {
				t.Errorf("%s: %s %s", column, got, figure)
			}
		}
	}
	if page.Is(`$$(".log").some((log) => log.textContent.includes("Gap"))`) {
		t.Error("there was a gap")
	}
}
