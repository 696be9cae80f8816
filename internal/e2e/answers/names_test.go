package answers

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/modeltest"
)

const keyed = "bind none\n key {header.Idempotency-Key}"

func key(value string) e2etest.Option { return e2etest.Header("Idempotency-Key", value) }

func TestSameKeyAttaches(t *testing.T) {
	t.Parallel()
	site := start(t, keyed)
	first, call := begin(t, site, 3, key("k1"))
	second := ask(t, site.URL("/chat"), key("k1"))
	second.has(t, 1, 3)
	if second.id != first.id {
		t.Error("the same key got another stream")
	}
	// The same key with another body is a mistake; at another URL it is another request.
	site.refused(t, 422, "POST", site.URL("/chat"), "another", key("k1"))
	elsewhere, other := beginAt(t, site, "/other", 1, key("k1"))
	if elsewhere.id == first.id {
		t.Error("the same key at another URL got the same stream")
	}
	other.End()
	tokens(call, 4, 5)
	call.End()
	for _, reader := range []answer{first, second} {
		reader.has(t, 4, 5)
		reader.ends(t)
	}
	// What is kept is given again.
	third := ask(t, site.URL("/chat"), key("k1"))
	third.has(t, 1, 5)
	third.ends(t)
	if calls := site.model.Calls(); calls != 2 {
		t.Errorf("the model was asked %d times, want twice", calls)
	}
}

func TestSameKeyAtOnceAsksOnce(t *testing.T) {
	t.Parallel()
	site := start(t, keyed)
	site.model.Silent()
	var readers sync.WaitGroup
	bodies := make(chan string, 20)
	for range cap(bodies) {
		readers.Go(func() {
			got, err := e2etest.Do(t.Context(), "POST", site.URL("/chat"), "{}", key("k"))
			if err != nil {
				t.Error(err)
			}
			bodies <- got.Body
		})
	}
	call := site.model.Asked(t)
	tokens(call, 1, 10)
	call.End()
	readers.Wait()
	close(bodies)
	first := <-bodies
	for body := range bodies {
		if body != first || !strings.Contains(body, modeltest.Token(9)) {
			t.Errorf("one got %q, another %q", first, body)
		}
	}
	if calls := site.model.Calls(); calls != 1 {
		t.Errorf("the model was asked %d times", calls)
	}
}

// Who waits for an answer that turns out to be no stream asks the model himself.
func TestSameKeyOfWhatIsNoStreamAsksForItself(t *testing.T) {
	t.Parallel()
	site := start(t, keyed)
	n := 0
	var mu sync.Mutex // guards n
	site.model.On("/chat", func(c *modeltest.Call) {
		mu.Lock()
		defer mu.Unlock()
		n++
		c.Header().Set("Content-Type", "application/json")
		c.Begin(http.StatusTooManyRequests)
		c.Say(fmt.Sprintf(`{"try":%d}`, n))
	})
	for try := 1; try <= 2; try++ {
		got := e2etest.Send(t, "POST", site.URL("/chat"), "{}", key("k"))
		if got.Status != 429 || got.Body != fmt.Sprintf(`{"try":%d}`, try) {
			t.Errorf("try %d is answered with %d %s", try, got.Status, got.Body)
		}
	}
}

// With a key, Go's transport may repeat a POST by itself when a kept connection turns out to be dead.
func TestModelThatClosesItsConnectionIsAskedOnce(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"a body": "{}", "no body": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			askOverDeadConnection(t, body)
		})
	}
}

func askOverDeadConnection(t *testing.T, body string) {
	model := modeltest.Start(t)
	line := e2etest.NewProxy(t, model.Addr())
	site := site{e2etest.Start(t, fmt.Sprintf(`
http://127.0.0.1:{{port}} {
	sse_resume {
		%s
	}
	reverse_proxy %s
}`, keyed, line.Addr())), model}
	model.On("/warm", modeltest.Plain(1, 0))
	warm := ask(t, site.URL("/warm")) // leaves a connection that is kept
	if err := warm.Ended(patience); err == nil {
		t.Fatal("it did not end")
	}
	model.Silent()
	var asking sync.WaitGroup
	asking.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), patience) // a second call would wait for the test
		defer cancel()
		got, err := e2etest.Do(ctx, "POST", site.URL("/chat"), body, key("k"))
		if err != nil || got.Status != 502 {
			t.Errorf("it is answered with %d, %v", got.Status, err)
		}
	})
	model.Asked(t)
	line.Break() // before the first byte
	asking.Wait()
	if calls := model.Calls(); calls != 2 {
		t.Errorf("the model was asked %d times, want once each", calls)
	}
}

