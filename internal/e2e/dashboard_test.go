package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// dashboardSite is openSite whose admin endpoint a browser may open; Caddy lets nobody type its
// address otherwise.
const dashboardSite = `
{
	admin {$CADDY_ADMIN} {
		origins {$CADDY_ADMIN} ""
	}
}
` + openSite

func TestDashboardCountsClientsAsTheyComeAndGo(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, dashboardSite)
	page := openDashboard(t, server)
	page.await(`metric("clients") === "0"`)

	first := e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=ann"))
	second := e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=bob"))
	first.Connected(t)
	second.Connected(t)
	page.await(`metric("clients") === "2" && metric("connections") === "2"`)
	page.await(`$("#clients [data-client=ann]") && $("#clients [data-client=bob]")`)

	e2etest.Publish(t, server.URL("/events?topic=news"), "hello")
	first.Expect(t, "hello")
	second.Expect(t, "hello")
	page.await(`metric("messages_published") === "1" && metric("messages_sent") === "2"`)
	page.await(`$("#topics [data-topic=news]").cells[1].textContent === "2"`)
	page.await(`$("[data-rate=messages_sent] path.line").getAttribute("d").length > 0`)

	first.Close()
	page.await(`metric("clients") === "1" && !$("#clients [data-client=ann]")`)
	e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=ann"), e2etest.LastEventID("of-another-log")).Connected(t)
	page.await(`metric("reconnects") === "1" && metric("gaps") === "1" && metric("connections") === "3"`)
}

func TestDashboardClosesAClientOnceTheOperatorHasConfirmed(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, dashboardSite)
	stream := e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=ann"))
	stream.Connected(t)
	page := openDashboard(t, server)
	page.await(`$("#clients [data-client=ann]")`)

	// With the keyboard alone; the way out comes first.
	page.script(`document.querySelector("[data-client=ann] [data-kick]").focus()`)
	page.run(chromedp.KeyEvent(kb.Enter))
	page.await(`$("#kick").open && document.activeElement.id === "kick-cancel"`)
	page.run(chromedp.KeyEvent(kb.Escape))
	page.await(`!$("#kick").open && document.activeElement.dataset.kick === ""`)
	page.run(chromedp.KeyEvent(kb.Enter))
	page.await(`$("#kick").open && $("#kick-id").textContent === "ann"`)
	page.run(chromedp.KeyEvent(kb.Tab, chromedp.KeyModifiers(chromedp.ModifierShift)))
	page.await(`document.activeElement.id === "kick-confirm"`)
	e2etest.Screenshot(page.ctx, t, "dashboard-kick")
	page.run(chromedp.KeyEvent(kb.Enter))

	if event, err := stream.Next(patience); err != nil || event.Name != "closed" {
		t.Fatalf("the client got the event %q, %v", event.Name, err)
	}
	page.await(`$("#kick-answer").textContent === "Closed ann: 1 connection" && $("#kick-answer").dataset.ok === "true"`)
	page.await(`metric("clients") === "0" && !$("#clients [data-client]")`)
}

func TestDashboardPurgesATopicOnceTheOperatorHasConfirmed(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, dashboardSite)
	stream := e2etest.Subscribe(t, server.URL("/events?topic=news&topic=quiet"))
	before := stream.Connected(t).ID
	e2etest.Publish(t, server.URL("/events?topic=news"), "secret")
	page := openDashboard(t, server)
	page.await(`$("[data-topic=news] [data-purge]") && !$("[data-topic=news] [data-purge]").disabled`)
	page.await(`$("[data-topic=quiet] [data-purge]").disabled`) // nothing is kept of it

	page.script(`document.querySelector("[data-topic=news] [data-purge]").focus()`)
	page.run(chromedp.KeyEvent(kb.Enter))
	page.await(`$("#purge").open && document.activeElement.id === "purge-cancel"`)
	page.run(chromedp.KeyEvent(kb.Enter))
	page.await(`!$("#purge").open && $("[data-topic=news]").cells[2].textContent === "1"`)
	page.script(`document.querySelector("[data-topic=news] [data-purge]").click()`)
	page.await(`$("#purge").open && $("#purge-topic").textContent === "news"`)
	e2etest.Screenshot(page.ctx, t, "dashboard-purge")
	page.script(`document.querySelector("#purge-confirm").click()`)
	page.await(`$("#purge-answer").textContent === "Purged news" && $("#purge-answer").dataset.ok === "true"`)
	page.await(`$("[data-topic=news]").cells[2].textContent === "0" && $("[data-topic=news] [data-purge]").disabled`)

	back := e2etest.Subscribe(t, server.URL("/events?topic=news"), e2etest.LastEventID(before))
	if told := back.Connected(t); told.Resume != "gap" {
		t.Errorf("after the purge a client is told %q", told.Resume)
	}
}

