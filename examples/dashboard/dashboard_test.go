package dashboard_test

import (
	"context"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) { e2etest.Main(m) }

func TestDashboardOpensInABrowser(t *testing.T) {
	content, err := os.ReadFile("Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	// The example, on free ports.
	caddyfile := strings.NewReplacer(
		"admin localhost:2019", "admin {$CADDY_ADMIN}",
		"origins localhost:2019 127.0.0.1:2019", "origins {$CADDY_ADMIN}",
		"http://localhost:8080", "http://127.0.0.1:{{port}}",
	).Replace(string(content))
	server := e2etest.Start(t, caddyfile)
	opens(t, server.AdminURL("/sse/"))

	for _, header := range [][2]string{{"Origin", "https://elsewhere.example"}, {"Origin", "null"}, {"Sec-Fetch-Mode", "no-cors"}} {
		answer := e2etest.Send(t, http.MethodPost, server.AdminURL("/sse/hubs/default/publish"), `{"broadcast":true,"data":""}`, e2etest.Header(header[0], header[1]))
		if answer.Status < 400 {
			t.Errorf("a page from elsewhere, with %s: %s, is answered %d", header[0], header[1], answer.Status)
		}
	}
}

func TestDashboardOpensAsASiteOfItsOwn(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	handle := regexp.MustCompile(`(?s)\t@page \{.*?\n\tredir / /sse/\n`).FindString(string(readme))
	if handle == "" {
		t.Fatal("the README does not show the site")
	}
	e2etest.WantNothingElsePassedOn(t, func(behind string) string {
		site := "http://127.0.0.1:{{port}} {\n\tsse /events\n" + strings.ReplaceAll(handle, "localhost:2019", behind) + "}\n"
		return e2etest.Start(t, site).Expand("127.0.0.1:{{port}}")
	}, http.MethodGet, "/sse/", "/sse/", "/sse/hubs", "/sse/hubs/default/clients?topic=a", "/sse/hubs/a%C3%BC")
	site := strings.NewReplacer(
		"localhost:2019", "{$CADDY_ADMIN}",
		`https://admin\.example\.com`, `http://127\.0\.0\.1:{{port}}`,
	).Replace(handle)
	server := e2etest.Start(t, "http://127.0.0.1:{{port}} {\n\tsse /events\n"+site+"}\n")
	page := opens(t, server.URL("/"))
	do(t, page, `document.querySelector("#detail-title") && (location.hash = "hub=default")`)
	await(t, page, `!document.querySelector("#detail").hidden`)
	do(t, page, `document.querySelector("#name").value = "news"; document.querySelector("#send").click()`)
	await(t, page, `document.querySelector("#answer").dataset.ok === "true"`)

	answer := e2etest.Send(t, http.MethodPost, server.URL("/sse/hubs/default/publish"), `{"broadcast":true,"data":""}`, e2etest.Header("Origin", "https://elsewhere.example"))
	if answer.Status != http.StatusForbidden {
		t.Errorf("a page from elsewhere is answered %d: %s", answer.Status, answer.Body)
	}
	if answer := e2etest.Send(t, http.MethodGet, server.URL("/config/"), ""); strings.Contains(answer.Body, "apps") {
		t.Errorf("the config is passed on: %s", answer.Body)
	}
}

// opens opens the dashboard in a browser and waits until it shows the hub.
func opens(t *testing.T, url string) context.Context {
	t.Helper()
	browser := e2etest.Chromium(t)
	ctx, cancel := context.WithTimeout(browser, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	await(t, browser, `document.querySelector("#state")?.dataset.state === "live" && document.querySelector("[data-hub=default]") && `+
		`getComputedStyle(document.querySelector(".pill")).borderRadius !== "0px"`)
	return browser
}

func do(t *testing.T, browser context.Context, script string) {
	t.Helper()
	if err := chromedp.Do(browser, chromedp.Evaluate[chromedp.Void](script)); err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, browser context.Context, condition string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		is, err := chromedp.Run(browser, chromedp.Evaluate[bool](`Boolean(`+condition+`)`))
		if err != nil {
			t.Fatal(err)
		}
		if is {
			return
		}
		if time.Now().After(deadline) {
			text, _ := chromedp.Run(browser, chromedp.Evaluate[string](`document.body.innerText`))
			t.Fatalf("never happened: %s\nthe page says:\n%s", condition, text)
		}
	}
}
