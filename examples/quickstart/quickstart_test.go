package quickstart_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

func TestPageShowsWhatIsPublished(t *testing.T) {
	server := start(t)
	page := open(e2etest.Chromium(t), t, server)
	page.await(`$("#resume").dataset.resume === "none"`)

	for _, data := range []string{
		"one line",
		"two\nlines",
		"\n  indented, with empty lines around\n\n",
		`<img src="x" onerror="alert(1)"><b>not bold</b>`,
		"snow ☃, key 🔑, null \u0000",
		"",
	} {
		page.count(func() { e2etest.Publish(t, server.URL("/events?topic=news"), data) })
		message := page.newest()
		if message.Data != data || message.Event != "message" || message.ID == "" || message.Repeat {
			t.Errorf("published %q, the page shows %+v", data, message)
		}
	}
	if page.is(`$("#messages .data *") !== null`) {
		t.Error("data became HTML")
	}

	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=news&event=alert"), "named") })
	if message := page.newest(); message.Event != "alert" || message.Data != "named" {
		t.Errorf("published an alert, the page shows %+v", message)
	}

	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=news&ephemeral=true"), "passing") })
	if message := page.newest(); message.ID != "" || message.Data != "passing" {
		t.Errorf("published an ephemeral message, the page shows %+v", message)
	}
	e2etest.Screenshot(page.ctx, t, "quickstart")
}

func TestFormPublishesToTopicClientAndEverybody(t *testing.T) {
	server := start(t)
	browser := e2etest.Chromium(t)
	one := open(browser, t, server)
	tab, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	if err := chromedp.Do(tab); err != nil { // its first use must have no deadline
		t.Fatal(err)
	}
	two := open(tab, t, server)
	if one.text("#client-id") == two.text("#client-id") {
		t.Fatal("two tabs have the same client ID")
	}

	// To a topic, with a name that no page has asked for yet.
	one.fill("event", "deploy")
	one.fill("data", "from the\nform")
	one.count(func() { one.run(chromedp.Click("#send")) })
	message := one.newest()
	if message.Event != "deploy" || message.Data != "from the\nform" {
		t.Errorf("the page shows %+v", message)
	}
	one.await(`$("#answer").dataset.ok === "true"`)
	if got, want := one.text("#answer"), "Published to 2 clients, id "+message.ID; got != want {
		t.Errorf("the answer is %q, want %q", got, want)
	}
	if !one.is(`$("#listening").textContent.includes("deploy")`) {
		t.Error("the page does not say that it listens for deploy now")
	}

	// To this client, with the keyboard alone.
	one.choose("target", "client_id")
	one.fill("event", "")
	one.fill("data", "just me")
	one.count(func() { one.run(chromedp.KeyEvent(kb.Enter, chromedp.KeyModifiers(chromedp.ModifierCtrl))) })
	if message := one.newest(); message.Data != "just me" {
		t.Errorf("the page shows %+v", message)
	}
	one.await(`$("#answer").textContent.startsWith("Published to 1 client,")`)

	// To everybody: it would follow what was meant for the other tab only.
	one.choose("target", "broadcast")
	one.fill("data", "all of you")
	two.count(func() { one.run(chromedp.Click("#send")) })
	if got, want := two.all(), []string{"all of you"}; !slices.Equal(got, want) {
		t.Errorf("the second tab shows %q, want %q", got, want)
	}

	// A refusal is explained.
	one.choose("target", "topic")
	one.fill("topic", "room/*")
	one.run(chromedp.Click("#send"))
	one.await(`$("#answer").dataset.ok === "false" && /^400: .+/.test($("#answer").textContent)`)
}

func TestCurlCommandDoesWhatTheFormSays(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("the command is for a POSIX shell")
	}
	server := start(t)
	page := open(e2etest.Chromium(t), t, server)
	for _, form := range []struct{ topic, event, data string }{
		{"news", "", "hello"},
		{"news", "update", "it's $HOME `date` \"quoted\" \\ and\nmore"},
		{"snow & ice/100% ☃", "two words", "@/etc/hostname"},
	} {
		page.fill("topic", form.topic)
		page.fill("event", form.event)
		page.fill("data", form.data)

		// A shell takes the command apart; curl itself is not needed.
		split := exec.Command("sh", "-c", `curl() { printf '%s\0' "$@"; }; `+page.text("#curl"))
		out, err := split.Output()
		if err != nil {
			t.Fatal(err)
		}
		args := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		if len(args) != 3 || args[0] != "-d" && args[0] != "--data-raw" {
			t.Fatalf("%q gives curl the arguments %q", page.text("#curl"), args)
		}
		if args[0] == "-d" && strings.HasPrefix(args[1], "@") {
			t.Errorf("%q sends a file", page.text("#curl"))
		}
		stream := e2etest.Subscribe(t, server.URL("/events?"+query("topic", form.topic)))
		stream.Connected(t)
		e2etest.Publish(t, args[2], args[1], e2etest.Header("Content-Type", "application/x-www-form-urlencoded"))
		if event := stream.Expect(t, form.data); event.Name != form.event {
			t.Errorf("the event is %q, want %q", event.Name, form.event)
		}
	}
}

