//go:build linux

package monitoring_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

func TestHostsAppearWithTheirFigures(t *testing.T) {
	server := start(t)
	page := open(t, server)
	page.Await(`!$("#no-hosts").hidden`)
	report(t, server, "web1")
	stopWeb2 := report(t, server, "web2", "CPU_LIMIT=-1") // which it crosses at once
	page.Await(`$$(".host h3").map((h) => h.textContent).join() === "web1,web2"`)
	page.Await(`$$(".host .pill").every((pill) => pill.textContent === "up")`)
	page.Await(`$$(".host dd").length === 6 && $$(".host dd").every((dd) => /^\d+ %%$/.test(dd.textContent))`)
	page.Await(`/^load \d+\.\d\d on \d+ cores? · up .+/.test($("[data-host=web1] .small").textContent)`)
	page.Await(`$$(".host polyline").every((line) => line.getAttribute("points").split(" ").length > 2)`)

	page.Await(`$("#alerts").childElementCount === 1 && /^web2CPU at \d+ %%, limit -1 %%/.test($("#alerts").textContent)`)
	page.Await(`$("#firing").textContent === "1 firing" && document.title.startsWith("(1) ")`)
	page.Screenshots("monitoring")

	stopWeb2()
	page.Await(`$("[data-host=web2] .pill").textContent.startsWith("silent for ")`)
	if got := page.Text("[data-host=web1] .pill"); got != "up" {
		t.Errorf("web1 is shown as %q", got)
	}
	page.Screenshots("monitoring-silent")
}

func TestAlertsReachAPageThatOpensLate(t *testing.T) {
	server := start(t)
	publish(t, server, `{"topic":"alerts/db","event":"alert","data":{"host":"db","what":"disk","state":"firing","value":97,"limit":90,"at":1}}`)
	publish(t, server, `{"topic":"alerts/web","event":"alert","data":{"host":"web","what":"cpu","state":"firing","value":99,"limit":90,"at":2}}`)
	publish(t, server, `{"topic":"alerts/web","event":"alert","data":{"host":"web","what":"cpu","state":"resolved","value":12,"limit":90,"at":3}}`)
	page := open(t, server)
	page.Await(`$$("#alerts li").map((li) => li.querySelector("span").textContent).join() ===
		"CPU fine again, at 12 %%,CPU at 99 %%, limit 90 %%,Disk at 97 %%, limit 90 %%"`)
	page.Await(`$("#firing").textContent === "1 firing"`)
}

func TestAllComesBackAfterTheServerWasAway(t *testing.T) {
	server := start(t)
	page := open(t, server)
	report(t, server, "web1")
	page.Await(`$("[data-host=web1] .pill")?.textContent === "up"`)
	server.Kill()
	page.Await(`$("#state").dataset.state === "waiting" && $("[data-host=web1] .pill").textContent === "unknown"`)
	server.Restart()
	report(t, server, "web1") // as the README's unit would be started again
	page.Await(`$("#state").dataset.state === "live" && $("[data-host=web1] .pill").textContent === "up"`)
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

// report runs the README's pipe until the test ends or stop is called.
func report(t *testing.T, server *e2etest.Server, name string, env ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `examples/monitoring/metrics "$0" | "$1" sse publish --token demo "$2" -`,
		name, e2etest.Binary(t), server.URL("/events"))
	cmd.Dir = e2etest.RepoRoot(t)
	cmd.Env = append(os.Environ(), "CPU_LIMIT=101", "MEMORY_LIMIT=101", "DISK_LIMIT=101", // tests load the machine
		"HOME="+t.TempDir(), "GORACE=atexit_sleep_ms=0")
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			_ = cmd.Wait()
			stopped = true
		}
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("%s: %s", name, &out)
		}
	})
	return stop
}

func publish(t *testing.T, server *e2etest.Server, message string) {
	t.Helper()
	e2etest.Publish(t, server.URL("/events"), message,
		e2etest.Header("Authorization", "Bearer demo"), e2etest.Header("Content-Type", "application/json"))
}
