package aichat_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

// As the README has it, with the model that comes with it.
func TestAnswerArrivesTokenByToken(t *testing.T) {
	preset, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "examples", "ai-chat", "backend", "answer.md"))
	if err != nil {
		t.Fatal(err)
	}
	server := start(t)
	startBackend(t, server, "PACE=20ms")
	page := open(t, server.URL("/"))
	page.Screenshots("ai-chat-welcome")

	want := len(regexp.MustCompile(`\s*\S+|\s+`).FindAllString(string(preset), -1))
	page.Click(".suggestion")
	page.hasTokens(1)
	if tokens := e2etest.Eval[int](page.Page, `Number($(".assistant").dataset.tokens)`); tokens == want {
		t.Errorf("%d tokens came at once", tokens)
	}
	page.hasTokens(80)
	page.Screenshots("ai-chat-speaking")
	page.Await(`$(".assistant").dataset.state === "done"`)
	got := page.last()
	if text := strings.Join(got.Tokens, ""); text != string(preset) {
		t.Errorf("the answer is %q", text)
	}
	if len(got.Tokens) != want {
		t.Errorf("it came in %d tokens, want %d", len(got.Tokens), want)
	}
	// What Markdown means is shown, not its signs.
	if text := page.Text(".answer"); strings.Contains(text, "**") || strings.Contains(text, "`") {
		t.Errorf("the page shows %q", text)
	}
	if n := e2etest.Eval[int](page.Page, `$$(".answer > ol > li, .answer > ul > li").length`); n != 7 {
		t.Errorf("the page shows %d items of lists, want 7", n)
	}
	page.Screenshots("ai-chat")

	page.allCameAsEvents()

	// The button that plays with the line does what it says.
	page.ask("Again?")
	page.hasTokens(20)
	page.Click("#cut")
	page.Await(`$("#state").dataset.state === "cut"`)
	page.Screenshots("ai-chat-cut")
	page.Await(`$$(".assistant").at(-1).dataset.state === "done"`)
	if text := strings.Join(page.last().Tokens, ""); text != string(preset) {
		t.Errorf("after a cut the answer is %q", text)
	}
	page.Await(`$$(".facts").at(-1).textContent.includes("the line was cut once, not one token lost")`)
	page.Screenshots("ai-chat-resumed")
}

func TestCutLineCostsNotOneToken(t *testing.T) {
	model := startModel(t)
	server := start(t)
	startBackend(t, server, model.env)
	line := e2etest.NewProxy(t, server.Expand("127.0.0.1:{{port}}"))
	page := open(t, "http://"+line.Addr()+"/")
	page.ask("Tell me everything.")
	reply := model.asked(t)
	var want []string
	say := func(count int) {
		for range count {
			word := fmt.Sprintf("word%d ", len(want))
			want = append(want, word)
			reply.say(t, word)
		}
	}
	say(20)
	page.hasTokens(20)
	for range 2 { // the first time the browser does not know its client_id, the second time it does
		line.Cut()
		page.Await(`$("#state").dataset.state === "waiting"`)
		say(20)
		line.Heal()
		page.hasTokens(len(want))
		page.Await(`$("#state").dataset.state === "live"`)
		say(20)
		page.hasTokens(len(want))
	}
	// The end, too, may fall into a hole.
	line.Cut()
	page.Await(`$("#state").dataset.state === "waiting"`)
	say(20)
	reply.end(t)
	line.Heal()
	page.Await(`$(".assistant").dataset.state === "done"`)
	if got := page.last().Tokens; !slices.Equal(got, want) {
		t.Errorf("the page has the tokens %q", got)
	}
	page.Await(`$(".facts .good").textContent === "the line was cut 3 times, not one token lost"`)
	page.allCameAsEvents()
}

// What the backend has written to a line that breaks, and nothing since, is published all the same.
func TestLineThatBreaksWhileTheModelThinksCostsNotOneToken(t *testing.T) {
	model := startModel(t)
	server := start(t)
	line := e2etest.NewProxy(t, server.Expand("127.0.0.1:{{port}}"))
	startBackend(t, server, model.env, "PUBLISH_URL=http://"+line.Addr()+"/publish")
	page := open(t, server.URL("/"))
	page.ask("Tell me everything.")
	reply := model.asked(t)
	reply.say(t, "one ")
	page.hasTokens(1)
	line.Hold()
	reply.say(t, "two ")
	page.backendHas(2)
	line.Cut()
	line.Heal()
	page.hasTokens(2)
	reply.end(t)
	page.Await(`$(".assistant").dataset.state === "done"`)
	page.allCameAsEvents()
}

