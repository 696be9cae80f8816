package chat_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

func TestWhatIsSaidStaysInTheRoom(t *testing.T) {
	server := start(t)
	browser := e2etest.Chromium(t)
	ada := enter(browser, t, server, "/", "Ada") // which leads to the lobby
	ada.Screenshots("chat-empty")
	bob := enter(e2etest.NewTab(browser, t), t, server, "/room/lobby", "Bob")
	eve := enter(e2etest.NewTab(browser, t), t, server, "/room/kitchen", "Eve")
	for _, p := range []page{ada, bob} {
		p.Await(`$("#people").textContent.includes("Ada") && $("#people").textContent.includes("Bob") && $("#count").textContent === "2"`)
	}
	eve.Await(`$$("#people li").length === 1 && $("#count").textContent === "1"`)

	ada.say("Good morning! Has anybody seen the coffee?")
	bob.hears("Good morning! Has anybody seen the coffee?")
	bob.say("In the kitchen, behind the plants.")
	bob.say(`<img src="x" onerror="alert(1)"> <b>not bold</b>`)
	ada.hears(`<img src="x" onerror="alert(1)"> <b>not bold</b>`)
	ada.say("Bless you.")
	eve.say("Who drank my coffee?")
	eve.hears("Who drank my coffee?")
	want := []string{
		"Ada: Good morning! Has anybody seen the coffee?", "Bob: In the kitchen, behind the plants.",
		`Bob: <img src="x" onerror="alert(1)"> <b>not bold</b>`, "Ada: Bless you.",
	}
	for _, p := range []page{ada, bob} {
		p.hears("Bless you.")
		if got := p.messages(); !slices.Equal(got, want) {
			t.Errorf("%s sees %q", p.Text("#people"), got)
		}
	}
	if got, want := eve.messages(), []string{"Eve: Who drank my coffee?"}; !slices.Equal(got, want) {
		t.Errorf("the kitchen sees %q", got)
	}

	answer := e2etest.Send(t, http.MethodPost, server.URL("/announce"), "The lift is out of order until noon.", e2etest.Header("Authorization", "Bearer secret"))
	if answer.Status != http.StatusOK {
		t.Fatalf("announcing: answered %d: %s", answer.Status, answer.Body)
	}
	for _, p := range []page{ada, bob, eve} {
		p.Await(`$(".announcement span")?.textContent === "The lift is out of order until noon."`)
	}
	ada.Screenshots("chat")

	// Who comes later, or comes back, sees what was said.
	bob.Do(chromedp.Reload())
	bob.Await(`$("#state")?.dataset.state === "live" && $$(".message").length === 4 && $(".announcement")`)
	if got := bob.messages(); !slices.Equal(got, want) {
		t.Errorf("after a reload Bob sees %q", got)
	}
	bob.Await(`$$(".mine").length === 2`)
}

func TestPresenceCountsWhoIsThere(t *testing.T) {
	server := start(t)
	browser := e2etest.Chromium(t)
	ada := enter(browser, t, server, "/room/garden", "Ada")
	tab, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	if err := chromedp.Do(tab); err != nil { // its first use must have no deadline
		t.Fatal(err)
	}
	bob := enter(tab, t, server, "/room/garden", "Bob")
	ada.Await(`$("#count").textContent === "2" && $$("#people li").length === 2`)

	// Somebody without a page, and without a name.
	curl := e2etest.Subscribe(t, server.URL("/room/garden/events"))
	curl.Connected(t)
	ada.Await(`$("#count").textContent === "3" && $("#others").textContent === "and one who only listens"`)
	ada.Screenshots("chat-presence")
	curl.Close()
	ada.Await(`$("#count").textContent === "2" && $("#others").hidden`)

	bob.rename("Robert")
	ada.Await(`$("#people").textContent.includes("Robert") && $$("#people li").length === 2`)
	// Who goes to another room says so, and who vanishes is missed.
	bob.Do(chromedp.Navigate(server.URL("/room/lobby")))
	ada.Await(`$("#count").textContent === "1" && $$("#people li").length === 1`)
	ghost := e2etest.Subscribe(t, server.URL("/room/garden/events?info=ghost+Ghost"))
	ada.Await(`$("#people").textContent.includes("Ghost") && $("#count").textContent === "2"`)
	ghost.Close()
	ada.Await(`!$("#people").textContent.includes("Ghost") && $("#count").textContent === "1"`)
}

