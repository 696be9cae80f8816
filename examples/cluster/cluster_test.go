package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// patience bounds each wait for the page; it is long because tests load the
// machine.
const patience = 30 * time.Second

func TestMain(m *testing.M) { e2etest.Main(m) }

func TestPageSurvivesTheDeathOfEitherInstance(t *testing.T) {
	c := start(t)
	page := open(e2etest.Chromium(t), t, c.front)
	page.publishEvery(50 * time.Millisecond)
	page.receive(20)

	first := page.instance()
	for _, dies := range []string{first, other(first)} {
		if on := page.instance(); on != dies {
			t.Fatalf("the page is on %s, want %s", on, dies)
		}
		c.instances[dies].Kill()
		page.await(`$("#instance").textContent === %q`, other(dies))
		page.await(`$("#resume").dataset.resume === "complete"`)
		page.receive(20)
		page.nothingIsMissing()
		e2etest.Screenshot(page.ctx, t, "cluster-without-"+dies)

		c.instances[dies].Restart()
		accepted := page.accepted(dies)
		page.await(`Number($("[data-instance=%s] .took").textContent) > %d`, dies, accepted)

		// Where a message is published does not matter.
		e2etest.Publish(t, c.instances[dies].URL("/events?topic=cluster"), "hello from "+dies)
		page.await(`$("#events").textContent.includes("hello from %s")`, dies)
	}
	page.stopPublishing()
	page.nothingIsMissing()
	c.logHas(t, page.number("#published")+2)
	if got := page.number("#reconnects"); got != 2 {
		t.Errorf("the page tells of %d reconnects, want 2", got)
	}
	e2etest.Screenshot(page.ctx, t, "cluster")
}

func TestPageComesBackWhenBothInstancesWereDead(t *testing.T) {
	c := start(t)
	page := open(e2etest.Chromium(t), t, c.front)
	page.publishEvery(50 * time.Millisecond)
	page.receive(10)

	for _, instance := range c.instances {
		instance.Kill()
	}
	page.await(`!$("#trouble").hidden`) // the front has told that there is nobody
	page.await(`Number($("#waiting").dataset.waiting) > 10`)
	e2etest.Screenshot(page.ctx, t, "cluster-dead")
	for _, instance := range c.instances {
		instance.Restart()
	}
	page.live()
	page.await(`$("#resume").dataset.resume === "complete"`)
	page.receive(20)
	page.stopPublishing()
	page.nothingIsMissing()
	c.logHas(t, page.number("#published"))
}

func TestMessagesWaitForRedis(t *testing.T) {
	c := start(t)
	page := open(e2etest.Chromium(t), t, c.front)
	page.publishEvery(50 * time.Millisecond)
	page.receive(10)

	on := page.instance()
	c.redis.Freeze()
	page.await(`$("#events").textContent.includes("trying again. 503")`)
	page.await(`Number($("#waiting").dataset.waiting) > 100`) // five seconds' worth
	e2etest.Screenshot(page.ctx, t, "cluster-frozen")
	c.redis.Thaw()
	page.receive(20)

	c.redis.Kill()
	page.await(`Number($("#waiting").dataset.waiting) > 5`)
	c.redis.Restart()
	page.receive(20)
	page.stopPublishing()
	page.nothingIsMissing()
	c.logHas(t, page.number("#published"))
	if page.instance() != on || page.number("#reconnects") != 0 {
		t.Error("the page has not kept its connection")
	}
}

func TestTwoPagesShowEachOthersMessages(t *testing.T) {
	c := start(t)
	browser := e2etest.Chromium(t)
	one := open(browser, t, c.front)
	two := open(e2etest.NewTab(browser, t), t, c.front)

	for range 3 {
		one.run(chromedp.Click("#once"))
	}
	two.await(`$("#others").textContent === "and 3 of other pages"`)
	two.nothingIsMissing()
	one.await(`$("#received").textContent === "3"`) // from another instance, which may be a moment behind
	if one.number("#received") != 3 || two.number("#received") != 0 {
		t.Error("a page counts another's messages as its own")
	}
}

// cluster is the example as its README has it, but for the ports.
type cluster struct {
	redis     *e2etest.Redis
	instances map[string]*e2etest.Server
	front     *e2etest.Server
}

