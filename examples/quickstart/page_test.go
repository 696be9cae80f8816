package quickstart_test

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience bounds each wait for the page; it is long because tests load the machine.
const patience = 30 * time.Second

// start runs the example as its README says, but for the port.
func start(t *testing.T) *e2etest.Server {
	t.Helper()
	return e2etest.Start(t, caddyfile(t), e2etest.WorkDir(e2etest.RepoRoot(t)))
}

func caddyfile(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "examples", "quickstart", "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content, []byte(":8080")) {
		t.Fatal("the Caddyfile listens elsewhere than on :8080")
	}
	return strings.ReplaceAll(string(content), ":8080", ":{{port}}")
}

// page is the example in a tab of a browser.
type page struct {
	t   *testing.T
	ctx context.Context
}

// open loads the page and waits until it is subscribed.
func open(tab context.Context, t *testing.T, server *e2etest.Server) page {
	t.Helper()
	p := load(tab, t, server)
	p.live()
	return p
}

func load(tab context.Context, t *testing.T, server *e2etest.Server) page {
	t.Helper()
	p := page{t, tab}
	p.run(chromedp.Navigate(server.URL("/")))
	return p
}

func (p page) run(action chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, action); err != nil {
		p.t.Fatal(err)
	}
}

func (p page) script(statement string, args ...any) {
	p.t.Helper()
	p.run(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(statement, args...)))
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

// await polls from here: the page's own policy forbids the evaluation that
// chromedp.Poll needs.
func (p page) await(condition string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !p.is(condition); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("never happened: %s\nthe page says:\n%s", condition, get[string](p, `document.body.innerText`))
		}
	}
}

func (p page) live() {
	p.t.Helper()
	p.await(`$("#state")?.dataset.state === "live" && $("#resume").dataset.resume !== ""`)
}

// count does something and waits for the one message that it brings.
func (p page) count(do func()) {
	p.t.Helper()
	before, err := strconv.Atoi(p.text("#count"))
	if err != nil {
		p.t.Fatal(err)
	}
	do()
	p.await(fmt.Sprintf(`$("#count").textContent === "%d"`, before+1))
}

func (p page) text(selector string) string {
	p.t.Helper()
	return get[string](p, fmt.Sprintf(`$(%q).textContent`, selector))
}

type message struct {
	ID     string `json:"id"`
	Event  string `json:"event"`
	Data   string `json:"data"`
	Repeat bool   `json:"repeat"`
}

func (p page) newest() message {
	p.t.Helper()
	return get[message](p, `[$("#messages .message")].map((m) => ({
		id: m.dataset.id, event: m.dataset.event, repeat: "repeat" in m.dataset, data: m.querySelector(".data").textContent,
	}))[0]`)
}

// all returns the data of the messages in the order of their arrival. A message
// that the page had already shown is an error.
func (p page) all() []string {
	p.t.Helper()
	if p.is(`$("#messages [data-repeat]")`) {
		p.t.Errorf("a message came twice:\n%s", p.text("#messages"))
	}
	return get[[]string](p, `[...$("#messages").querySelectorAll(".message .data")].map((d) => d.textContent).reverse()`)
}

// fill replaces what a field holds, by key presses, and leaves the focus there.
func (p page) fill(id, text string) {
	p.t.Helper()
	p.script(`document.getElementById(%q).select()`, id)
	if text == "" {
		text = kb.Backspace
	}
	p.run(chromedp.SendKeys("#"+id, text))
}

func (p page) choose(id, value string) {
	p.t.Helper()
	p.script(`{
		const select = document.getElementById(%q);
		select.value = %q;
		select.dispatchEvent(new Event("input", { bubbles: true }));
	}`, id, value)
}

func query(name, value string) string {
	return url.Values{name: {value}}.Encode()
}
