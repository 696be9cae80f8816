package redisanswers

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// documentedUser is what docs/brokers.md gives to the ACL user of the hub "default".
func documentedUser(t *testing.T) (rules []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/brokers.md")
	if err != nil {
		t.Fatal(err)
	}
	rule := regexp.MustCompile("(?s)ACL SETUSER caddy on >secret (.*?)```").FindSubmatch(page)
	if rule == nil {
		t.Fatal("the page has no rule for an ACL user")
	}
	return strings.Fields(string(rule[1]))
}

func TestTheUserOfTheDocsMayDoAllThatIsNeeded(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), Protocol: 2})
	t.Cleanup(func() { _ = client.Close() })
	command := []any{"ACL", "SETUSER", "caddy", "on", ">secret"}
	for _, rule := range documentedUser(t) {
		command = append(command, rule)
	}
	if err := client.Do(t.Context(), command...).Err(); err != nil {
		t.Fatal(err)
	}
	owner, other := newInstance(t, server, asUser("caddy", "secret")), newInstance(t, server, asUser("caddy", "secret"))

	// One asks by key and name, and another instance attaches and reads.
	a := owner.ask(request("k"), ignore)
	attached, mine, err := other.Open(t.Context(), request("k"), ignore)
	if mine || err != nil {
		t.Fatalf("the key is free: %v", err)
	}
	defer attached.Leave()
	begin(t, a)
	say(t, a, "data: 1\n\n")
	<-attached.Decided()
	got, _ := read(t, attached, 0, event(1))
	want(t, got, event(1))
	if read, err := owner.shared.IsRead(t.Context(), a.ID); !read || err != nil {
		t.Errorf("nobody reads it: %v", err)
	}
	// It is stopped by its name, by the message and by the note.
	named, err := other.Named(t.Context(), request(""))
	if err != nil || named == nil {
		t.Fatalf("the name is not found: %v", err)
	}
	defer named.Leave()
	named.Stop()
	_, end := read(t, named, 1, "")
	if state, _ := named.State(); state != answers.Stopped {
		t.Errorf("it is %s, and ends with %d", state, end)
	}
	// What is no stream is forgotten.
	passed := owner.ask(request("another"), ignore)
	passed.Pass()
	for deadline := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
		known, err := other.shared.Load(context.Background(), passed.ID)
		if known == nil && err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is known still: %v, %v", known, err)
		}
	}
	log, err := client.Do(t.Context(), "ACL", "LOG").Slice()
	if err != nil || len(log) > 0 {
		t.Errorf("Redis refused %v, %v", log, err)
	}
}
