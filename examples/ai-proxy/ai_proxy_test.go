package aiproxy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

// As the README has it, with the model that comes with it.
func TestPageReloadsAndStopsTheFakeModel(t *testing.T) {
	t.Parallel()
	server := start(t, "127.0.0.1:{{model}}")
	said := startFake(t, server.Expand("127.0.0.1:{{model}}"))
	page := e2etest.OpenPage(e2etest.Chromium(t), t, server.URL("/"))
	page.Await(`$(".suggestion")`)
	page.Screenshots("ai-proxy-welcome")
	page.Click(".suggestion")
	hasEvents(page, 20)
	page.Screenshots("ai-proxy-speaking")
	page.Do(chromedp.Reload())
	hasEvents(page, 40)

	page.Click("#cut")
	page.Await(`$(".turn").dataset.state === "away"`)
	page.Screenshots("ai-proxy-cut")
	page.Await(`$(".turn").dataset.state === "done"`)
	want, err := os.ReadFile("model/answer.md")
	if err != nil {
		t.Fatal(err)
	}
	if text := page.Text(".answer"); text != string(want) {
		t.Errorf("the page shows %q", text)
	}
	page.Await(`$(".facts").textContent.includes("cut once, nothing lost, nothing twice")`)
	page.Screenshots("ai-proxy")

	ask(page, "Again?")
	page.Await(`Number($$(".turn").at(-1).dataset.events) > 5`)
	page.Click("#stop")
	page.Await(`$$(".turn").at(-1).dataset.state === "stopped"`)
	e2etest.Await(t, "the fake says it was stopped", func() bool {
		return regexp.MustCompile(`question 2: stopped after \d+ of`).MatchString(said.String())
	})
	if log := said.String(); strings.Count(log, "asked") != 2 {
		t.Errorf("the fake says\n%s", log)
	}
	page.Do(chromedp.Reload())
	page.Await(`$$(".turn").length === 2 && $(".turn").dataset.state === "done"`)
}

func TestTwoTabsHearOneAnswer(t *testing.T) {
	t.Parallel()
	model := modeltest.Start(t)
	server := start(t, model.Addr())
	browser := e2etest.Chromium(t)
	first := e2etest.OpenPage(browser, t, server.URL("/"))
	early := e2etest.OpenPage(e2etest.NewTab(browser, t), t, server.URL("/")) // hears of it from the first
	early.Await(`$(".suggestion")`)
	ask(first, "Hello?")
	call := model.Asked(t)
	say(call, "one ", "two ")
	hasEvents(first, 2)
	hasEvents(early, 2)
	late := e2etest.OpenPage(e2etest.NewTab(browser, t), t, server.URL("/"))
	hasEvents(late, 2)
	say(call, "three ")
	for _, page := range []e2etest.Page{first, early, late} {
		hasEvents(page, 3)
		if text := page.Text(".answer"); text != "one two three " {
			t.Errorf("a tab shows %q", text)
		}
	}
	late.Click("#stop")
	call.Gone(t)
	for _, page := range []e2etest.Page{first, early, late} {
		page.Await(`$(".turn").dataset.state === "stopped"`)
	}
	if model.Calls() != 1 {
		t.Errorf("the model was asked %d times", model.Calls())
	}
}

func TestCutLineCostsNotOneEvent(t *testing.T) {
	t.Parallel()
	model := modeltest.Start(t)
	server := start(t, model.Addr())
	line := e2etest.NewProxy(t, server.Expand("127.0.0.1:{{port}}"))
	page := e2etest.OpenPage(e2etest.Chromium(t), t, "http://"+line.Addr()+"/")
	ask(page, "Hello?")
	call := model.Asked(t)
	want := ""
	for n := range 3 {
		say(call, "a ", "b ")
		hasEvents(page, 3*n+2)
		line.Cut()
		page.Await(`$(".turn").dataset.state === "away"`)
		say(call, "c ")
		line.Heal()
		want += "a b c "
		page.Await(`$(".answer").textContent === %q`, want)
	}
	call.BreakOff()
	page.Await(`$(".turn").dataset.state === "aborted" && $(".facts .error")`)
	if model.Calls() != 1 {
		t.Errorf("the model was asked %d times", model.Calls())
	}
}

func TestTroubleIsShown(t *testing.T) {
	t.Parallel()
	model := modeltest.Start(t)
	model.On("/v1/chat/completions", func(c *modeltest.Call) {
		c.Header().Set("Content-Type", "application/json")
		c.Begin(401)
		c.Say(`{"error":{"message":"<b>no key</b>"}}`)
	})
	server := start(t, model.Addr())
	page := e2etest.OpenPage(e2etest.Chromium(t), t, server.URL("/"))
	ask(page, "<img src=x>")
	page.Await(`$(".facts .error")?.textContent.includes("401") && $(".error").textContent.includes("<b>no key")`)
	if page.Is(`$("#turns img, #turns b")`) {
		t.Error("what comes from outside became HTML")
	}
}

// start runs Caddy as the README says, but for the ports.
func start(t *testing.T, model string) *e2etest.Server {
	t.Helper()
	root := e2etest.RepoRoot(t)
	caddyfile, err := os.ReadFile(filepath.Join(root, "examples", "ai-proxy", "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(caddyfile), "{$PORT:8080}") || !strings.Contains(string(caddyfile), "127.0.0.1:9092") {
		t.Fatal("the Caddyfile has other addresses than the README says")
	}
	text := strings.NewReplacer("{$PORT:8080}", "{{port}}", "127.0.0.1:9092", model).Replace(string(caddyfile))
	return e2etest.Start(t, text, e2etest.WorkDir(root))
}

// startFake runs the example's own model, and returns what it writes.
func startFake(t *testing.T, address string) *e2etest.Written {
	t.Helper()
	said := new(e2etest.Written)
	fake := exec.Command(e2etest.Build(t, "./examples/ai-proxy/model"))
	fake.Env = append(os.Environ(), "ADDRESS="+address, "PACE=20ms")
	fake.Stderr = said
	if err := fake.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = fake.Process.Kill()
		_ = fake.Wait()
	})
	e2etest.Await(t, "the fake model serves", func() bool {
		answer, err := e2etest.Do(t.Context(), "GET", "http://"+address+"/", "")
		return err == nil && answer.Status == 404
	})
	return said
}

func ask(page e2etest.Page, question string) {
	page.Await(`!$("#send").hidden`)
	page.Do(chromedp.SendKeys("#prompt", question))
	page.Click("#send")
}

func say(call *modeltest.Call, words ...string) {
	for _, word := range words {
		call.Say(`data: {"choices":[{"index":0,"delta":{"content":"` + word + `"}}]}` + "\n\n")
	}
}

// hasEvents waits until the first answer has so many events at least.
func hasEvents(page e2etest.Page, count int) {
	page.Await(`Number($(".turn")?.dataset.events) >= %d`, count)
}
