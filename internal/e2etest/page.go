package e2etest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Page is a tab of a browser. Its methods belong to the test's goroutine, and
// fail the test if the page does not do what they say.
type Page struct {
	t testing.TB
	// Tab is for what chromedp can do and Page can't.
	Tab context.Context
}

// OpenPage loads a URL in a tab such as that of [Chromium].
func OpenPage(tab context.Context, t testing.TB, url string) Page {
	t.Helper()
	p := Page{t, tab}
	p.Do(chromedp.Navigate(url))
	return p
}

// OpenPhone loads a URL in a tab that is as wide as a phone.
func OpenPhone(tab context.Context, t testing.TB, url string) Page {
	t.Helper()
	p := Page{t, tab}
	p.Do(chromedp.EmulateViewport(phoneWidth, 844, chromedp.EmulateMobile))
	p.Do(chromedp.Navigate(url))
	p.fitsPhone()
	return p
}

// phoneWidth is how wide a page is on a phone, in its pixels.
const phoneWidth = 390

func (p Page) fitsPhone() {
	p.t.Helper()
	if p.Is(`document.documentElement.scrollWidth > %d`, phoneWidth) {
		p.t.Error("the page is wider than a phone")
	}
}

// NewTab opens another tab of the same browser.
func NewTab(browser context.Context, t testing.TB) context.Context {
	t.Helper()
	tab, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	if err := chromedp.Do(tab); err != nil { // its first use must have no deadline
		t.Fatal(err)
	}
	return tab
}

// Do runs an action to its end.
func (p Page) Do(action chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.Tab, patience)
	defer cancel()
	if err := chromedp.Do(ctx, action); err != nil {
		p.t.Fatal(err)
	}
}

// Click clicks what a CSS selector finds.
func (p Page) Click(selector string) {
	p.t.Helper()
	p.Do(chromedp.Click(selector))
}

// Eval evaluates an expression, in which $ is document.querySelector and $$ is
// an array of all that a selector finds.
func Eval[T any](p Page, expression string, args ...any) T {
	p.t.Helper()
	value, err := tryEval[T](p, fmt.Sprintf(expression, args...))
	if err != nil {
		p.t.Fatalf("%s: %v", fmt.Sprintf(expression, args...), err)
	}
	return value
}

func tryEval[T any](p Page, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(p.Tab, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](`(($, $$) => (`+expression+`))(
		(s) => document.querySelector(s), (s) => [...document.querySelectorAll(s)])`))
}

// Text returns the text of what a CSS selector finds.
func (p Page) Text(selector string) string {
	p.t.Helper()
	return Eval[string](p, `$(%q).textContent`, selector)
}

// Is reports whether a condition, as of [Eval], holds now.
func (p Page) Is(condition string, args ...any) bool {
	p.t.Helper()
	return Eval[bool](p, `Boolean(`+condition+`)`, args...)
}

// Await waits until a condition, as of [Eval], holds. It polls from here: a
// page's own policy may forbid the evaluation that chromedp.Poll needs. One
// that fails, as while the page goes to another, is tried again.
func (p Page) Await(condition string, args ...any) {
	p.t.Helper()
	condition = fmt.Sprintf(condition, args...)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		holds, err := tryEval[bool](p, `Boolean(`+condition+`)`)
		if holds && err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("never happened: %s (%v)\nthe page says:\n%s", condition, err, Eval[string](p, `document.body.innerText`))
		}
	}
}

// Screenshots takes pictures as [Screenshot] does: of a desk in light and dark,
// and of a phone. Each must fit its width.
func (p Page) Screenshots(name string) {
	p.t.Helper()
	p.prefer("light")
	Screenshot(p.Tab, p.t, name)
	p.prefer("dark")
	Screenshot(p.Tab, p.t, name+"-dark")
	p.prefer("light")
	p.Do(chromedp.EmulateViewport(phoneWidth, 844, chromedp.EmulateMobile))
	p.fitsPhone()
	Screenshot(p.Tab, p.t, name+"-phone")
	p.Do(chromedp.EmulateViewport(1280, 800))
}

// prefer makes the browser ask for a color scheme, light or dark.
func (p Page) prefer(scheme string) {
	p.t.Helper()
	p.Do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}