func TestPageTellsGapAfterServerWasKilled(t *testing.T) {
	server := start(t)
	page := open(e2etest.Chromium(t), t, server)
	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=news"), "before") })
	clientID := page.text("#client-id")

	server.Kill()
	page.await(`$("#state").dataset.state === "reconnecting"`)
	e2etest.Screenshot(page.ctx, t, "quickstart-reconnecting")
	server.Restart()
	page.live()
	page.await(`$("#resume").dataset.resume === "gap"`)
	page.await(`$(".notice[data-kind=gap]") !== null`)

	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=news"), "after") })
	page.count(func() { e2etest.Publish(t, server.URL("/events?"+query("client_id", clientID)), "still me") })
	if got, want := page.all(), []string{"before", "after", "still me"}; !slices.Equal(got, want) {
		t.Errorf("the page shows %q, want %q", got, want)
	}
	e2etest.Screenshot(page.ctx, t, "quickstart-gap")
}

// TestNobodyNoticesAKillOnceTheMessagesAreInAFile is the demonstration with the lines of the README
// added: the page, and whoever publishes with retries, go on as if nothing had happened.
func TestNobodyNoticesAKillOnceTheMessagesAreInAFile(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, lines, found := strings.Cut(string(readme), "```caddyfile\n")
	lines, _, _ = strings.Cut(lines, "```")
	if !found || !strings.Contains(lines, "broker bolt sse.db") {
		t.Fatalf("the README has no such lines: %q", lines)
	}
	lines = strings.Replace(lines, "sse.db", "{{dir}}/sse.db", 1)
	server := e2etest.Start(t, lines+caddyfile(t), e2etest.WorkDir(e2etest.RepoRoot(t)))
	page := open(e2etest.Chromium(t), t, server)
	clientID := page.text("#client-id")
	page.script(`window.notices = [];
		new MutationObserver((records) => records.forEach((r) => r.addedNodes.forEach((n) => notices.push(n.dataset?.kind ?? ""))))
			.observe(document.querySelector("#messages"), { childList: true })`)

	var want []string
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	t.Cleanup(publishing.Wait)
	publishing.Go(func() {
		for ended := false; !ended; {
			want = append(want, fmt.Sprint("message ", len(want)))
			if err := persist(server.URL("/events?topic=news"), want[len(want)-1]); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				ended = true
			case <-t.Context().Done():
				ended = true
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	for range 2 {
		page.await(`$("#count").textContent >= 5`)
		server.Kill()
		page.await(`$("#state").dataset.state === "reconnecting"`)
		server.Restart()
		page.await(`$("#state").dataset.state === "live" && $("#resume").dataset.resume === "complete"`)
	}
	close(stop)
	publishing.Wait()
	page.await(fmt.Sprintf(`$("#count").textContent === "%d"`, len(want)))
	if got := page.all(); !slices.Equal(got, want) {
		t.Errorf("the page shows %q", got)
	}
	if notices := get[[]string](page, `notices`); slices.Contains(notices, "gap") || page.text("#client-id") != clientID {
		t.Errorf("the page was told %q, and has the client ID %s after %s", notices, page.text("#client-id"), clientID)
	}
	e2etest.Screenshot(page.ctx, t, "quickstart-killed")
}

// persist publishes as curl does with --retry and an Idempotency-Key.
func persist(address, data string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		answer, err := e2etest.Do(context.Background(), http.MethodPost, address, data, e2etest.Header("Idempotency-Key", data))
		switch {
		case err == nil && answer.Status == http.StatusOK:
			return nil
		case err == nil || time.Now().After(deadline):
			return fmt.Errorf("publishing: %w, %d: %s", err, answer.Status, answer.Body)
		}
	}
}

func TestPageReconnectsAfterOrderlyStop(t *testing.T) {
	server := start(t)
	page := open(e2etest.Chromium(t), t, server)

	server.Stop()
	page.await(`$("#state").dataset.state === "reconnecting"`)
	server.Restart()
	page.live()
	page.await(`$("#resume").dataset.resume === "gap"`)
	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=news"), "after") })
}

func TestReloadGoesUnnoticed(t *testing.T) {
	server := start(t)
	page := open(e2etest.Chromium(t), t, server)
	// Whatever happens to the connection sets the state, be it to the same. The
	// list of messages is of limited length.
	page.script(`window.changes = [];
		new MutationObserver((records) => changes.push(...records.map((r) => r.target.dataset.state)))
			.observe(document.querySelector("#state"), { attributes: true });
		window.got = [];
		new MutationObserver((records) => records.forEach((r) => r.addedNodes.forEach((n) => got.push(n.textContent))))
			.observe(document.querySelector("#messages"), { childList: true })`)

	const reloads = 5
	published := 0
	// Any Caddy may cut a connection that is made in the moment of a reload. A
	// publisher then does not know what became of its message, and repeats it.
	publish := func() {
		t.Helper()
		key := e2etest.Header("Idempotency-Key", strconv.Itoa(published))
		for deadline := time.Now().Add(patience); ; {
			answer, err := e2etest.Do(t.Context(), http.MethodPost, server.URL("/events?topic=news"), fmt.Sprintf("<%d>", published), key)
			if err == nil && answer.Status == http.StatusOK {
				break
			}
			if err == nil || time.Now().After(deadline) {
				t.Fatalf("publishing: %v, %d: %s", err, answer.Status, answer.Body)
			}
		}
		published++
	}
	for i := range reloads {
		changed := strings.Replace(caddyfile(t), "sse /events {",
			fmt.Sprintf("header X-Reload %d\n\tsse /events {\n\t\theartbeat %ds", i, i+1), 1)
		reloaded := make(chan error, 1)
		go func() { reloaded <- server.Reload(changed) }()
		for running := true; running; {
			publish()
			select {
			case err := <-reloaded:
				if err != nil {
					t.Fatal(err)
				}
				running = false
			default:
			}
		}
		publish()
	}

	page.await(fmt.Sprintf(`$("#count").textContent === "%d"`, published))
	for i, text := range get[[]string](page, `got`) {
		if !strings.HasSuffix(text, fmt.Sprintf("<%d>", i)) {
			t.Fatalf("line %d of %d is %q", i, published, text)
		}
	}
	if changes := get[[]string](page, `changes`); len(changes) != 0 {
		t.Errorf("the reloads showed in the state of the connection: %q", changes)
	}
	if got := e2etest.Send(t, http.MethodGet, server.URL("/"), "").Header.Get("X-Reload"); got != strconv.Itoa(reloads-1) {
		t.Errorf("the last reload has had no effect: X-Reload is %q", got)
	}
}

func TestTopicsCanBeChangedWithoutMissingAnything(t *testing.T) {
	server := start(t)
	page := open(e2etest.Chromium(t), t, server)
	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=news"), "1") })

	page.fill("new-topic", "room/*")
	page.run(chromedp.KeyEvent(kb.Enter))
	page.await(`$("#resume").dataset.resume === "complete"`)
	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=room/7"), "2") })
	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=news"), "3") })

	page.run(chromedp.Click(`[data-topic="news"] button`))
	page.await(`$("[data-topic=news]") === null && $("#resume").dataset.resume === "complete"`)
	e2etest.Publish(t, server.URL("/events?topic=news"), "unwanted")
	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=room/7"), "4") })

	// The tab remembers its topics and its client ID.
	clientID := page.text("#client-id")
	page.run(chromedp.Reload())
	page.live()
	if page.text("#client-id") != clientID {
		t.Errorf("the client ID was %s, and is %s after a reload of the page", clientID, page.text("#client-id"))
	}
	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=room/8"), "5") })
}

func TestPageExplainsRefusal(t *testing.T) {
	server := start(t)
	page := open(e2etest.Chromium(t), t, server)

	page.fill("new-topic", "a/**/b")
	page.run(chromedp.KeyEvent(kb.Enter))
	page.await(`$("#state").dataset.state === "closed"`)
	page.await(`/^400: .+/.test($("#trouble-text").textContent)`)
	e2etest.Screenshot(page.ctx, t, "quickstart-closed")

	page.run(chromedp.Click(`[data-topic="a/**/b"] button`))
	page.live()
	page.await(`$("#trouble").hidden`)
	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=news"), "hello") })
}

func TestPageComesBackByItselfWhenTheHubIsNoLongerFull(t *testing.T) {
	full := "{\n\tsse {\n\t\tmax_clients 1\n\t}\n}\n" + caddyfile(t)
	server := e2etest.Start(t, full, e2etest.WorkDir(e2etest.RepoRoot(t)))
	guest := e2etest.Subscribe(t, server.URL("/events?topic=news"))
	guest.Connected(t)

	page := load(e2etest.Chromium(t), t, server)
	page.await(`$("#state").dataset.state === "closed" && $("#trouble-text").textContent.startsWith("503: ")`)
	guest.Close()
	page.live()
	page.count(func() { e2etest.Publish(t, server.URL("/events?topic=news"), "hello") })
}