func TestPromptWaitsForTheLine(t *testing.T) {
	model := startModel(t)
	server := start(t)
	startBackend(t, server, model.env)
	line := e2etest.NewProxy(t, server.Expand("127.0.0.1:{{port}}"))
	page := open(t, "http://"+line.Addr()+"/")
	line.Cut()
	page.ask("Is anybody there?")
	page.Await(`!$("#trouble").hidden && $(".facts").textContent === "sending…"`)
	page.Screenshots("ai-chat-waiting")
	line.Heal()
	reply := model.asked(t)
	page.Await(`$(".facts").textContent === "thinking…"`)
	reply.say(t, "Yes.")
	reply.end(t)
	page.Await(`$(".assistant").dataset.state === "done" && $("#trouble").hidden`)
	if got := page.last().Tokens; !slices.Equal(got, []string{"Yes."}) {
		t.Errorf("the page has the tokens %q", got)
	}
}

func TestStopEndsTheModel(t *testing.T) {
	model := startModel(t)
	server := start(t)
	startBackend(t, server, model.env)
	page := open(t, server.URL("/"))
	page.ask("Count to a million.")
	reply := model.asked(t)
	reply.say(t, "One, ", "two, ", "three, ")
	page.hasTokens(3)
	page.Click("#stop")
	reply.gone(t)
	page.Await(`$(".assistant").dataset.state === "stopped" && $("#stop").hidden`)

	// What was said belongs to the conversation.
	page.ask("Thank you.")
	reply = model.asked(t)
	want := []message{{"user", "Count to a million."}, {"assistant", "One, two, three, "}, {"user", "Thank you."}}
	if !slices.Equal(reply.messages, want) {
		t.Errorf("the model was given %q", reply.messages)
	}
	reply.say(t, "You are ", "welcome.")
	reply.end(t)
	page.Await(`$$(".assistant").at(-1).dataset.state === "done"`)
	if got, want := page.last().Tokens, []string{"You are ", "welcome."}; !slices.Equal(got, want) {
		t.Errorf("the page has the tokens %q", got)
	}
	page.Click("#new")
	page.Await(`!$("#welcome").hidden && $("#turns").childElementCount === 0`)
}

// A page that comes back in time finds the model speaking, and one that does not has ended it.
func TestModelStopsOnceNobodyListens(t *testing.T) {
	model := startModel(t)
	server := start(t)
	startBackend(t, server, model.env, "UNHEARD=1s")
	page := open(t, server.URL("/"))
	page.ask("Count to a million.")
	reply := model.asked(t)
	reply.say(t, "One, ", "two, ")
	page.hasTokens(2)
	page.Do(chromedp.Navigate("about:blank"))
	reply.gone(t)
	page.Do(chromedp.Navigate(server.URL("/")))
	page.Await(`$(".assistant")?.dataset.state === "failed" && $(".facts .error").textContent.includes("nobody was listening")`)
	if got := page.last().Tokens; !slices.Equal(got, []string{"One, ", "two, "}) {
		t.Errorf("the page has the tokens %q", got)
	}
}

func TestReloadedPageGoesOnListening(t *testing.T) {
	model := startModel(t)
	server := start(t)
	startBackend(t, server, model.env)
	page := open(t, server.URL("/"))
	page.ask("Hello?")
	reply := model.asked(t)
	reply.say(t, "A", "B")
	page.hasTokens(2)
	reply.say(t, "C")
	page.Do(chromedp.Reload())
	reply.say(t, "D")
	page.hasTokens(4)
	reply.say(t, "E")
	reply.end(t)
	page.Await(`$(".assistant").dataset.state === "done"`)
	if got, want := page.last().Tokens, []string{"A", "B", "C", "D", "E"}; !slices.Equal(got, want) {
		t.Errorf("the page has the tokens %q", got)
	}
}

// The hub in memory forgets all; the backend does not.
func TestDeathOfCaddyCostsNotOneToken(t *testing.T) {
	model := startModel(t)
	server := start(t)
	startBackend(t, server, model.env)
	page := open(t, server.URL("/"))
	page.ask("Hello?")
	reply := model.asked(t)
	reply.say(t, "A", "B")
	page.hasTokens(2)
	server.Kill()
	reply.say(t, "C", "D")
	server.Restart()
	page.hasTokens(4)
	reply.say(t, "E")
	reply.end(t)
	page.Await(`$(".assistant").dataset.state === "done"`)
	if got, want := page.last().Tokens, []string{"A", "B", "C", "D", "E"}; !slices.Equal(got, want) {
		t.Errorf("the page has the tokens %q", got)
	}
}

