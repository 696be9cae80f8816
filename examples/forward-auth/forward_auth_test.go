package forwardauth_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience bounds each wait; it is long because tests load the machine.
const patience = 30 * time.Second

func TestMain(m *testing.M) { e2etest.Main(m) }

func TestEverybodySeesTheirOwnMessages(t *testing.T) {
	site := start(t)
	browser := e2etest.Chromium(t)
	alice, bob, carol := site.open(browser, t), site.open(private(browser, t), t), site.open(private(browser, t), t)
	e2etest.Screenshot(alice.ctx, t, "forward-auth-sign-in")
	for name, p := range map[string]page{"alice": alice, "bob": bob, "carol": carol} {
		p.signIn(name)
	}

	alice.send("bob", "just for bob")
	bob.await(`$("#inbox .text")?.textContent === "just for bob"`)
	bob.send("team", "for the red team")
	carol.send("everybody", "for all")
	bob.send("alice", `<img src="x" onerror="alert(1)"><b>not bold</b>`)
	site.notify(t, `{"user":"alice","event":"you","data":{"from":"shop","text":"your order ships"}}`)
	for _, p := range []page{bob, carol} {
		site.notify(t, `{"topic":"news","event":"everybody","data":{"from":"shop","text":"closing"}}`)
		p.await(`$("#inbox .text")?.textContent === "closing"`)
	}
	alice.await(`$("#inbox").childElementCount === 6`)
	want := map[*page][]string{
		&alice: {
			"Bob to team red: for the red team", "Carol to everybody: for all",
			`Bob for you: <img src="x" onerror="alert(1)"><b>not bold</b>`, "Shop for you: your order ships",
			"Shop to everybody: closing", "Shop to everybody: closing",
		},
		&bob: {
			"Alice for you: just for bob", "Bob to team red: for the red team", "Carol to everybody: for all",
			"Shop to everybody: closing", "Shop to everybody: closing",
		},
		&carol: {"Carol to everybody: for all", "Shop to everybody: closing", "Shop to everybody: closing"},
	}
	for p, texts := range want {
		p.await(fmt.Sprintf(`$("#inbox").childElementCount === %d`, len(texts)))
		if got := p.inbox(); !slices.Equal(got, texts) {
			t.Errorf("the page of %s shows %q, want %q", p.text("#me"), got, texts)
		}
	}
	e2etest.Screenshot(alice.ctx, t, "forward-auth")
}

func TestMessagesWaitForWhoIsSignedOut(t *testing.T) {
	site := start(t)
	page := site.open(e2etest.Chromium(t), t)
	page.signIn("alice")
	site.notify(t, `{"user":"alice","event":"you","data":{"from":"shop","text":"first"}}`)
	page.await(`$("#inbox .text")?.textContent === "first"`)
	page.signOut()

	site.notify(t, `{"user":"alice","event":"you","data":{"from":"shop","text":"second"}}`)
	page.signIn("bob") // at the same screen
	page.send("bob", "for bob")
	page.await(`$("#inbox .text")?.textContent === "for bob"`)
	page.signOut()

	page.signIn("alice")
	page.await(`$("#inbox .text")?.textContent === "second"`)
	if got, want := page.inbox(), []string{"Shop for you: second"}; !slices.Equal(got, want) {
		t.Errorf("the page shows %q, want %q", got, want)
	}
}

func TestPageAsksToSignInWhenTheSessionIsGone(t *testing.T) {
	site := start(t)
	page := site.open(e2etest.Chromium(t), t)
	page.signIn("alice")
	site.restartApplication(t) // which forgets its sessions
	site.Restart()
	page.await(`!$("#signed-out").hidden && $("#state").dataset.state === "signed-out"`)
	page.signIn("alice")
	page.send("alice", "note to self")
	page.await(`$("#inbox .text")?.textContent === "note to self"`)
}

func TestPageWaitsForTheApplication(t *testing.T) {
	site := start(t)
	page := site.open(e2etest.Chromium(t), t)
	page.signIn("carol")
	site.stopApplication()
	site.notify(t, `{"user":"carol","event":"you","data":{"from":"shop","text":"goes on"}}`)
	page.await(`$("#inbox .text")?.textContent === "goes on"`) // open streams do

	site.Restart()
	page.await(`!$("#trouble").hidden && $("#trouble").textContent.includes("Is it running?")`)
	site.startApplication(t)
	page.await(`!$("#signed-out").hidden`)
}

