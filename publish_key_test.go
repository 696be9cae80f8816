package sse_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/live"
)

// keysOf returns the keys of what the hub keeps of a topic.
func keysOf(topic string) (keys []string) {
	for _, m := range live.All()[0].Core.ListMessages(topic, 100) {
		keys = append(keys, m.Key)
	}
	return keys
}

func TestAMessageHasItsKeyHoweverItIsPublished(t *testing.T) {
	s := serveOnce(t, openRoute)
	for name, c := range map[string]struct {
		query, media, body string
		want               []string
	}{
		"query":   {"?topic=query&key=B+%C3%A9", "", "x", []string{"B é"}},
		"none":    {"?topic=none&key=", "", "x", []string{""}},
		"lines":   {"?topic=lines&key=k", ndjsonType, "1\n2\n", []string{"k", "k"}},
		"events":  {"?topic=events&key=k", eventsType, "data: 1\n\ndata: 2\n\n", []string{"k", "k"}},
		"object":  {"", jsonType, `{"topic":"object","key":"k","data":1}`, []string{"k"}},
		"array":   {"", jsonType, `[{"topic":"array","key":"k","data":1},{"topic":"array","data":2}]`, []string{"k", ""}},
		"objects": {"", ndjsonType, `{"topic":"objects","key":"k","data":1}` + "\n" + `{"topic":"objects","key":"l","data":2}`, []string{"k", "l"}},
		"form":    {"", formType, "topic=form&key=k&data=x", []string{"k"}},
		"longest": {"?topic=longest&key=" + strings.Repeat("k", 128), "", "x", []string{strings.Repeat("k", 128)}},
	} {
		if answer := post(t, s.url("/events"+c.query), c.media, c.body); answer.Status != http.StatusOK {
			t.Errorf("%s is answered %d %s", name, answer.Status, answer.Body)
		}
		if got := keysOf(name); !slices.Equal(got, c.want) {
			t.Errorf("%s: the keys are %q; want %q", name, got, c.want)
		}
	}
}

func TestAKeyThatNoMessageMayHaveIs400(t *testing.T) {
	s := serveOnce(t, openRoute)
	for _, bad := range []string{strings.Repeat("k", 129), "a\nb", "\x00", "\xff"} {
		wantRefusal(t, post(t, s.url("/events?topic=a&key="+url.QueryEscape(bad)), "", "x"), http.StatusBadRequest,
			"key must be at most 128 bytes of UTF-8 without control characters")
	}
	wantRefusal(t, post(t, s.url("/events?topic=a&key=k&key=l"), "", "x"), http.StatusBadRequest, "key stands in the URL 2 times")
	wantRefusal(t, post(t, s.url("/events?key=k"), jsonType, `{"topic":"a","data":1}`), http.StatusBadRequest,
		"key stands in the URL, but the target does not")
	wantRefusal(t, post(t, s.url("/events?topic=a&keys=k"), "", "x"), http.StatusBadRequest, "write key")
	wantRefusal(t, post(t, s.url("/events"), formType, "topic=a&data=x&key="+strings.Repeat("k", 129)), http.StatusBadRequest,
		"key must be at most 128 bytes")
}