func TestPageFindsOutThatTheBackendHasDied(t *testing.T) {
	model := startModel(t)
	server := start(t)
	backend := startBackend(t, server, model.env)
	page := open(t, server.URL("/"))
	page.ask("Hello?")
	reply := model.asked(t)
	reply.say(t, "A")
	page.hasTokens(1)
	backend.kill()
	page.Await(`!$("#trouble").hidden && $("#trouble").textContent.includes("Is it running?")`)
	backend.start(t)
	page.Await(`$(".assistant").dataset.state === "failed" && $(".facts .error").textContent.includes("Ask again")`)
}

func TestPageFindsOutThatNothingCanBePublished(t *testing.T) {
	model := startModel(t)
	server := start(t)
	line := e2etest.NewProxy(t, server.Expand("127.0.0.1:{{port}}"))
	startBackend(t, server, model.env, "PUBLISH_URL=http://"+line.Addr()+"/publish", "PUBLISH_TOKEN=wrong")
	page := open(t, server.URL("/"))
	line.Hold() // or the refusal may come before the model is asked
	page.ask("Hello?")
	reply := model.asked(t)
	line.Heal()
	reply.gone(t) // it is not left talking to nobody
	page.Await(`$(".assistant").dataset.state === "failed" && $(".facts .error").textContent.includes("401 Unauthorized")`)
}

func TestTroubleOfTheModelIsShown(t *testing.T) {
	model := startModel(t)
	server := start(t)
	startBackend(t, server, model.env)
	page := open(t, server.URL("/"))
	page.ask("Hello?")
	reply := model.asked(t)
	reply.say(t, "I think ")
	reply.breakOff()
	page.Await(`$(".assistant").dataset.state === "failed" && $(".facts .error").textContent === "the model broke off"`)
	if got := page.last().Tokens; !slices.Equal(got, []string{"I think "}) {
		t.Errorf("the page has the tokens %q", got)
	}
}

func TestAnswerNeverBecomesHTML(t *testing.T) {
	model := startModel(t)
	server := start(t)
	startBackend(t, server, model.env)
	page := open(t, server.URL("/"))
	const evil = `<img src="x" onerror="alert(1)"><script>alert(2)</script>`
	page.ask(evil)
	reply := model.asked(t)
	reply.say(t, evil+"\n\n- **"+evil+"**\n- `"+evil+"`\n- *"+evil+"*\n\n# "+evil+"\n```"+evil+"\n"+evil, "\n```\n")
	reply.end(t)
	page.Await(`$(".assistant").dataset.state === "done" && $(".answer pre") && $(".answer h3")`)
	if page.Is(`$("#turns img, #turns script") !== null`) {
		t.Error("the answer became HTML")
	}
	for _, selector := range []string{".bubble", ".answer p", ".answer strong", ".answer code", ".answer em", ".answer h3", ".answer pre"} {
		if text := strings.TrimSuffix(page.Text(selector), "\n"); text != evil {
			t.Errorf("%s is %q", selector, text)
		}
	}
}

// What may be asked and published, by HTTP alone.
func TestOnlyTheBackendPublishes(t *testing.T) {
	model := startModel(t)
	server := start(t)
	startBackend(t, server, model.env)
	listener := e2etest.Subscribe(t, server.URL("/events"))
	clientID := listener.Connected(t).ClientID
	stranger := e2etest.Subscribe(t, server.URL("/events?topic=**"))
	stranger.Connected(t)

	prompt := fmt.Sprintf(`{"client_id":%q,"messages":[{"role":"user","content":"hi"}]}`, clientID)
	const id = "an-answer-of-a-test"
	for _, refused := range []struct {
		method, path, body string
		options            []e2etest.Option
		status             int
	}{
		{http.MethodPost, "/events?client_id=" + clientID, "x", nil, 403},
		{http.MethodPost, "/publish?client_id=" + clientID, "x", nil, 401},
		{http.MethodPost, "/publish?client_id=" + clientID, "x", []e2etest.Option{e2etest.Header("Authorization", "Bearer guessed")}, 401},
		{http.MethodGet, "/publish?topic=**", "", []e2etest.Option{e2etest.Header("Authorization", "Bearer secret")}, 404},
		{http.MethodPut, "/answers/short", prompt, nil, 400},
		{http.MethodPut, "/answers/" + id, "{}", nil, 400},
		{http.MethodPut, "/answers/" + id, prompt, []e2etest.Option{e2etest.Header("Sec-Fetch-Site", "cross-site")}, 403},
		{http.MethodPut, "/answers/" + id, `{"client_id":"x","messages":[{"role":"` + strings.Repeat("x", 300<<10) + `"}]}`, nil, 400},
		{http.MethodGet, "/answers/" + id, "", nil, 404},
	} {
		answer := e2etest.Send(t, refused.method, server.URL(refused.path), refused.body, refused.options...)
		if answer.Status != refused.status {
			t.Errorf("%s %s: answered %d, want %d: %s", refused.method, refused.path, answer.Status, refused.status, answer.Body)
		}
	}

	// A prompt that is sent twice is asked once.
	for range 2 {
		if answer := e2etest.Send(t, http.MethodPut, server.URL("/answers/"+id), prompt); answer.Status != http.StatusAccepted {
			t.Fatalf("answered %d: %s", answer.Status, answer.Body)
		}
	}
	reply := model.asked(t)
	reply.say(t, "Hi.")
	if event := listener.Expect(t, `{"n":0,"text":"Hi."}`); event.Name != id {
		t.Errorf("the event is %q", event.Name)
	}
	reply.end(t)
	listener.Expect(t, `[DONE]`)
	if event, err := stranger.Next(0); err == nil {
		t.Errorf("a stranger got %q", event.Data)
	}
	select {
	case <-model.replies:
		t.Error("the model was asked twice")
	default:
	}
}

