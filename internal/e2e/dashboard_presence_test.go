package e2e

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestDashboardShowsPoliciesAndWhoIsThere(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	site := strings.Replace(dashboardSite, "{\n", `{
	sse {
		topic prices/** {
			history latest 24h
			conflate on
		}
		topic room/* {
			history 50
			presence on
		}
	}
`, 1)
	site = strings.Replace(site, "sse /events {", "sse /events {\n\t\tinfo {query.name}", 1)
	server := e2etest.Start(t, site)
	e2etest.Subscribe(t, server.URL("/events?topic=room/1&name=Ada+%3Cb%3E")).Connected(t)
	e2etest.Subscribe(t, server.URL("/events?topic=room/1&topic=news&topic=room/*")).Connected(t)
	page := openDashboard(t, server)
	page.await(`$("#policies").textContent.includes("prices/**: history latest 24h, conflate on")`)
	page.await(`$("#policies").textContent.includes("room/*: history 50 1h, presence on")`)
	page.await(`$("[data-topic='room/1'] [aria-label='Who is at room/1']")`)
	page.await(`!$("[data-topic=news] [aria-label^=Who]") && !$("[data-topic='room/*'] [aria-label^=Who]")`)
	page.run(chromedp.Click(`[data-topic='room/1'] [aria-label='Who is at room/1']`))
	page.await(`$("#presence").open && $("#presence-clients").textContent.startsWith("2 clients")`)
	page.await(`$("#presence-users").textContent.includes("Ada <b>") && !$("#presence-users b")`)
	e2etest.Screenshot(page.ctx, t, "dashboard-presence")
	page.run(chromedp.Click("#presence-close"))
	page.await(`!$("#presence").open`)
}