func TestMessagesWaitForCaddy(t *testing.T) {
	server := start(t)
	browser := e2etest.Chromium(t)
	ada := enter(browser, t, server, "/room/lobby", "Ada")
	ada.say("before")
	ada.hears("before")
	server.Kill()
	ada.Await(`$("#state").dataset.state === "waiting"`)
	ada.say("meanwhile")
	ada.say("and also")
	ada.Await(`!$("#trouble").hidden`)
	server.Restart()
	ada.hears("and also")
	ada.Await(`$("#trouble").hidden && $(".notice")`) // the hub in memory has forgotten what was before
	ada.say("after")
	ada.hears("after")
	if got, want := ada.messages(), []string{"Ada: before", "Ada: meanwhile", "Ada: and also", "Ada: after"}; !slices.Equal(got, want) {
		t.Errorf("Ada sees %q", got)
	}
}

func TestAnyRoomHasAPage(t *testing.T) {
	server := start(t)
	ada := enter(e2etest.Chromium(t), t, server, "/room/lobby", "Ada")
	ada.Do(chromedp.SendKeys("#room", "café & bar ☃"))
	ada.Click("#go button")
	ada.Await(`$("#title")?.textContent === "# café & bar ☃" && $("#state").dataset.state === "live"`)
	ada.say("hello")
	ada.hears("hello")
	stream := e2etest.Subscribe(t, server.URL("/room/caf%C3%A9%20&%20bar%20%E2%98%83/events"))
	stream.Connected(t)
	e2etest.Publish(t, server.URL("/room/caf%C3%A9%20&%20bar%20%E2%98%83/events"), "as curl does")
	if event := hear(t, stream, "as curl does"); event.Name != "said" {
		t.Errorf("the event is %q", event.Name)
	}
	ada.hears("as curl does")
	if got := ada.messages(); !slices.Equal(got, []string{"Ada: hello", "Nobody: as curl does"}) {
		t.Errorf("Ada sees %q", got)
	}
}

// What can be sent without the page.
func TestNobodySpeaksOutsideOfTheRoom(t *testing.T) {
	server := start(t)
	lobby := e2etest.Subscribe(t, server.URL("/room/lobby/events?topic=**&topic=room/kitchen"))
	lobby.Connected(t)
	kitchen := e2etest.Subscribe(t, server.URL("/room/kitchen/events"))
	kitchen.Connected(t)

	// Whatever the query and the Content-Type say, it is the data of a message to the room.
	tries := []struct{ query, media, body string }{
		{"?broadcast", "text/plain", "to all"},
		{"?topic=room/kitchen", "text/plain", "elsewhere"},
		{"?event=announcement", "text/plain", "fake"},
		{"?event=gap&retry=1", "text/plain", "faker"},
		{"?event=presence&ephemeral", "text/plain", "fakest"},
		{"", "application/json", `{"topic":"room/lobby","event":"announcement","data":"fake"}`},
		{"", "application/json", `{"broadcast":true,"data":"fake"}`},
		{"", "application/x-ndjson", `{"topic":"room/kitchen","data":"x"}`},
		{"", "text/event-stream", "event: announcement"},
	}
	for _, try := range tries {
		e2etest.Publish(t, server.URL("/room/lobby/events"+try.query), try.body, e2etest.Header("Content-Type", try.media))
		if event := hear(t, lobby, try.body); event.Name != "said" || event.ID == "" {
			t.Errorf("%+v came as %+v", try, event)
		}
	}

	announce := func(want int, options ...e2etest.Option) {
		t.Helper()
		answer := e2etest.Send(t, http.MethodPost, server.URL("/announce"), "for all", options...)
		if answer.Status != want {
			t.Errorf("announcing: answered %d, want %d: %s", answer.Status, want, answer.Body)
		}
	}
	announce(http.StatusUnauthorized)
	announce(http.StatusUnauthorized, e2etest.Header("Authorization", "Bearer guessed"))
	announce(http.StatusOK, e2etest.Header("Authorization", "Bearer secret"))
	for _, stream := range []*e2etest.Stream{lobby, kitchen} {
		if event := hear(t, stream, "for all"); event.Name != "announcement" {
			t.Errorf("the announcement came as %+v", event)
		}
	}

	for _, refused := range []struct {
		method, path string
		status       int
		options      []e2etest.Option
	}{
		{http.MethodGet, "/room/*/events", http.StatusBadRequest, nil},
		{http.MethodGet, "/room/%2A/events", http.StatusBadRequest, nil},
		{http.MethodGet, "/room/%2A%2A/events", http.StatusBadRequest, nil},
		{http.MethodGet, "/room/a/b/events", http.StatusNotFound, nil},
		{http.MethodGet, "/announce", http.StatusNotFound, nil},
		{http.MethodPost, "/room/lobby/events", http.StatusForbidden, []e2etest.Option{e2etest.Header("Origin", "https://evil.example")}},
	} {
		answer, err := e2etest.Do(t.Context(), refused.method, server.URL(refused.path), "x", refused.options...)
		if err != nil || answer.Status != refused.status {
			t.Errorf("%s %s: answered %d, want %d: %s %v", refused.method, refused.path, answer.Status, refused.status, answer.Body, err)
		}
	}
	if event, err := kitchen.Next(0); err == nil && event.Name != "presence" {
		t.Errorf("the kitchen got %q", event.Data)
	}
}