// page is the example in a tab of a browser.
type page struct {
	e2etest.Page
	t *testing.T
}

// open loads the page and waits until it is subscribed.
func open(t *testing.T, url string) page {
	t.Helper()
	p := page{e2etest.OpenPage(e2etest.Chromium(t), t, url), t}
	p.Await(`$("#state")?.dataset.state === "live"`)
	return p
}

// ask types a prompt and sends it by the keyboard.
func (p page) ask(prompt string) {
	p.t.Helper()
	p.Await(`!$("#send").hidden`)
	p.Do(chromedp.SendKeys("#prompt", prompt))
	p.Do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		// One event, as of a keyboard, so that the page can keep it from becoming a new line.
		_, err := cdp.Call(ctx, target, input.DispatchKeyEvent, input.DispatchKeyEventParams{
			Type: input.DispatchKeyEventTypeKeyDown, Key: "Enter", Code: "Enter", Text: "\r", WindowsVirtualKeyCode: 13,
		})
		return err
	}))
	if left := e2etest.Eval[string](p.Page, `$("#prompt").value`); left != "" {
		p.t.Errorf("%q is left of the prompt", left)
	}
	p.Await(`$$(".user").at(-1)?.textContent === %q`, prompt)
}

// hasTokens waits until the last answer has so many tokens at least.
func (p page) hasTokens(count int) {
	p.t.Helper()
	p.Await(`Number($$(".assistant").at(-1)?.dataset.tokens) >= %d`, count)
}

// allCameAsEvents fails the test if the page had to ask the backend for tokens.
func (p page) allCameAsEvents() {
	p.t.Helper()
	if fetched := e2etest.Eval[string](p.Page, `$$(".assistant").at(-1).dataset.fetched`); fetched != "0" {
		p.t.Errorf("%s tokens did not come as events", fetched)
	}
}

// backendHas waits until the backend has so many tokens of the answer.
func (p page) backendHas(count int) {
	p.t.Helper()
	p.Await(`performance.getEntriesByType("resource").some((e) => e.name.includes("/answers/"))`)
	answer := e2etest.Eval[string](p.Page, `performance.getEntriesByType("resource").find((e) => e.name.includes("/answers/")).name`)
	e2etest.Await(p.t, fmt.Sprintf("the backend has %d tokens", count), func() bool {
		response, err := http.Get(answer)
		if err != nil {
			p.t.Fatal(err)
		}
		defer response.Body.Close()
		var had turn
		if err := json.NewDecoder(response.Body).Decode(&had); err != nil {
			p.t.Fatal(err)
		}
		return len(had.Tokens) >= count
	})
}

type turn struct {
	Tokens []string `json:"tokens"`
	State  string   `json:"state"`
}

// last returns the last answer, as the page has kept it at its end.
func (p page) last() turn {
	p.t.Helper()
	var kept struct {
		Turns []turn `json:"turns"`
	}
	text := e2etest.Eval[string](p.Page, `sessionStorage.getItem("caddy-sse.ai-chat")`)
	if err := json.Unmarshal([]byte(text), &kept); err != nil {
		p.t.Fatal(err)
	}
	return kept.Turns[len(kept.Turns)-1]
}
