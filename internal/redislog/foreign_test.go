package redislog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// everyTarget returns the subscription of a client that any kind of target reaches.
func everyTarget() hub.Subscription {
	s := hubtest.With("news", "sport")
	s.ClientID, s.User = "c1", "alice"
	return s
}

func TestAnyProgramMayAddToTheStream(t *testing.T) {
	server := e2etest.RedisServer(t)
	a, b := start(t, server.URL()), start(t, server.URL())
	readers := []*reader{a.subscribe(everyTarget()), b.subscribe(everyTarget())}
	stranger := a.subscribe(hubtest.With("other"))
	client := admin(t, server.URL())
	var ids []string
	for _, fields := range []string{
		"topic news data hello",
		"data later topic news topic sport", // a client at both topics gets it once
		"client_id c1 data to-client",
		"user alice data to-user",
		"broadcast 1 data to-all",
		"broadcast true data to-all-too",
		"topic news event update retry 5000 data with-everything",
		"topic news data {\"json\":1}",
	} {
		id := do(t, client, "XADD "+defaultLog+" * "+fields).(string)
		ids = append(ids, hub.ID{Epoch: a.Position().Epoch, Position: mustParseEntryID(t, id)}.String())
	}
	client.XAdd(t.Context(), xadd("topic", "news", "data", "two\nlines")) // and an empty one
	client.XAdd(t.Context(), xadd("topic", "news", "data", ""))
	for _, r := range readers {
		r.want("hello", "later", "to-client", "to-user", "to-all", "to-all-too", "update with-everything",
			`{"json":1}`, "two\nlines", "")
		for n, e := range r.got()[:len(ids)] {
			if e.ID != ids[n] {
				t.Errorf("message %d has ID %s; Redis gave %s", n, e.ID, ids[n])
			}
		}
		if e := r.got()[6]; !e.HasRetry || e.Retry != 5000 {
			t.Errorf("retry did not come: %+v", e)
		}
	}
	stranger.want("to-all", "to-all-too")
	back := b.subscribe(hubtest.Returning(everyTarget(), ids[6]))
	if back.Resume != hub.ResumeComplete {
		t.Errorf("after a foreign entry's ID a client resumes with %q", back.Resume)
	}
	back.want(`{"json":1}`, "two\nlines", "")
}

// An instance that is cut off from the channel refuses ephemeral messages, even before it has noticed.
func TestEphemeralMessageIsRefusedWhileNotSubscribed(t *testing.T) {
	server := e2etest.RedisServer(t)
	i, client := start(t, server.URL()), admin(t, server.URL())
	r := i.subscribe(hubtest.With("a"))
	var acknowledged []string
	for n := range 200 {
		text := strconv.Itoa(n)
		if n%20 == 10 {
			if err := client.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
				t.Fatal(err)
			}
		}
		e2etest.Await(t, "message "+text+" to be acknowledged", func() bool {
			p := newPublication(text, hub.Topics("a")...)
			p.Ephemeral = true
			_, err := i.tryPublish(p)
			if err != nil && !errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("message %s: %v", text, err)
			}
			return err == nil
		})
		acknowledged = append(acknowledged, text)
	}
	r.want(acknowledged...)
}

func TestAnyProgramMayPublishOnTheChannel(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a := start(t, server.URL())
	chat := launch(t, newOptions(t, server.URL()), func(i *instance) { i.name = "chat" })
	chat.awaitReady()
	awaitSubscribed(t, client, "sse:messages", 2)
	r, onChat := a.subscribe(everyTarget()), chat.subscribe(everyTarget())
	for _, message := range []string{
		`{"topic":"news","event":"update","data":"hello"}`,
		`{"topic":["news","sport"],"data":"twice"}`,
		`{"client_id":"c1","data":"to client"}`,
		`{"user":"alice","data":"to user"}`,
		`{"broadcast":true,"data":"to all"}`,
		`{"topic":"news","data":{"any": "json"},"retry":7}`,
		`{"topic":"news","data":"of a key","key":"k"}`,
		`{"topic":"news","data":"for chat","hub":"chat"}`,
		`{"topic":"news","data":"for nobody","hub":"nobody"}`,
		`{"topic":"news","data":"last","hub":"default"}`,
		`{"topic":"news","data":"last","hub":"chat"}`,
	} {
		if n := client.Publish(t.Context(), "sse:messages", message).Val(); n != 2 {
			t.Errorf("%d hubs listen; want 2", n)
		}
	}
	r.awaitText("last")
	r.want("update hello", "twice", "to client", "to user", "to all", `{"any":"json"}`, "of a key", "last")
	onChat.want("for chat", "last")
	for _, e := range r.got() {
		if e.ID != "" {
			t.Errorf("an ephemeral message came with ID %s", e.ID)
		}
	}
	if n := a.malformed() + chat.malformed(); n != 0 {
		t.Errorf("%d of them count as malformed", n)
	}
}

