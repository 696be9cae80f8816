package hubtest

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
)

func TextsOf(t testing.TB, messages []*hub.Message) (texts []string) {
	t.Helper()
	for _, m := range messages {
		texts = append(texts, textOf(t, m))
	}
	return texts
}

func textOf(t testing.TB, m *hub.Message) string {
	t.Helper()
	if comment, ok := strings.CutPrefix(string(m.Frame()), ": "); ok {
		return ":" + strings.TrimSuffix(comment, "\n\n")
	}
	e := Decode(t, m)
	switch {
	case !e.HasData:
		return "retry " + strconv.FormatInt(e.Retry, 10)
	case e.Name != "":
		return e.Name + " " + string(e.Data)
	}
	return string(e.Data)
}

// Decode reads a message's frame as a client would.
func Decode(t testing.TB, m *hub.Message) eventstream.Event {
	t.Helper()
	e, err := eventstream.NewDecoder(bytes.NewReader(m.Frame()), 1<<30).Next()
	if err != nil {
		t.Fatalf("the frame %q can't be read: %v", m.Frame(), err)
	}
	return e
}

// Gap is how a told gap reads in texts.
func Gap(reason string) string { return `gap {"reason":"` + reason + `"}` }

// Numbers returns the texts of messages numbered from first to last.
func Numbers(first, last int) (texts []string) {
	for i := first; i <= last; i++ {
		texts = append(texts, strconv.Itoa(i))
	}
	return texts
}

func Want[T comparable](t testing.TB, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", Brief(got), Brief(want))
	}
}

// Brief leaves out the middle of long lists.
func Brief[T any](all []T) any {
	if len(all) <= 40 {
		return all
	}
	return []any{len(all), "items", all[:15], "...", all[len(all)-15:]}
}
