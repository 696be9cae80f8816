package hub_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// selecting returns the subscription of a client with selectors, which is granted nothing.
func selecting(t testing.TB, selectors ...string) hub.Subscription {
	t.Helper()
	s := hubtest.With()
	s.Form, s.Selectors = hub.Updates, selectorsOf(t, selectors...)
	return s
}

// granted returns a subscription with grants.
func granted(t testing.TB, s hub.Subscription, grants ...string) hub.Subscription {
	t.Helper()
	s.Granted = selectorsOf(t, grants...)
	return s
}

func selectorsOf(t testing.TB, names ...string) *hub.Selectors {
	t.Helper()
	s, err := hub.ParseSelectors(names...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSelectorsChooseTopics(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	clients := map[string]*hubtest.Client{}
	for _, selector := range []string{"*", "books/1", "books/{id}", "books{/id*}", "{a}/1", "room/*", "a b{"} {
		clients[selector] = h.Join(selecting(t, selector))
	}
	publish := func() {
		h.Publish(hub.Topics("books/1"), "one")
		h.Publish(hub.Topics("books/1/2"), "two")
		h.Publish(hub.Topics("books/{id}"), "three")
		h.Publish(hub.Topics("room/*"), "four")
		h.Publish(hub.Topics("room/1"), "five")
		h.Publish(hub.Topics("a b{"), "six")
		h.Publish([]hub.Address{{Kind: hub.ToBroadcast}}, "to all")
		h.Publish([]hub.Address{{Kind: hub.ToClient, Name: clients["*"].ClientID}}, "to one")
	}
	for range 2 { // what a topic matches is remembered
		publish()
		clients["*"].Want("one", "two", "three", "four", "five", "six")
		clients["books/1"].Want("one")
		clients["books/{id}"].Want("one", "three")
		clients["books{/id*}"].Want("one", "two")
		clients["{a}/1"].Want("one", "five")
		clients["room/*"].Want("four")
		clients["a b{"].Want("six")
	}
	for selector := range clients { // the same from history
		s := selecting(t, selector)
		s.Since = hub.Since{All: true}
		c := h.Join(s)
		texts := c.Texts()
		if half := len(texts) / 2; len(texts) == 0 || fmt.Sprint(texts[:half]) != fmt.Sprint(texts[half:]) {
			t.Errorf("%q gets %q of history", selector, texts)
		}
	}
}

func TestSelectorsAreChecked(t *testing.T) {
	for selector, want := range map[string]string{
		"":                        "is empty",
		strings.Repeat("a", 2049): "the limit is 2048",
		"a\xff":                   "UTF-8",
		"a\n":                     "control characters",
		strings.Repeat("{a}/", 9): "more than 8 expressions",
	} {
		if _, err := hub.ParseSelectors("ok", selector); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSelectors(%.20q) = %v; want %q", selector, err, want)
		}
	}
	s := selectorsOf(t, "b", "a", "b", "c/{x}")
	if names := s.Names(); strings.Join(names, " ") != "a b c/{x}" {
		t.Errorf("the selectors are %q", names)
	}
	many := []string{"x"}
	for i := range 50 {
		many = append(many, fmt.Sprintf("t/%d/{id}", i))
	}
	for _, s := range []*hub.Selectors{selectorsOf(t, many...), selectorsOf(t, many[:4]...)} {
		for topic, want := range map[string]bool{"x": true, "t/2/7": true, "t/2/{id}": true, "t/2/7/8": false, "y": false} {
			if got := s.Match(topic); got != want {
				t.Errorf("with %d selectors %q matches: %t", len(s.Names()), topic, got)
			}
		}
	}
	var none *hub.Selectors
	if none.Match("a") || none.Names() != nil || !selectorsOf(t, "a", "*").Match("anything at all") {
		t.Error("no selectors choose something, or * does not")
	}
}

func TestAnUpdateThatSeveralSelectorsMatchComesOnce(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	s := granted(t, selecting(t, "a/1", "a/{id}", "{x}/2", "b/2"), "a/1", "{y}/2")
	c := h.Join(s)
	h.Publish(hub.Topics("a/1", "b/2", "c/2"), "open")
	h.Publish(hub.PrivateTopics("a/1", "b/2", "c/2"), "private")
	c.Want("open", "private")
	s.Since = hub.Since{All: true}
	h.Join(s).Want("open", "private")
}

func TestPrivateUpdatesReachThoseWhoAskAndAreGranted(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	subscriptions := map[string]hub.Subscription{
		"nothing":         selecting(t, "*"),
		"no grants":       granted(t, selecting(t, "*")),
		"another grant":   granted(t, selecting(t, "books/{id}"), "users/2/{?topic}", "x"),
		"by grant":        granted(t, selecting(t, "books/{id}"), "users/1/{?topic}"),
		"by the same":     granted(t, selecting(t, "books/1"), "books/1"),
		"of all":          granted(t, selecting(t, "books/{id}"), "*"),
		"all, of all":     granted(t, selecting(t, "*"), "*"),
		"asks for others": granted(t, selecting(t, "x"), "*"),
	}
	gets := map[string]bool{"by grant": true, "by the same": true, "of all": true, "all, of all": true}
	clients := map[string]*hubtest.Client{}
	for name, s := range subscriptions {
		clients[name] = h.Join(s)
	}
	for range 100 { // so that those who ask are more than those who are granted, and not only the other way round
		h.Join(selecting(t, "books/{id}"))
	}
	to := hub.PrivateTopics("books/1", "users/1/?topic=books")
	h.Publish(to, "private")
	h.Publish(to, "private")
	h.Publish(hub.Topics("books/1"), "open")
	for name, c := range clients {
		s := subscriptions[name] // and from history
		s.Since = hub.Since{All: true}
		for _, c := range []*hubtest.Client{c, h.Join(s)} {
			switch {
			case gets[name]:
				c.Want("private", "private", "open")
			case name == "asks for others":
				c.Want()
			default:
				c.Want("open")
			}
		}
	}
}

func TestPrivateUpdatesReachNobodyElse(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	first, _ := h.Publish(hub.Topics("x"), "x")
	all := hubtest.With("**", "a", "a/*")
	all.User = "u"
	watching := h.Join(all)
	h.Publish(hub.PrivateTopics("a", "a/1"), "private")
	watching.Want()
	for name, s := range map[string]hub.Subscription{
		"since": {Since: hub.Since{All: true}}, "latest": {Since: hub.Since{Latest: true}}, "newest": {Since: hub.Since{Newest: 5}},
		"a known ID": {LastEventID: first}, "an unknown ID": {LastEventID: "what-7"},
	} {
		for _, form := range []hub.Form{hub.Events, hub.Lines, hub.Updates} {
			s.Subscriber = all.Subscriber
			s.Form = form
			s.Granted = selectorsOf(t, "*") // which counts for clients with selectors alone
			for _, text := range h.Join(s).Texts() {
				if strings.Contains(text, "private") {
					t.Errorf("%s: a client without selectors gets %q", name, text)
				}
			}
		}
	}
	if kept := h.ListMessages("a", 10); len(kept) != 0 {
		t.Errorf("an operator sees %v", kept)
	}
	for _, info := range must(h.ListTopics("", 10)) {
		if info.Topic != "x" && info.Kept != 0 {
			t.Errorf("an operator sees that something is kept of %v", info)
		}
	}
	if lost := h.Lost(hub.Topics("a")[0]); lost != (hub.Position{}) {
		t.Errorf("something public is lost: %v", lost)
	}
}

func must[T, U any](value T, _ U) T { return value }

func TestLossOfPrivateUpdatesIsNoneToOthers(t *testing.T) {
	h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 1}})
	id, _ := h.Publish(hub.Topics("x"), "x")
	h.Publish(hub.PrivateTopics("a"), "1")
	h.Publish(hub.PrivateTopics("a"), "2")
	h.Join(hubtest.Returning(hubtest.With("**", "a"), id)).WantResume(hub.ResumeComplete, id)
	urn := urnOf(t, id)
	h.Join(hubtest.Returning(selecting(t, "a"), urn)).WantResume(hub.ResumeComplete, urn)
	for _, selector := range []string{"a", "{a}", "*"} {
		c := h.Join(hubtest.Returning(granted(t, selecting(t, selector), "a"), urn))
		c.WantResume(hub.ResumeGap, urn, "2")
	}
}

