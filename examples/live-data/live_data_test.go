//go:build unix

package livedata_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

func TestFeedFillsThePage(t *testing.T) {
	server := start(t)
	feed(t, server)
	page := open(t, server)
	page.Await(`$$("#prices polyline").length === 8 && $$("#scores li").length === 3`)
	page.Await(`$$("#prices polyline").every((line) => line.getAttribute("points").split(" ").length > 3)`)
	page.Screenshots("live-data")

	// The feed outlives the server, and so does the page.
	server.Kill()
	page.Await(`$("#state").dataset.state === "waiting"`)
	server.Restart()
	page.Await(`$("#state").dataset.state === "live"`)
	page.Await(`$$("#prices li").length === 8 && $$("#scores li").length === 3`)
}

// Whoever comes late sees every card, with its newest value, also on a phone.
func TestPageOpenedLateShowsEveryCard(t *testing.T) {
	server := start(t)
	for i := range 300 { // much more than would come of a history of events
		price(t, server, "metals/gold", fmt.Sprint(100+i))
		if i == 0 {
			for _, name := range []string{"metals/silver", "metals/copper", "energy/oil", "energy/gas", "harvest/wheat"} {
				price(t, server, name, "7.5")
			}
			score(t, server, "football/lions-tigers", 2, 1)
			score(t, server, "basketball/hawks-bulls", 60, 58)
		}
	}
	browser := e2etest.Chromium(t)
	page := e2etest.OpenPhone(browser, t, server.URL("/"))
	page.Await(`$$("#prices li").length === 6 && $$("#scores li").length === 2`)
	for topic, want := range map[string]string{
		"prices/metals/gold":            "399.00▲ 0.00 %",
		"prices/energy/oil":             "7.50▲ 0.00 %",
		"scores/football/lions-tigers":  "2:144′",
		"scores/basketball/hawks-bulls": "60:5844′",
	} {
		if got := page.Text(fmt.Sprintf("[data-topic=%q] .figures", topic)); got != want {
			t.Errorf("%s is shown as %q, want %q", topic, got, want)
		}
	}
	// None is beside the screen, and none upon another.
	page.Await(`$$("[data-topic]").every((card) => card.getBoundingClientRect().left >= 0 && card.getBoundingClientRect().right <= innerWidth)`)
	price(t, server, "metals/gold", "400")
	page.Await(`$("[data-topic='prices/metals/gold'] .figures").textContent.startsWith("400.00")`)
	e2etest.Screenshot(page.Tab, t, "live-data-late-phone")
}

func TestPageGetsOnlyWhatItFollows(t *testing.T) {
	server := start(t)
	page := open(t, server)
	for _, pattern := range []string{"prices/energy/*", "prices/harvest/*", "scores/football/*", "scores/basketball/*"} {
		page.Click(fmt.Sprintf("[data-pattern=%q]", pattern))
	}
	all := func() {
		t.Helper()
		price(t, server, "energy/oil", "70")
		price(t, server, "harvest/wheat", "550")
		score(t, server, "football/lions-tigers", 0, 0)
		price(t, server, "metals/silver", "30")
		price(t, server, "metals/gold", "2600")
	}
	all()
	page.Await(`$("[data-topic='prices/metals/gold']")`)
	shows(t, page, "prices/metals/gold", "prices/metals/silver")

	// A star stays when its group goes.
	page.Click("[data-topic='prices/metals/gold'] .star")
	page.Await(`$("[data-topic='prices/metals/gold'] .star")?.ariaPressed === "true"`)
	page.Click("[data-pattern='prices/metals/*']")
	page.Await(`$$("[data-topic]").length === 1`)
	all()
	page.Await(`$("[data-topic='prices/metals/gold'] polyline")?.getAttribute("points").split(" ").length === 2`)
	shows(t, page, "prices/metals/gold")
	if got, want := page.Text("#curl"), fmt.Sprintf("curl -N '%s'", server.URL("/events?topic=prices/metals/gold")); got != want {
		t.Errorf("the page says %s, want %s", got, want)
	}
	page.Click("[data-pattern='scores/football/*']")
	page.Await(`$$("[data-topic]").length === 2`)
	shows(t, page, "prices/metals/gold", "scores/football/lions-tigers")
}

func TestOnlyTheFeedPublishes(t *testing.T) {
	server := start(t)
	for path, status := range map[string]int{"?topic=prices/metals/gold": 401, "?topic=news": 401, "?broadcast": 401} {
		if got := e2etest.Send(t, "POST", server.URL("/events"+path), "x").Status; got != status {
			t.Errorf("POST %s without a token is answered %d, want %d", path, got, status)
		}
	}
	if got := e2etest.Send(t, "POST", server.URL("/events?topic=news"), "x", token).Status; got != 403 {
		t.Errorf("POST to another topic is answered %d, want 403", got)
	}
}

// start runs the example as its README says, but for the port.
func start(t *testing.T) *e2etest.Server {
	t.Helper()
	content, err := os.ReadFile("Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content, []byte(":8080")) {
		t.Fatal("the Caddyfile listens elsewhere than on :8080")
	}
	return e2etest.Start(t, strings.ReplaceAll(string(content), ":8080", ":{{port}}"), e2etest.WorkDir(e2etest.RepoRoot(t)))
}

func open(t *testing.T, server *e2etest.Server) e2etest.Page {
	t.Helper()
	page := e2etest.OpenPage(e2etest.Chromium(t), t, server.URL("/"))
	page.Await(`$("#state")?.dataset.state === "live"`)
	return page
}

// feed runs the example's script; it and its children end with the test.
func feed(t *testing.T, server *e2etest.Server) {
	t.Helper()
	e2etest.Need(t, "curl")
	cmd := exec.Command(filepath.Join(e2etest.RepoRoot(t), "examples", "live-data", "feed"), server.URL("/events"))
	cmd.Env = append(os.Environ(), "PAUSE=0.02")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
}

var token = e2etest.Header("Authorization", "Bearer demo")

func price(t *testing.T, server *e2etest.Server, name, price string) {
	t.Helper()
	e2etest.Publish(t, server.URL("/events?event=price&topic=prices/"+name), fmt.Sprintf(`{"price":%s}`, price), token)
}

func score(t *testing.T, server *e2etest.Server, name string, home, away int) {
	t.Helper()
	data := fmt.Sprintf(`{"minute":44,"home":%d,"away":%d}`, home, away)
	e2etest.Publish(t, server.URL("/events?event=score&topic=scores/"+name), data, token)
}

func shows(t *testing.T, page e2etest.Page, topics ...string) {
	t.Helper()
	if got := e2etest.Eval[[]string](page, `$$("[data-topic]").map((card) => card.dataset.topic)`); !slices.Equal(got, topics) {
		t.Errorf("the page shows %q, want %q", got, topics)
	}
}
