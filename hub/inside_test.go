package hub

import (
	"slices"
	"testing"

	"github.com/caddy-sse/caddy-sse/topic"
)

// The tests of what lies inside the hub can't use hubtest, which is made of hubs.

// with returns a subscription to topics and patterns.
func with(topics ...string) (s Subscription) {
	s.ClientID, s.ClientOptions = NewEpoch(), new(ClientOptions)
	for _, name := range topics {
		if topic.IsPattern(name) {
			s.Patterns = append(s.Patterns, name)
		} else {
			s.Topics = append(s.Topics, name)
		}
	}
	return s
}

func want[T comparable](t testing.TB, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