func urnOf(t testing.TB, id string) string {
	t.Helper()
	parsed, ok := hub.ParseID(id)
	if !ok {
		t.Fatalf("%q is no ID", id)
	}
	return parsed.URN()
}

func TestClientsWithSelectorsLeaveNothingBehind(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	before := hub.LeftoversOf(h.Hub)
	var clients []*hubtest.Client
	for i := range 50 {
		s := selecting(t, fmt.Sprintf("a/%d", i), fmt.Sprintf("%d/{id}", i), "{x}/{y}", "caf\u00e9/{x}", "*")
		if i%2 == 0 {
			s = selecting(t, s.Selectors.Names()[1:]...)
		}
		clients = append(clients, h.Join(granted(t, s, "*", fmt.Sprintf("%d/{id}", i), "a")))
	}
	h.PublishAll("1/2", 1, 3)
	if during := hub.LeftoversOf(h.Hub); during.Indexed < 100 {
		t.Errorf("with clients there is %+v", during)
	}
	for _, c := range clients {
		_ = c.Leave()
	}
	clients[0].Texts() // when all is done
	after := hub.LeftoversOf(h.Hub)
	after.Kept = before.Kept
	if after != before {
		t.Errorf("of clients that left there is\n%+v; before they came there was\n%+v", after, before)
	}
}

func TestOpenEndedTemplatesAreBounded(t *testing.T) {
	h := hubtest.New(t, hubtest.Plenty)
	var refused error
	joined := 0
	for ; refused == nil && joined < 200; joined++ {
		var selectors []string
		for i := range 1000 {
			selectors = append(selectors, fmt.Sprintf("{+a}%d{+b}%d{+c}", joined, i))
		}
		_, refused = h.TryJoin(selecting(t, selectors...))
	}
	if refused != hub.ErrTooManyOpen || joined < 10 {
		t.Fatalf("after %d clients with 1,000 templates each: %v", joined, refused)
	}
	h.Join(selecting(t, "books/{id}", "x"))
	h.Join(hubtest.With("**"))
}
