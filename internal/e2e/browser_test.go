package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// dashboard is the admin endpoint's page in a tab of a browser.
type dashboard struct {
	t   *testing.T
	ctx context.Context
}

// openDashboard opens it at the default hub and waits until it is live.
func openDashboard(t *testing.T, server *e2etest.Server) dashboard {
	t.Helper()
	d := dashboard{t, e2etest.Chromium(t)}
	d.load(server.AdminURL("/sse/#hub=default"))
	d.await(`$("#state")?.dataset.state === "live" && !$("#detail").hidden`)
	return d
}

func (d dashboard) load(url string) {
	d.t.Helper()
	d.run(chromedp.Navigate(url))
}

func (d dashboard) run(action chromedp.Action[chromedp.Void]) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, action); err != nil {
		d.t.Fatal(err)
	}
}

func (d dashboard) script(statement string, args ...any) {
	d.t.Helper()
	d.run(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(statement, args...)))
}

// get evaluates an expression, in which $ is document.querySelector, and metric returns what the first
// hub's card counts.
func get[T any](d dashboard, expression string) T {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](`(($, metric) => `+expression+`)(
		(s) => document.querySelector(s),
		(name) => document.querySelector("[data-metric=" + name + "]")?.dataset.value)`))
	if err != nil {
		d.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

func (d dashboard) is(condition string) bool {
	d.t.Helper()
	return get[bool](d, `Boolean(`+condition+`)`)
}

// await polls from here: the page's own policy forbids the evaluation that chromedp.Poll needs.
func (d dashboard) await(condition string) {
	d.t.Helper()
	for deadline := time.Now().Add(patience); !d.is(condition); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("never happened: %s\nthe page says:\n%s", condition, get[string](d, `document.body.innerText.slice(0, 3000)`))
		}
	}
}

func (d dashboard) text(selector string) string {
	d.t.Helper()
	return get[string](d, fmt.Sprintf(`$(%q).textContent`, selector))
}

// fill replaces what a field holds, by key presses, and leaves the focus there.
func (d dashboard) fill(id, text string) {
	d.t.Helper()
	d.script(`document.getElementById(%q).select()`, id)
	if text == "" {
		text = kb.Backspace
	}
	d.run(chromedp.SendKeys("#"+id, text))
}

func (d dashboard) choose(id, value string) {
	d.t.Helper()
	d.script(`{
		const select = document.getElementById(%q);
		select.value = %q;
		select.dispatchEvent(new Event("input", { bubbles: true }));
	}`, id, value)
}

// prefer makes the browser ask for a color scheme, light or dark.
func (d dashboard) prefer(scheme string) {
	d.t.Helper()
	d.run(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}
