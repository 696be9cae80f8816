package hub_test

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// selecting returns the subscription of a client with selectors, and with grants for private messages.
func selecting(t testing.TB, selectors, granted []string) hub.Subscription {
	t.Helper()
	s := hubtest.With()
	s.Form = hub.Updates
	s.Selectors = selectorsOf(t, selectors...)
	if granted != nil {
		s.Granted = selectorsOf(t, granted...)
	}
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
	for _, selector := range []string{"*", "books/1", "books/{id}", "books{/id*}", "{a}/1", "room/*"} {
		clients[selector] = h.Join(selecting(t, []string{selector}, nil))
	}
	h.Publish(hub.Topics("books/1"), "one")
	h.Publish(hub.Topics("books/1/2"), "two")
	h.Publish(hub.Topics("books/{id}"), "three")
	h.Publish(hub.Topics("room/*"), "four")
	h.Publish(hub.Topics("room/1"), "five")
	clients["*"].Want("one", "two", "three", "four", "five")
	clients["books/1"].Want("one")
	clients["books/{id}"].Want("one", "three")
	clients["books{/id*}"].Want("one", "two")
	clients["{a}/1"].Want("one", "five")
	clients["room/*"].Want("four")
}
