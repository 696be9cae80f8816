package aichat_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// The same page, the same backend, two instances and a Redis, as the script has it.
func TestDeathOfEitherInstanceCostsNotOneToken(t *testing.T) {
	redis := e2etest.RedisServer(t, "--appendonly", "yes")
	model := startModel(t)
	port := e2etest.Var("backend", strconv.Itoa(e2etest.FreePort(t)))
	front := read(t, "front.caddyfile", ":8080")
	var instances []*e2etest.Server
	var publishAt []string
	for _, address := range []string{"127.0.0.1:8081", "127.0.0.1:8082"} {
		if !strings.Contains(front, address) {
			t.Fatalf("the front does not know %s", address)
		}
		instance := start(t, port, e2etest.Env("BROKER=redis "+redis.URL()))
		front = strings.ReplaceAll(front, address, instance.Expand("127.0.0.1:{{port}}"))
		instances = append(instances, instance)
		publishAt = append(publishAt, instance.URL("/publish"))
	}
	server := e2etest.Start(t, strings.ReplaceAll(front, ":8080", ":{{port}}"), port)
	startBackend(t, server, model.env, "PUBLISH_URL="+strings.Join(publishAt, ","))
	page := open(t, server.URL("/"))
	page.ask("Tell me everything.")
	reply := model.asked(t)
	var want []string
	say := func(count int) {
		for range count {
			word := fmt.Sprintf("word%d ", len(want))
			want = append(want, word)
			reply.say(t, word)
		}
		page.hasTokens(len(want))
	}
	say(20)
	// The page is on one of them, and what the backend publishes goes to one of them.
	for _, dies := range instances {
		dies.Kill()
		say(20)
		dies.Restart()
		say(20)
	}
	reply.end(t)
	page.Await(`$(".assistant").dataset.state === "done"`)
	if got := page.last().Tokens; !slices.Equal(got, want) {
		t.Errorf("the page has the tokens %q", got)
	}
	page.allCameAsEvents()

	// What the backend sent again is in the log once.
	log, err := redis.Do(patience, "XLEN", "{sse:default}:log")
	if err != nil {
		t.Fatal(err)
	}
	if log != strconv.Itoa(len(want)+1) {
		t.Errorf("the log has %s messages, want %d", log, len(want)+1)
	}
}