func TestKeysAndNamesDoNotCountForNobody(t *testing.T) {
	t.Parallel()
	site := start(t, `
		bind {header.X-User}
		key {header.Idempotency-Key}
		name {header.X-Run-Id}
		lookup {query.runId}`)
	run := e2etest.Header("X-Run-Id", "r1")
	first, call := begin(t, site, 1, key("k"), run)
	second, other := begin(t, site, 1, key("k"), run)
	if first.id == second.id {
		t.Error("somebody unknown attached to another's answer by its key")
	}
	site.model.On("/find", func(c *modeltest.Call) { c.Begin(http.StatusNotFound) })
	if got := e2etest.Send(t, "GET", site.URL("/find?runId=r1"), ""); got.Status != http.StatusNotFound {
		t.Errorf("somebody unknown finds an answer by its name: %d", got.Status)
	}
	alice := e2etest.Header("X-User", "alice")
	hers, third := begin(t, site, 1, key("k"), run, alice)
	bobs, fourth := begin(t, site, 1, key("k"), run, e2etest.Header("X-User", "bob"))
	if hers.id == bobs.id {
		t.Error("bob attached to alice's answer by its key")
	}
	found := openAs(t, site.URL("/chat?runId=r1"), alice)
	if found.id != hers.id {
		t.Error("alice found another's answer by its name")
	}
	for _, c := range []*modeltest.Call{call, other, third, fourth} {
		c.End()
	}
}

func TestLongKeys(t *testing.T) {
	t.Parallel()
	site := start(t, keyed)
	site.model.On("/chat", modeltest.Plain(1, 0))
	for _, length := range []int{1, 254, 255, 256, 4000} {
		var ids []string
		for _, last := range []string{"a", "a", "b"} {
			reader := ask(t, site.URL("/chat"), key(strings.Repeat("k", length-1)+last))
			reader.has(t, 1, 1)
			ids = append(ids, reader.id)
		}
		if ids[0] != ids[1] || ids[0] == ids[2] {
			t.Errorf("keys of %d bytes are mixed up", length)
		}
	}
}

const named = "bind none\n name json id\n lookup /api/chat/*/stream"

func TestNewestAnswerIsFoundByName(t *testing.T) {
	t.Parallel()
	site := start(t, named)
	stream := site.URL("/api/chat/c1/stream")
	nothing := func(when string) {
		t.Helper()
		if got := e2etest.Send(t, "GET", stream, ""); got.Status != 204 {
			t.Errorf("%s, GET by name is answered with %d", when, got.Status)
		}
	}
	nothing("before the first")
	body := e2etest.Post(`{"id":"c1","messages":[]}`)
	first, call := beginAt(t, site, "/api/chat", 3, body)
	found := openAs(t, stream)
	if found.id != first.id {
		t.Error("another stream was found")
	}
	found.has(t, 1, 3)

	// A new one of that name takes it over; the old one goes on.
	second, call2 := beginAt(t, site, "/api/chat", 1, body)
	newest := openAs(t, stream)
	if newest.id != second.id {
		t.Error("the name does not mean the newest answer")
	}
	newest.has(t, 1, 1)
	tokens(call, 4, 4)
	call.End()
	for _, reader := range []answer{first, found} {
		reader.has(t, 4, 4)
		reader.ends(t)
	}
	still := openAs(t, stream)
	still.has(t, 1, 1)
	tokens(call2, 2, 2)
	call2.End()
	for _, reader := range []answer{second, newest, still} {
		reader.has(t, 2, 2)
		reader.ends(t)
	}
	nothing("after the end")
	site.model.NotAsked(t)
}

func TestGetByNameWaitsForTheFirstByte(t *testing.T) {
	t.Parallel()
	site := startWith(t, modeltest.Start(t), "metrics", named)
	site.model.Silent()
	bodies := make(chan string, 2)
	go func() {
		got, _ := e2etest.Do(t.Context(), "POST", site.URL("/api/chat"), `{"id":"c1"}`)
		bodies <- got.Body
	}()
	call := site.model.Asked(t)
	go func() {
		got, _ := e2etest.Do(t.Context(), "GET", site.URL("/api/chat/c1/stream"), "")
		bodies <- got.Body
	}()
	e2etest.Await(t, "both wait", func() bool {
		return site.metric(t, "caddy_http_requests_in_flight", `handler="subroute"`) == 2
	})
	tokens(call, 1, 2)
	call.End()
	if a, b := <-bodies, <-bodies; a != b || !strings.Contains(a, modeltest.Token(1)) {
		t.Errorf("one got %q, the other %q", a, b)
	}
}

// A name that can't be read names nothing; the model is asked all the same.
func TestNamesInHostileBodies(t *testing.T) {
	t.Parallel()
	site := start(t, named)
	site.model.On("/api/chat", modeltest.Plain(1, 0))
	for what, body := range map[string]string{
		"missing":  `{"messages":[]}`,
		"nested":   `{"x":{"id":"n1"}}`,
		"no text":  `{"id":{"id":"n1"}}`,
		"empty":    `{"id":""}`,
		"long":     `{"id":"` + strings.Repeat("n", 5000) + `"}`,
		"repeated": `{"id":"n1","id":"n2"}`,
		"no JSON":  `id=n1`,
		"cut":      `{"id":"n1"`,
		"deep":     strings.Repeat(`[`, 200_000),
		"nothing":  ``,
	} {
		got := e2etest.Send(t, "POST", site.URL("/api/chat"), body)
		if got.Status != 200 || !strings.Contains(got.Body, "[DONE]") {
			t.Errorf("%s: answered with %d %s", what, got.Status, got.Body)
		}
	}
}