// malformedEntries are the fields of entries that can't be read, each with a part of what is logged about it.
var malformedEntries = []struct{ fields, says string }{
	{"topic news", "data is missing"},
	{"data nowhere", "no target"},
	{"foo bar", `unknown field "foo"`},
	{"topic news data x Event y", `unknown field "Event"`},
	{"topic news data x data y", `"data" is there twice`},
	{"topic news client_id c1 data x", "one kind of target"},
	{"topic news broadcast 1 data x", "one kind of target"},
	{"broadcast maybe data x", "broadcast"},
	{"broadcast 0 data x", "no target"},
	{"topic room/* data x", "pattern"},
	{"topic room/** data x", "pattern"},
	{"client_id not/allowed data x", "client_id must be"},
	{"topic news retry soon data x", "retry"},
	{"topic news retry -1 data x", "retry"},
	{"topic news event gap data x", "reserved"},
	{"topic news event connected data x", "reserved"},
	{"topic news key k key l data x", `"key" is there twice`},
	{"topic news ephemeral 1 data x", `unknown field "ephemeral"`},
}

func TestMalformedEntriesAreSkippedCountedAndLogged(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL())
	r := i.subscribe(everyTarget())
	client := admin(t, server.URL())
	total := 0
	for n, test := range malformedEntries {
		do(t, client, "XADD "+defaultLog+" * "+test.fields)
		total++
		e2etest.Await(t, test.fields+" to be counted", func() bool { return i.malformed() == int64(total) })
		logged := i.logs.FilterMessageSnippet("malformed") // which comes after it is counted
		e2etest.Await(t, test.fields+" to be logged", func() bool {
			logged = i.logs.FilterMessageSnippet("malformed")
			return logged.Len() == total
		})
		if said := fmt.Sprint(logged.All()[n].ContextMap()); !strings.Contains(said, test.says) {
			t.Errorf("XADD %s: logged is %s; want %q in it", test.fields, said, test.says)
		}
	}
	for _, binary := range [][]string{
		{"topic", "news", "data", "\xff\xfe"},
		{"topic", "\xff", "data", "x"},
		{"topic", "", "data", "x"},
		{"topic", "news", "event", "a\nb", "data", "x"},
		{"topic", strings.Repeat("x", 300), "data", "x"},
		{"topic", "a\x00b", "data", "x"},
		append(manyTopics(101), "data", "x"),
	} {
		if err := client.XAdd(t.Context(), xadd(binary...)).Err(); err != nil {
			t.Fatal(err)
		}
		total++
	}
	i.publish("good", hub.Topics("news")...)
	r.want("good")
	if got := i.malformed(); got != int64(total) {
		t.Errorf("%d malformed entries count as %d", total, got)
	}
	// An instance that starts later skips them as well, and delivers the good ones between them.
	later := start(t, server.URL())
	if back := later.subscribe(hubtest.Returning(everyTarget(), r.ID)); back.Resume != hub.ResumeComplete {
		t.Errorf("from before the malformed entries a client resumes with %q", back.Resume)
	} else {
		back.want("good")
	}
}

func TestWarningsAboutMalformedMessagesAreFewAndShort(t *testing.T) {
	server := e2etest.RedisServer(t)
	i, client := start(t, server.URL()), admin(t, server.URL())
	awaitSubscribed(t, client, "sse:messages", 1)
	long := strings.Repeat("é", 2000)
	const each = 500
	for range each {
		client.XAdd(t.Context(), xadd(long, "x"))
		client.Publish(t.Context(), "sse:messages", `{"topic":"a","data":"x","`+long+`":1}`)
	}
	e2etest.Await(t, "all to be counted", func() bool { return i.malformed() == 2*each })
	// Both readers of the log may warn so often at once, and once more in so many seconds.
	lines := i.logs.FilterMessageSnippet("malformed").All()
	if n := len(lines); n < 2*malformedBurst || n > 2*malformedBurst+20 {
		t.Errorf("%d malformed messages were logged %d times", 2*each, n)
	}
	for _, line := range lines {
		said := fmt.Sprint(line.ContextMap()["error"])
		if len(said) > 2*malformedBytes || !utf8.ValidString(said) {
			t.Fatalf("a warning has %d bytes: %s", len(said), said)
		}
	}
}

// manyTopics returns n topic fields.
func manyTopics(n int) (fields []string) {
	for i := range n {
		fields = append(fields, "topic", fmt.Sprint("topic-", i))
	}
	return fields
}