// What the README says of those who pretend, by HTTP alone.
func TestNobodyCanBeSomebodyElse(t *testing.T) {
	site := start(t)
	alice := e2etest.Subscribe(t, site.URL("/events"), site.signIn(t, "alice"))
	alice.Connected(t)
	pretend := []e2etest.Option{
		e2etest.Header("Remote-User", "alice"), e2etest.Header("Remote-Team", "red"), e2etest.Header("remote_user", "alice"),
		e2etest.Header("X-Forwarded-Uri", "/session"), e2etest.Header("X-Forwarded-Method", "POST"),
	}
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		for _, path := range []string{"/events", "/events?client_id=x&topic=news", "/EVENTS", "/events?user=alice"} {
			answer := e2etest.Send(t, method, site.URL(path), "", pretend...)
			if answer.Status != http.StatusUnauthorized {
				t.Errorf("%s %s: answered %d: %s", method, path, answer.Status, answer.Body)
			}
		}
	}
	wrong := e2etest.Send(t, http.MethodPost, site.URL("/session"), url.Values{"user": {"alice"}, "password": {"guessed"}}.Encode(), form())
	if wrong.Status != http.StatusForbidden || wrong.Header.Get("Set-Cookie") != "" {
		t.Errorf("a guessed password is answered %d", wrong.Status)
	}

	carol := e2etest.Subscribe(t, site.URL("/events?topic=team/red&topic=**"), append(pretend, site.signIn(t, "carol"))...)
	carol.Connected(t)
	site.notify(t, `{"user":"alice","data":"hers"}`)
	site.notify(t, `{"topic":"team/red","data":"the reds'"}`)
	site.notify(t, `{"user":"carol","data":"carol's"}`)
	site.notify(t, `{"topic":"team/blue","data":"the blues'"}`)
	alice.Expect(t, "hers")
	alice.Expect(t, "the reds'")
	carol.Expect(t, "carol's")
	carol.Expect(t, "the blues'")

	// The door of the application has a lock, and lets nobody listen.
	for _, token := range []string{"", "guessed"} {
		answer := e2etest.Send(t, http.MethodPost, site.URL("/notify?topic=news"), "x", e2etest.Header("Authorization", "Bearer "+token))
		if answer.Status != http.StatusUnauthorized {
			t.Errorf("POST /notify with the token %q: answered %d", token, answer.Status)
		}
	}
	answer := e2etest.Send(t, http.MethodGet, site.URL("/notify?topic=**"), "", e2etest.Header("Authorization", "Bearer secret"))
	if answer.Status != http.StatusNotFound {
		t.Errorf("GET /notify: answered %d", answer.Status)
	}
	// Nor do pages publish at all.
	answer = e2etest.Send(t, http.MethodPost, site.URL("/events?topic=news"), "x", site.signIn(t, "carol"))
	if answer.Status != http.StatusForbidden {
		t.Errorf("POST /events: answered %d", answer.Status)
	}
	// A page of another site can't send for whoever is signed in.
	answer = e2etest.Send(t, http.MethodPost, site.URL("/messages"), "to=bob&text=x", form(), site.signIn(t, "alice"),
		e2etest.Header("Origin", "https://evil.example"), e2etest.Header("Sec-Fetch-Site", "cross-site"))
	if answer.Status != http.StatusForbidden {
		t.Errorf("a message from a foreign page: answered %d", answer.Status)
	}
}

// site is the example as its README says, but for the ports and the token.
type site struct {
	*e2etest.Server
	binary  string
	address string // of the application
	program *exec.Cmd
}

func start(t *testing.T) *site {
	t.Helper()
	s := &site{binary: e2etest.Build(t, "./examples/forward-auth/auth"), address: fmt.Sprintf("127.0.0.1:%d", e2etest.FreePort(t))}
	s.Server = e2etest.Start(t, caddyfile(t, s.address), e2etest.WorkDir(e2etest.RepoRoot(t)), e2etest.Env("NOTIFY_TOKEN=secret"))
	t.Cleanup(s.stopApplication)
	s.startApplication(t)
	return s
}

func caddyfile(t *testing.T, application string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "examples", "forward-auth", "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{":8080", "127.0.0.1:9091"} {
		if !bytes.Contains(content, []byte(address)) {
			t.Fatalf("the Caddyfile does not speak of %s", address)
		}
	}
	return strings.NewReplacer(":8080", ":{{port}}", "127.0.0.1:9091", application).Replace(string(content))
}