func start(t *testing.T) cluster {
	t.Helper()
	c := cluster{redis: e2etest.RedisServer(t, "--appendonly", "yes"), instances: map[string]*e2etest.Server{}}
	front := read(t, "front.caddyfile", ":8080")
	for name, address := range map[string]string{"one": "127.0.0.1:8081", "two": "127.0.0.1:8082"} {
		instance := e2etest.Start(t, read(t, "instance.caddyfile", "{$PORT:8081}"),
			e2etest.Env("INSTANCE="+name, "PORT={{port}}", "REDIS_URL="+c.redis.URL()))
		c.instances[name] = instance
		if !strings.Contains(front, address) {
			t.Fatalf("the front does not know %s", address)
		}
		front = strings.ReplaceAll(front, address, instance.Expand("127.0.0.1:{{port}}"))
	}
	c.front = e2etest.Start(t, strings.ReplaceAll(front, ":8080", ":{{port}}"), e2etest.WorkDir(e2etest.RepoRoot(t)))
	return c
}

// read returns a file of the example, which must contain this.
func read(t *testing.T, name, must string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "examples", "cluster", name))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content, []byte(must)) {
		t.Fatalf("%s does not contain %q", name, must)
	}
	return string(content)
}

func other(instance string) string {
	if instance == "one" {
		return "two"
	}
	return "one"
}

// logHas asks Redis: what was acknowledged, and tried again, is there once.
func (c cluster) logHas(t *testing.T, messages int) {
	t.Helper()
	got, err := c.redis.Do(patience, "XLEN", "{sse:default}:log")
	if err != nil {
		t.Fatal(err)
	}
	if got != strconv.Itoa(messages) {
		t.Errorf("the log has %s messages, want %d", got, messages)
	}
}

// page is the example in a tab of a browser.
type page struct {
	t   *testing.T
	ctx context.Context
}

// open loads the page and waits until it is subscribed.
func open(tab context.Context, t *testing.T, front *e2etest.Server) page {
	t.Helper()
	p := page{t, tab}
	p.run(chromedp.Navigate(front.URL("/")))
	p.live()
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

// await polls from here: the page's own policy forbids the evaluation that
// chromedp.Poll needs.
func (p page) await(condition string, args ...any) {
	p.t.Helper()
	condition = fmt.Sprintf(condition, args...)
	for deadline := time.Now().Add(patience); !get[bool](p, `Boolean(`+condition+`)`); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("never happened: %s\nthe page says:\n%s", condition, get[string](p, `document.body.innerText`))
		}
	}
}

func (p page) live() {
	p.t.Helper()
	p.await(`$("#state")?.dataset.state === "live"`)
}

func (p page) instance() string {
	p.t.Helper()
	return get[string](p, `$("#instance").textContent`)
}

func (p page) number(selector string) int {
	p.t.Helper()
	return get[int](p, fmt.Sprintf(`Number($(%q).textContent)`, selector))
}

// accepted returns how many publishes of this page an instance has accepted.
func (p page) accepted(instance string) int {
	p.t.Helper()
	return p.number("[data-instance=" + instance + "] .took")
}

func (p page) publishEvery(interval time.Duration) {
	p.t.Helper()
	p.run(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`document.querySelector("#interval").value = %d`, interval.Milliseconds())))
	p.run(chromedp.Click("#toggle"))
}

// receive waits for so many more messages of the page's own.
func (p page) receive(messages int) {
	p.t.Helper()
	p.await(`Number($("#received").textContent) >= %d`, p.number("#received")+messages)
}

// stopPublishing also waits until all that was published has come back.
func (p page) stopPublishing() {
	p.t.Helper()
	p.run(chromedp.Click("#toggle"))
	p.await(`$("#waiting").dataset.waiting === "0" && $("#received").textContent === $("#published").textContent`)
}

func (p page) nothingIsMissing() {
	p.t.Helper()
	if missing, twice := p.number("#missing"), p.number("#twice"); missing != 0 || twice != 0 {
		p.t.Errorf("%d messages are missing and %d came twice; the page says:\n%s", missing, twice, get[string](p, `document.body.innerText`))
	}
}