// TestDashboardIsForTheKeyboardToo goes through the page by Tab: it comes to everything, and shows where
// it is.
func TestDashboardIsForTheKeyboardToo(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, dashboardSite)
	e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=ann")).Connected(t)
	e2etest.Publish(t, server.URL("/events?topic=news"), "hello")
	page := dashboard{t, e2etest.Chromium(t)}
	page.load(server.AdminURL("/sse/"))
	page.await(`$("#hubs a.open")`)
	page.run(chromedp.KeyEvent(kb.Tab))
	page.await(`document.activeElement === $("#hubs a.open")`)
	page.run(chromedp.KeyEvent(kb.Enter))
	page.await(`$("#clients [data-client=ann]") && $("[data-topic=news]") && document.activeElement.id === "detail-title"`)

	const usable = `[...document.querySelectorAll("a[href], button:enabled, input:enabled, select, textarea, summary, [tabindex='0']")]
		.filter((e) => e.checkVisibility())`
	missing := usable + `.filter((e) => !("reached" in e.dataset)).map((e) => e.outerHTML.slice(0, 80))`
	for tabs := 0; len(get[[]string](page, missing)) > 0; tabs++ {
		if tabs > 60 {
			t.Fatalf("Tab never comes to %q", get[[]string](page, missing))
		}
		page.run(chromedp.KeyEvent(kb.Tab))
		if problem := get[string](page, `((e) => {
			e.dataset.reached = "";
			const style = getComputedStyle(e);
			const name = e.labels?.[0]?.textContent || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent;
			return e === document.body || name?.trim() && (style.outlineStyle !== "none" || style.boxShadow !== "none") ? "" : e.outerHTML;
		})(document.activeElement)`); problem != "" {
			t.Errorf("this has no name, or does not show that it has the focus: %s", problem)
		}
	}

	page.script(`document.querySelector('[data-topic=news] [aria-label="Watch news"]').focus()`)
	page.run(chromedp.KeyEvent(kb.Enter))
	page.await(`$("#messages .data")?.textContent === "hello" && document.activeElement.id === "watch-topic"`)
	page.script(`document.querySelector("#close").focus()`)
	page.run(chromedp.KeyEvent(kb.Enter))
	page.await(`$("#detail").hidden`)
}

func TestDashboardPublishesAndShowsTheAnswer(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, dashboardSite)
	stream := e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=ann"))
	stream.Connected(t)
	page := openDashboard(t, server)

	page.fill("name", "news")
	page.fill("event", "test")
	page.fill("data", "two\nlines")
	page.run(chromedp.Click("#send"))
	if event := stream.Expect(t, "two\nlines"); event.Name != "test" {
		t.Errorf("the event is %q", event.Name)
	}
	page.await(`$("#answer").textContent === "Published to 1 client, id ` + stream.LastID() + `"`)

	page.choose("target", "client_id")
	page.fill("name", "ann")
	page.fill("data", "just you")
	page.run(chromedp.Click("#send"))
	stream.Expect(t, "just you")

	page.choose("target", "broadcast")
	page.fill("data", "all of you")
	page.run(chromedp.Click("#send"))
	stream.Expect(t, "all of you")

	page.choose("target", "topic")
	page.fill("name", "room/*")
	page.run(chromedp.Click("#send"))
	page.await(`$("#answer").dataset.ok === "false" && /^400: .+/.test($("#answer").textContent)`)
}

func TestDashboardShowsWhatATopicKeepsAsItArrives(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, dashboardSite)
	e2etest.Publish(t, server.URL("/events?topic=news"), "before")
	page := openDashboard(t, server)
	page.await(`$("[data-topic=news]")`)
	page.run(chromedp.Click(`[data-topic=news] [aria-label="Watch news"]`))
	page.await(`$("#watch-state").textContent === "Watching news" && $("#messages .data")?.textContent === "before"`)

	const markup = `<img src="x" onerror="alert(1)">`
	e2etest.Publish(t, server.URL("/events?topic=news&event=alert"), markup)
	page.await(`$("#messages .data")?.textContent === ` + strconv.Quote(markup) + ` && $("#messages .name").textContent === "alert"`)
	if page.is(`$("#messages .data *")`) {
		t.Error("data became HTML")
	}
	e2etest.Publish(t, server.URL("/events?topic=news"), strings.Repeat("☃", 10_000))
	page.await(`$("#messages .small")?.textContent === "The beginning of 29.3 KiB."`)
	page.run(chromedp.EmulateViewport(1280, 1600))
	e2etest.Screenshot(page.ctx, t, "dashboard-watch")

	page.run(chromedp.Click("#watch-stop"))
	page.await(`$("#messages").childElementCount === 0 && $("#watch-state").textContent === "Not watching"`)
	page.fill("watch-topic", "room/*")
	page.run(chromedp.KeyEvent(kb.Enter))
	page.await(`/^400: /.test($("#watch-trouble").textContent)`)
}

