package progress_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience bounds each wait; it is long because tests load the machine.
const patience = 30 * time.Second

func TestMain(m *testing.M) { e2etest.Main(m) }

func TestRunningJobSurvivesAReload(t *testing.T) {
	site := start(t, "PACE=300ms")
	page := site.open(e2etest.Chromium(t), t, "alice")
	page.Screenshots("progress-empty")
	page.Click("[data-kind=export]")
	page.Await(`$("progress")?.value >= 5`)
	before := e2etest.Eval[int](page, `$("progress").value`)
	page.Do(chromedp.Reload())
	page.Await(`$("progress")?.value >= %d`, before)
	page.Await(`$("progress").value > %d && $(".job").dataset.state === "running"`, before+1)
	if jobs := e2etest.Eval[int](page, `$$(".job").length`); jobs != 1 {
		t.Errorf("the page shows %d jobs", jobs)
	}
	page.Click("[data-kind=video]")
	page.Await(`$$(".job").length === 2 && document.title.endsWith("%% · Prepare video")`)
	page.Await(`$("[aria-current=step]").textContent === "Unpack"`)
	page.Screenshots("progress-running")
}

func TestJobsThatEndedAreThereAfterAReload(t *testing.T) {
	site := start(t, "PACE=1ms")
	page := site.open(e2etest.Chromium(t), t, "alice")
	shown := func() {
		t.Helper()
		page.Await(`$$(".job").length === 2 && $$("[data-state=running]").length === 0`)
		if got, want := page.Text("[data-state=failed] .note"), "Row 696 has no e-mail address."; got != want {
			t.Errorf("the import says %q, want %q", got, want)
		}
		if got, want := page.Text("[data-state=failed] .percent"), "58 %"; got != want {
			t.Errorf("the import failed at %q, want %q", got, want)
		}
		if got, want := page.Text("[data-state=failed] [data-stage=failed]"), "Check rows"; got != want {
			t.Errorf("the import failed in %q, want %q", got, want)
		}
		if got, want := page.Text("[data-state=done] .note"), "48200 of 48200 orders"; got != want {
			t.Errorf("the export says %q, want %q", got, want)
		}
		if !page.Is(`$$("[data-state=done] .stages li").every((stage) => stage.dataset.stage === "done")`) {
			t.Error("the export is done, but not all of its stages are")
		}
		if !page.Is(`$(".job").dataset.state === "done"`) {
			t.Error("the newest job does not stand first")
		}
	}
	page.Click("[data-kind=import]")
	page.Await(`$$("[data-state=failed]").length === 1`)
	page.Click("[data-kind=export]")
	shown()
	page.Do(chromedp.Reload())
	shown()
	page.Screenshots("progress")
}

func TestEverybodySeesTheirOwnJobsOnAllTheirScreens(t *testing.T) {
	site := start(t, "PACE=5ms")
	browser := e2etest.Chromium(t)
	desk := site.open(browser, t, "alice")
	phone := site.open(private(browser, t), t, "alice")
	bob := site.open(private(browser, t), t, "bob")

	desk.Click("[data-kind=export]")
	bob.Click("[data-kind=video]")
	for page, title := range map[*e2etest.Page]string{&desk: "Export orders", &phone: "Export orders", &bob: "Prepare video"} {
		page.Await(`$(".job")?.dataset.state === "done"`)
		if got := e2etest.Eval[string](*page, `$$(".job h3").map((title) => title.textContent).join()`); got != title {
			t.Errorf("%s sees %q, want %q", page.Text("#me"), got, title)
		}
	}
}

func TestPageOutlivesCaddyAndTheBackend(t *testing.T) {
	site := start(t, "PACE=200ms")
	page := site.open(e2etest.Chromium(t), t, "alice")
	page.Click("[data-kind=video]")
	page.Await(`$("progress")?.value >= 5`)
	site.Kill()
	page.Await(`$("#state").dataset.state === "waiting"`)
	before := e2etest.Eval[int](page, `$("progress").value`)
	site.Restart()
	page.Await(`$("#state").dataset.state === "live" && $("progress").value > %d`, before)

	site.stopBackend()
	page.Await(`$(".job").hasAttribute("data-silent") && $(".tag").textContent.startsWith("No news for ")`)
	page.Screenshots("progress-silent")
	page.Click("[data-kind=export]")
	page.Await(`$("#trouble").textContent.includes("Is it running?")`)
	site.startBackend(t)
	page.Click("[data-kind=export]")
	page.Await(`$$(".job").length === 2 && $("#trouble").hidden`)
}

func TestReportNeverBecomesHTML(t *testing.T) {
	site := start(t)
	page := site.open(e2etest.Chromium(t), t, "alice")
	e2etest.Publish(t, site.URL("/publish?user=alice&event=job"), `{"id":"\"<b>","title":"<b>title</b>","state":"failed","percent":1,
		"stages":["<b>stage</b>"],"stage":0,"note":"<b>note</b>","started":0,"at":90000}`, e2etest.Header("Authorization", "Bearer secret"))
	page.Await(`$(".job")?.dataset.state === "failed"`)
	for selector, want := range map[string]string{".job h3": "<b>title</b>", ".stages": "<b>stage</b>", ".note": "<b>note</b>"} {
		if got := page.Text(selector); got != want {
			t.Errorf("%s is %q, want %q", selector, got, want)
		}
	}
	if got := page.Text(".time"); !strings.HasSuffix(got, ", 1 min 30 s") {
		t.Errorf("the time is %q", got)
	}
}