func TestMalformedChannelMessagesAreSkippedCountedAndLogged(t *testing.T) {
	server := e2etest.RedisServer(t)
	i := start(t, server.URL())
	client := admin(t, server.URL())
	awaitSubscribed(t, client, "sse:messages", 1)
	r := i.subscribe(everyTarget())
	bad := []string{
		``, `hello`, `null`, `[]`, `42`, `{}`, `{"topic":"news"}`, `{"data":"x"}`, `{"topic":"news","data":"x"`,
		`{"topic":"news","data":"x"} trailing`, `{"topic":"news","data":"x","typo":1}`,
		`{"topic":"news","topic":"a","data":"x"}`, `{"Topic":"news","data":"x"}`,
		`{"topic":1,"data":"x"}`, `{"topic":[],"data":"x"}`, `{"topic":["a",1],"data":"x"}`,
		`{"topic":"news","user":"alice","data":"x"}`, `{"topic":"a/*","data":"x"}`,
		`{"client_id":"a b","data":"x"}`,
		`{"topic":"news","event":"gap","data":"x"}`,
		`{"topic":"news","retry":-1,"data":"x"}`, `{"topic":"news","retry":1.5,"data":"x"}`,
		`{"topic":"news","data":"\ud800"}`, "{\"topic\":\"news\",\"data\":\"\xff\"}",
		`{"broadcast":false,"data":"x"}`, `{"broadcast":"yes","data":"x"}`,
		`{"topic":"news","user":null,"data":"x"}`,
		`{"topic":"news","data":"x","hub":7}`, `{"topic":"news","data":"x","hub":null}`,
	}
	for _, message := range bad {
		if err := client.Publish(t.Context(), "sse:messages", message).Err(); err != nil {
			t.Fatal(err)
		}
	}
	client.Publish(t.Context(), "sse:messages", `{"topic":"news","data":"good"}`)
	r.want("good")
	if got := int(i.malformed()); got != len(bad) || i.warnings("malformed") != len(bad) {
		t.Errorf("%d malformed messages count as %d and were logged %d times",
			len(bad), got, i.warnings("malformed"))
	}
}

func TestMalformedChannelMessageCountsOnlyAtItsHub(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	standard := start(t, server.URL())
	chat := launch(t, newOptions(t, server.URL()), func(i *instance) { i.name = "chat" })
	chat.awaitReady()
	awaitSubscribed(t, client, "sse:messages", 2)
	ofStandard, ofChat := standard.subscribe(everyTarget()), chat.subscribe(everyTarget())
	for _, message := range []string{
		// These name no hub.
		`{"topic":"news"}`, `{"topic":"news","data":"x","typo":1}`,
		`{"topic":"a/*","data":"x"}`, `{"hub":"","data":"x"}`,
		// The hub of these can't be read.
		`hello`, `{"hub":"chat","topic":`, `{"hub":"chat","hub":"chat"}`, `{"hub":7}`, `["chat"]`, `null`,
		// These are for the hub "chat".
		`{"hub":"chat","topic":"news"}`, `{"hub":"chat","topic":"a","data":"x","typo":1}`,
		`{"hub":"chat","topic":"a/*","data":"x"}`,
		// These are for a hub that does not exist.
		`{"hub":"nobody","topic":"news"}`, `{"hub":"nobody","typo":1}`,
	} {
		client.Publish(t.Context(), "sse:messages", message)
	}
	client.Publish(t.Context(), "sse:messages", `{"topic":"news","data":"last"}`)
	client.Publish(t.Context(), "sse:messages", `{"topic":"news","data":"last","hub":"chat"}`)
	ofStandard.want("last")
	ofChat.want("last")
	if n, logged := standard.malformed(), standard.warnings("malformed"); n != 10 || logged != 10 {
		t.Errorf("at the default hub %d count and %d are logged, want 10", n, logged)
	}
	if n, logged := chat.malformed(), chat.warnings("malformed"); n != 3 || logged != 3 {
		t.Errorf("at the other hub %d count and %d are logged, want 3", n, logged)
	}
}

func TestTailReconnectsAfterAMalformedEntry(t *testing.T) {
	server := e2etest.RedisServer(t, "--appendonly", "yes", "--appendfsync", "always")
	i := start(t, server.URL())
	r := i.subscribe(hubtest.With("a"))
	i.publish("before", hub.Topics("a")...)
	client := admin(t, server.URL())
	for range 3 {
		do(t, client, "XADD "+defaultLog+" * rubbish 1")
	}
	e2etest.Await(t, "the malformed entries to be counted", func() bool { return i.malformed() == 3 })
	server.Kill()
	e2etest.Await(t, "the instance to notice", func() bool { return !i.LogUp() })
	server.Restart()
	i.awaitUp()
	i.publish("after", hub.Topics("a")...)
	r.want("before", "after")
	if n := i.malformed(); n != 3 {
		t.Errorf("3 malformed entries count as %d", n)
	}
}

func TestEntriesOfThePastAndTheFutureAreDelivered(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	do(t, client, "XADD "+defaultLog+" 1-1 topic a data ancient")
	i := start(t, server.URL())
	r := i.subscribe(hubtest.With("a"))
	i.publish("now", hub.Topics("a")...)
	do(t, client, "XADD "+defaultLog+" 9000000000000-7 topic a data future")
	i.publish("after the future", hub.Topics("a")...)
	r.want("now", "future", "after the future")
	back := start(t, server.URL()).subscribe(hubtest.Returning(hubtest.With("a"), r.got()[0].ID))
	if back.Resume != hub.ResumeComplete {
		t.Errorf("a client resumes with %q", back.Resume)
	}
	back.want("future", "after the future")
}