// hear returns the next event that does not tell who comes and goes, and fails the test unless this is its data.
func hear(t *testing.T, stream *e2etest.Stream, data string) eventstream.Event {
	t.Helper()
	for {
		event, err := stream.Next(30 * time.Second)
		if err != nil {
			t.Fatalf("waiting for %q: %v", data, err)
		}
		if event.Name == "presence" {
			continue
		}
		if string(event.Data) != data {
			t.Errorf("got %q, want %q", event.Data, data)
		}
		return event
	}
}

// start runs the example as its README says, but for the port and the token.
func start(t *testing.T) *e2etest.Server {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "examples", "chat", "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), ":8080") {
		t.Fatal("the Caddyfile listens elsewhere than on :8080")
	}
	return e2etest.Start(t, strings.ReplaceAll(string(content), ":8080", ":{{port}}"),
		e2etest.WorkDir(e2etest.RepoRoot(t)), e2etest.Env("ANNOUNCE_TOKEN=secret"))
}

// page is a room in a tab of a browser.
type page struct {
	e2etest.Page
	t *testing.T
}

// enter opens a room under a name.
func enter(tab context.Context, t *testing.T, server *e2etest.Server, path, name string) page {
	t.Helper()
	p := page{e2etest.OpenPage(tab, t, server.URL(path)), t}
	p.Await(`$("#state")?.dataset.state === "live" && $$("#people li").length > 0`)
	p.rename(name)
	return p
}

func (p page) rename(name string) {
	p.t.Helper()
	p.Do(chromedp.Evaluate[chromedp.Void](`document.querySelector("#name").select()`))
	p.Do(chromedp.SendKeys("#name", name+kb.Enter))
	p.Await(`$("#people").textContent.includes(%q)`, name)
}

func (p page) say(text string) {
	p.t.Helper()
	p.Do(chromedp.SendKeys("#text", text+kb.Enter))
	p.Await(`$("#text").value === ""`)
}

// hears waits until this is the last message.
func (p page) hears(text string) {
	p.t.Helper()
	p.Await(`$$(".message .text").at(-1)?.textContent === %q`, text)
}

// messages returns who has said what, as the page shows it.
func (p page) messages() []string {
	p.t.Helper()
	return e2etest.Eval[[]string](p.Page, `$$(".message").map((m) => m.querySelector("strong").textContent + ": " + m.querySelector(".text").textContent)`)
}