// By HTTP alone.
func TestNobodySeesOrStartsJobsOfOthers(t *testing.T) {
	site := start(t, "PACE=1ms")
	for _, path := range []string{"/", "/events", "/events?user=alice", "/me", "/jobs"} {
		answer := e2etest.Send(t, http.MethodGet, site.URL(path), "", e2etest.Header("Remote-User", "alice"))
		if answer.Status != http.StatusUnauthorized {
			t.Errorf("GET %s without signing in: answered %d", path, answer.Status)
		}
	}
	alice := e2etest.Subscribe(t, site.URL("/events?topic=**"), signIn("alice"))
	alice.Connected(t)
	bob := e2etest.Subscribe(t, site.URL("/events?topic=**"), signIn("bob"), e2etest.Header("Remote-User", "alice"))
	bob.Connected(t)
	form := e2etest.Header("Content-Type", "application/x-www-form-urlencoded")
	start := func(want int, options ...e2etest.Option) {
		t.Helper()
		answer := e2etest.Send(t, http.MethodPost, site.URL("/jobs"), "kind=export", append(options, form)...)
		if answer.Status != want {
			t.Errorf("starting a job: answered %d, want %d: %s", answer.Status, want, answer.Body)
		}
	}
	start(http.StatusAccepted, signIn("bob"), e2etest.Header("Remote-User", "alice"))
	event, err := bob.Next(patience)
	if err != nil || event.Name != "job" {
		t.Fatalf("Bob got %+v: %v", event, err)
	}
	start(http.StatusUnauthorized, e2etest.Header("Remote-User", "alice"))
	start(http.StatusForbidden, signIn("alice"), e2etest.Header("Sec-Fetch-Site", "cross-site"))

	publish := func(path string, want int, options ...e2etest.Option) {
		t.Helper()
		answer := e2etest.Send(t, http.MethodPost, site.URL(path), "x", options...)
		if answer.Status != want {
			t.Errorf("POST %s: answered %d, want %d", path, answer.Status, want)
		}
	}
	publish("/publish?user=alice", http.StatusUnauthorized, signIn("bob"))
	publish("/publish?user=alice", http.StatusUnauthorized, e2etest.Header("Authorization", "Bearer guessed"))
	publish("/events?user=alice", http.StatusForbidden, signIn("bob"))
	answer := e2etest.Send(t, http.MethodGet, site.URL("/publish?topic=**"), "", e2etest.Header("Authorization", "Bearer secret"))
	if answer.Status != http.StatusNotFound {
		t.Errorf("GET /publish: answered %d", answer.Status)
	}
	e2etest.Publish(t, site.URL("/publish?user=alice"), "the first of hers", e2etest.Header("Authorization", "Bearer secret"))
	alice.Expect(t, "the first of hers")
}

// site is the example as its README says, but for the ports and the token.
type site struct {
	*e2etest.Server
	binary  string
	env     []string
	backend *exec.Cmd
}

func start(t *testing.T, env ...string) *site {
	t.Helper()
	s := &site{binary: e2etest.Build(t, "./examples/progress/backend")}
	s.Server = e2etest.Start(t, caddyfile(t), e2etest.WorkDir(e2etest.RepoRoot(t)), e2etest.Env("PUBLISH_TOKEN=secret"))
	s.env = append(env, "PUBLISH_TOKEN=secret", "PUBLISH_URL="+s.URL("/publish"), "ADDRESS="+s.Expand("127.0.0.1:{{backend}}"))
	t.Cleanup(s.stopBackend)
	s.startBackend(t)
	return s
}

func caddyfile(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "examples", "progress", "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{":8080", "127.0.0.1:9093"} {
		if !strings.Contains(string(content), address) {
			t.Fatalf("the Caddyfile does not speak of %s", address)
		}
	}
	return strings.NewReplacer(":8080", ":{{port}}", "127.0.0.1:9093", "127.0.0.1:{{backend}}").Replace(string(content))
}

func (s *site) startBackend(t *testing.T) {
	t.Helper()
	s.backend = exec.Command(s.binary)
	s.backend.Env = append(os.Environ(), s.env...)
	s.backend.Stderr = os.Stderr
	if err := s.backend.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		answer, err := e2etest.Do(t.Context(), http.MethodPost, s.Expand("http://127.0.0.1:{{backend}}/jobs"), "")
		if err == nil && answer.Status == http.StatusBadRequest {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the backend does not serve: %v", err)
		}
	}
}

func (s *site) stopBackend() {
	_ = s.backend.Process.Kill()
	_ = s.backend.Wait()
}

// open signs in as the browser does, loads the page and waits until it is subscribed.
func (s *site) open(tab context.Context, t *testing.T, user string) e2etest.Page {
	t.Helper()
	address, err := url.Parse(s.URL("/"))
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.UserPassword(user, "caddy")
	e2etest.OpenPage(tab, t, address.String())
	page := e2etest.OpenPage(tab, t, s.URL("/")) // the browser knows the password now
	page.Await(`$("#state")?.dataset.state === "live" && $("#me").textContent === %q`, user)
	return page
}

// private opens a tab with passwords of its own.
func private(browser context.Context, t *testing.T) context.Context {
	t.Helper()
	tab, closeTab := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(closeTab)
	if err := chromedp.Do(tab); err != nil { // its first use must have no deadline
		t.Fatal(err)
	}
	return tab
}

func signIn(user string) e2etest.Option {
	request := http.Request{Header: http.Header{}}
	request.SetBasicAuth(user, "caddy")
	return e2etest.Header("Authorization", request.Header.Get("Authorization"))
}