// TestDashboardShowsTheNumbersOfAScrape has something to show for each of them: on the card of the hub,
// and by name.
func TestDashboardShowsTheNumbersOfAScrape(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, `
{
	admin {$CADDY_ADMIN} {
		origins {$CADDY_ADMIN} ""
	}
	metrics
	sse {
		hub chat {
			broker bolt {{dir}}/chat.db
			max_clients 2
		}
	}
}
`+openSite+`
http://127.0.0.1:{{chat}} {
	sse /events {
		hub chat
		queue 4 256KiB
		slow_client drop_oldest
		publish {
			open
		}
	}
}
`)
	chat := server.Expand("http://127.0.0.1:{{chat}}/events?topic=a")
	const hub = `hub="chat"`
	count := func(series string) string { return scrape(t, server)["caddy_sse_"+series] }
	stream := e2etest.Subscribe(t, chat)
	id := stream.Connected(t).ID
	stalled := e2etest.Stall(t, server.Expand("http://127.0.0.1:{{chat}}/events?topic=big"))
	e2etest.Await(t, "both are there", func() bool { return count("clients{"+hub+"}") == "2" })
	if answer := e2etest.Send(t, http.MethodGet, chat, ""); answer.Status != http.StatusServiceUnavailable {
		t.Fatalf("the third client of a hub for two is answered %d", answer.Status)
	}
	if answer := e2etest.Send(t, http.MethodGet, chat+"/**/b", ""); answer.Status != http.StatusBadRequest {
		t.Fatalf("nonsense is answered %d", answer.Status)
	}
	published := 3
	e2etest.Await(t, "messages are dropped", func() bool {
		published++
		e2etest.Publish(t, strings.Replace(chat, "=a", "=big", 1), strings.Repeat("x", 200<<10))
		return count(`messages_dropped_total{`+hub+`,reason="slow_client"}`) != "0"
	})
	_ = stalled.Close()
	if answer := e2etest.Send(t, http.MethodPost, chat+"&event=gap", ""); answer.Status != http.StatusBadRequest {
		t.Fatalf("a reserved event is answered %d", answer.Status)
	}
	for i := range 3 {
		e2etest.Publish(t, chat, strconv.Itoa(i))
		stream.Expect(t, strconv.Itoa(i))
	}
	stream.Close()
	e2etest.Await(t, "both are seen to have left", func() bool { return count("clients{"+hub+"}") == "0" })
	before, err := strconv.Atoi(count("messages_sent_total{" + hub + "}"))
	if err != nil || before < 3 {
		t.Fatalf("%d were sent, %v", before, err)
	}
	again := e2etest.Subscribe(t, chat, e2etest.LastEventID(id))
	e2etest.Subscribe(t, chat, e2etest.LastEventID("of-another-log")).Connected(t)
	for i := range 3 {
		again.Expect(t, strconv.Itoa(i))
	}
	sent := strconv.Itoa(before + 6)
	e2etest.Await(t, "all that was sent is counted", func() bool { return count("messages_sent_total{"+hub+"}") == sent })

	page := openDashboard(t, server)
	page.run(chromedp.Click(`[data-hub=chat] a.open`))
	page.await(`$("#detail-name").textContent === "chat" && $("#series tbody").childElementCount > 0`)
	shown := get[map[string]string](page, `Object.fromEntries([...$("#series tbody").rows].map((r) => [r.dataset.series, r.cells[1].textContent]))`)
	scraped := map[string]string{}
	for series, value := range scrape(t, server) {
		if strings.HasPrefix(series, "caddy_sse_") && strings.Contains(series, hub) {
			scraped[series] = value
		}
	}
	for series, value := range scraped {
		if number, err := strconv.ParseFloat(value, 64); err == nil { // Prometheus writes 1e+06 where a page writes 1000000
			scraped[series] = strconv.FormatFloat(number, 'f', -1, 64)
		}
	}
	if !maps.Equal(shown, scraped) {
		for _, series := range slices.Sorted(maps.Keys(scraped)) {
			t.Logf("scrape %s %s, dashboard %s", series, scraped[series], shown[series])
		}
		t.Errorf("the dashboard shows %d series %v", len(shown), shown)
	}
	for name, want := range map[string]string{
		"clients":            scraped[`caddy_sse_clients{`+hub+`}`],
		"connections":        scraped[`caddy_sse_connections_total{`+hub+`,result="accepted"}`],
		"limited":            scraped[`caddy_sse_connections_total{`+hub+`,result="limited"}`],
		"refused":            scraped[`caddy_sse_connections_total{`+hub+`,result="refused"}`],
		"messages_published": scraped[`caddy_sse_messages_published_total{`+hub+`}`],
		"messages_sent":      scraped[`caddy_sse_messages_sent_total{`+hub+`}`],
		"messages_dropped":   scraped[`caddy_sse_messages_dropped_total{`+hub+`,reason="slow_client"}`],
		"gaps":               scraped[`caddy_sse_resumes_total{`+hub+`,result="gap"}`],
		"topics":             scraped[`caddy_sse_topics{`+hub+`}`],
		"history_bytes":      scraped[`caddy_sse_history_bytes{`+hub+`}`],
		"broker_file_bytes":  scraped[`caddy_sse_broker_file_bytes{`+hub+`}`],
	} {
		if got := get[string](page, `$("[data-hub=chat] [data-metric=`+name+`]").dataset.value`); got != want || got == "0" || got == "" {
			t.Errorf("the card says %s for %s, want %s", got, name, want)
		}
	}
	for name, want := range map[string]string{"clients": "2", "connections": "4", "limited": "1", "refused": "1", "reconnects": "2", "gaps": "1", "messages_published": strconv.Itoa(published)} {
		if got := page.text(`[data-hub=chat] [data-metric=` + name + `]`); got != want {
			t.Errorf("the card says %s for %s, want %s", got, name, want)
		}
	}
	page.await(`/slow_client/.test($("[data-hub=chat] [data-why=dropped_by_reason]").textContent)`)
	page.await(`/^Gaps: .*unknown_id 1/.test($("[data-hub=chat] [data-why=gaps_by_reason]").textContent)`)
	page.await(`$("[data-hub=chat] [data-why=publish_refused]").textContent === "Publishes refused: 400 1"`)
	page.await(`$("[data-hub=chat] [data-why=disconnects]").textContent === "Ended: left 2"`)
	page.run(chromedp.Click(`#series summary`))
	page.run(chromedp.EmulateViewport(1280, 2000))
	page.script(`scrollTo(0, 0)`)
	e2etest.Screenshot(page.ctx, t, "dashboard-two-hubs")
	page.run(chromedp.EmulateViewport(390, 2000))
	page.script(`scrollTo(0, 1e6)`)
	e2etest.Screenshot(page.ctx, t, "dashboard-two-hubs-phone-end")
}