func (s *site) startApplication(t *testing.T) {
	t.Helper()
	s.program = exec.Command(s.binary)
	s.program.Env = append(os.Environ(), "ADDRESS="+s.address, "NOTIFY_URL="+s.URL("/notify"), "NOTIFY_TOKEN=secret")
	s.program.Stderr = os.Stderr
	if err := s.program.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		answer, err := e2etest.Do(t.Context(), http.MethodGet, "http://"+s.address+"/whoami", "")
		if err == nil && answer.Status == http.StatusUnauthorized {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the application does not serve: %v", err)
		}
	}
}

func (s *site) stopApplication() {
	_ = s.program.Process.Kill()
	_ = s.program.Wait()
}

func (s *site) restartApplication(t *testing.T) {
	t.Helper()
	s.stopApplication()
	s.startApplication(t)
}

func form() e2etest.Option {
	return e2etest.Header("Content-Type", "application/x-www-form-urlencoded")
}

// signIn signs somebody in and returns their cookie.
func (s *site) signIn(t *testing.T, name string) e2etest.Option {
	t.Helper()
	answer := e2etest.Send(t, http.MethodPost, s.URL("/session"), url.Values{"user": {name}, "password": {"caddy"}}.Encode(), form())
	cookie, err := http.ParseSetCookie(answer.Header.Get("Set-Cookie"))
	if err != nil {
		t.Fatalf("signing %s in: %d: %v", name, answer.Status, err)
	}
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode {
		t.Errorf("the session's cookie is %s", cookie)
	}
	return e2etest.Header("Cookie", cookie.Name+"="+cookie.Value)
}

// notify publishes as the README does with curl.
func (s *site) notify(t *testing.T, message string) {
	t.Helper()
	e2etest.Publish(t, s.URL("/notify"), message,
		e2etest.Header("Authorization", "Bearer secret"), e2etest.Header("Content-Type", "application/json"))
}

// page is the example in a tab of a browser.
type page struct {
	t   *testing.T
	ctx context.Context
}

// private opens a tab with cookies of its own.
func private(browser context.Context, t *testing.T) context.Context {
	t.Helper()
	tab, closeTab := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(closeTab)
	if err := chromedp.Do(tab); err != nil { // its first use must have no deadline
		t.Fatal(err)
	}
	return tab
}

func (s *site) open(tab context.Context, t *testing.T) page {
	t.Helper()
	p := page{t, tab}
	p.run(chromedp.Navigate(s.URL("/")))
	p.await(`$("#signed-out")?.hidden === false`)
	return p
}

func (p page) signIn(name string) {
	p.t.Helper()
	p.run(chromedp.Click(`.choice:has([value=` + name + `])`))
	p.run(chromedp.Click(`#sign-in button`))
	p.await(`$("#state").dataset.state === "live" && $("#me").textContent.toLowerCase() === "` + name + `"`)
}

func (p page) signOut() {
	p.t.Helper()
	p.run(chromedp.Click(`#sign-out`))
	p.await(`!$("#signed-out").hidden && $("#inbox").childElementCount === 0`)
}

func (p page) send(to, text string) {
	p.t.Helper()
	p.run(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`document.getElementById("to").value = %q; document.getElementById("text").value = %q`, to, text)))
	p.run(chromedp.Click(`#send button`))
	p.await(`$("#text").value === "" || !$("#trouble").hidden`)
	if p.is(`!$("#trouble").hidden`) {
		p.t.Errorf("sending to %s: %s", to, p.text("#trouble"))
	}
}

// inbox returns what the page shows, oldest first.
func (p page) inbox() []string {
	p.t.Helper()
	return get[[]string](p, `[...$("#inbox").querySelectorAll("li")].map((m) => m.className === "message"
		? m.querySelector(".from").textContent + " " + m.querySelector(".tag").textContent + ": " + m.querySelector(".text").textContent
		: m.textContent).reverse()`)
}

func (p page) run(action chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, action); err != nil {
		p.t.Fatal(err)
	}
}

// get evaluates an expression, in which $ is document.querySelector.
func get[T any](p page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](`(($) => `+expression+`)((s) => document.querySelector(s))`))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

func (p page) is(condition string) bool {
	p.t.Helper()
	return get[bool](p, `Boolean(`+condition+`)`)
}

func (p page) await(condition string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !p.is(condition); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("never happened: %s\nthe page says:\n%s", condition, get[string](p, `document.body.innerText`))
		}
	}
}

func (p page) text(selector string) string {
	p.t.Helper()
	return get[string](p, fmt.Sprintf(`$(%q).textContent`, selector))
}