// scrape returns all that Prometheus would read, by series.
func scrape(t testing.TB, server *e2etest.Server) map[string]string {
	t.Helper()
	answer := e2etest.Send(t, http.MethodGet, server.AdminURL("/metrics"), "")
	series := map[string]string{}
	for line := range strings.Lines(answer.Body) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && !strings.HasPrefix(line, "#") {
			series[name+"}"] = value
		}
	}
	return series
}

func TestDashboardTellsWhenTheBrokerIsDown(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	redis := e2etest.RedisServer(t)
	server := e2etest.Start(t, strings.Replace(dashboardSite, "\tadmin", "\tsse {\n\t\tbroker redis "+redis.URL()+"\n\t}\n\tadmin", 1))
	page := openDashboard(t, server)
	page.await(`$(".broker").textContent === "redis up" && $(".broker").dataset.up === "true"`)
	if !page.is(`$(".broker-trouble").hidden`) {
		t.Error("there is trouble with a broker that is up")
	}
	redis.Stop()
	page.await(`$(".broker").textContent === "redis down" && $(".broker").dataset.up === "false"`)
	page.await(`/^Down since .*\d:\d\d.*: .*connect/.test($(".broker-trouble").textContent) && !$(".broker-trouble").hidden`)
	e2etest.Screenshot(page.ctx, t, "dashboard-broker-down")
	redis.Restart()
	page.await(`$(".broker").dataset.up === "true" && $(".broker-trouble").hidden`)
}

func TestDashboardTellsThatItsNumbersAreOldWhileCaddyIsGone(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, dashboardSite)
	page := openDashboard(t, server)
	server.Stop()
	page.await(`$("#state").dataset.state === "stale" && !$("#trouble").hidden`)
	e2etest.Screenshot(page.ctx, t, "dashboard-stale")
	server.Restart()
	page.await(`$("#state").dataset.state === "live" && $("#trouble").hidden`)
}

func TestReloadDoesNotWaitForAnOpenDashboard(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, dashboardSite)
	stream := e2etest.Subscribe(t, server.URL("/events?topic=news"))
	stream.Connected(t)
	page := openDashboard(t, server)
	page.await(`metric("clients") === "1"`)
	for i := range 3 {
		began := time.Now()
		if err := server.Reload(strings.Replace(dashboardSite, "sse /events {", fmt.Sprintf("sse /events {\n\t\theartbeat %ds", i+1), 1)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a reload took %v", took)
		}
	}
	page.await(`$("#state").dataset.state === "live" && metric("clients") === "1" && metric("connections") === "1"`)
}
