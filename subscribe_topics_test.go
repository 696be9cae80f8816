package sse_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestClientGetsTheTopicsItAskedForAndNoOthers(t *testing.T) {
	s := serve(t, openRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := e2etest.Subscribe(t, p.url("/events?topic=a&topic=b/c"), p.via)
		for _, topic := range []string{"a", "c", "b", "b/c", "A", "a/", "b/c/d", "b/c"} {
			publish(t, p.url("/events?topic="+topic), topic)
		}
		for _, topic := range []string{"a", "b/c", "b/c"} {
			stream.Expect(t, topic)
		}
	})
}

func TestTopicsAreUTF8OfUpTo256Bytes(t *testing.T) {
	s := serve(t, openRoute)
	for _, topic := range []string{
		strings.Repeat("x", 256),
		strings.Repeat("ü", 128),
		"with spaces, commas; and * inside words*",
		"/", "//a", "…/☃",
	} {
		query := "/events?topic=" + url.QueryEscape(topic)
		stream := e2etest.Subscribe(t, s.url(query))
		stream.Connected(t)
		publish(t, s.url(query), topic)
		stream.Expect(t, topic)
	}
}

func TestPatternsMatchWholeSegments(t *testing.T) {
	s := serve(t, openRoute)
	for pattern, matches := range map[string]string{ // those that match stand before the bar
		"*":       "a é a* | a/b a/",
		"a/*":     "a/b a/c a/ | a b/a a/b/c aa/b",
		"*/b":     "a/b /b | b a/b/c",
		"a/*/c":   "a/b/c a//c | a/c a/b/b/c",
		"**":      "a a/b a/b/c / | ",
		"a/**":    "a/b a/b/c a/ | a b/a aa/b",
		"*/*/**":  "a/b/c a/b/c/d | a/b a",
		"a*/b":    "a*/b | aa/b",
		"a/b**":   "a/b** | a/bc a/b/c",
		"room/**": "room/1 room/1/2 | room rooms/1",
	} {
		stream := e2etest.Subscribe(t, s.url("/events?topic="+url.QueryEscape(pattern)))
		stream.Connected(t)
		match, others, _ := strings.Cut(matches, "|")
		for want, topics := range map[int]string{1: match, 0: others} {
			for topic := range strings.FieldsSeq(topics) {
				if n := receivers(t, s.url("/events?topic="+url.QueryEscape(topic))); n != want {
					t.Errorf("pattern %q: a message to %q had %d receivers, want %d", pattern, topic, n, want)
				}
			}
		}
		stream.Close()
		eventually(t, patience, "the client is gone", func() bool { return receivers(t, s.url("/events?broadcast")) == 0 })
	}
}

func TestMessageArrivesOnceHoweverManyTopicsMatch(t *testing.T) {
	s := serve(t, openRoute)
	stream := e2etest.Subscribe(t, s.url("/events?topic=a&topic=a&topic=b&topic=*&topic=**"))
	stream.Connected(t)
	if n := publish(t, s.url("/events?topic=a&topic=b&topic=a"), "once").Receivers; n != 4.0 {
		t.Errorf("one client that is reached through 4 addresses counts as %v receivers", n)
	}
	publish(t, s.url("/events?broadcast"), "next")
	first := stream.Expect(t, "once")
	stream.Expect(t, "next")

	// nor twice when it is replayed
	again := e2etest.Subscribe(t, s.url("/events?topic=a&topic=b&topic=**"), e2etest.LastEventID(strings.Split(first.ID, "-")[0]+"-0"))
	again.Expect(t, "once")
	again.Expect(t, "next")
}

func TestClientWithoutTopicsGetsWhatIsAddressedToIt(t *testing.T) {
	s := serve(t, withUsers(`
		sse /events {
			publish {
				open
			}
		}`), withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := e2etest.Subscribe(t, p.url("/events?client_id=x"), p.via, As("alice"))
		stream.Connected(t)
		publish(t, p.url("/events?topic=a"), "not this", As("bob"))
		publish(t, p.url("/events?client_id=y"), "nor this", As("bob"))
		publish(t, p.url("/events?user=bob"), "nor this", As("bob"))
		publish(t, p.url("/events?client_id=x"), "by client_id", As("bob"))
		publish(t, p.url("/events?user=alice"), "by user", As("bob"))
		publish(t, p.url("/events?broadcast"), "to all", As("bob"))
		for _, data := range []string{"by client_id", "by user", "to all"} {
			stream.Expect(t, data)
		}
	})
}

func TestRouteTopicsAreWhatItsClientsReceive(t *testing.T) {
	s := serve(t, openRoute+`
		sse /fixed {
			topics news status/*
		}
		sse /more {
			topics news {query.topic}
		}
		sse /room {
			topics news room/{query.room} {query.kind}/{query.room}
		}`)
	for path, want := range map[string]string{
		"/fixed":                             "news status/a",
		"/fixed?topic=sports":                "news status/a",
		"/fixed?topic=%FF":                   "news status/a",
		"/more":                              "news",
		"/more?topic=sports":                 "news sports",
		"/more?topic=s*&topic=*":             "news sports room",
		"/room?room=1":                       "news room/1",
		"/room":                              "news",
		"/room?room=":                        "news",
		"/room?room=1&topic=sports":          "news room/1",
		"/room?room=2&kind=desk":             "news room/2 desk/2",
		"/room?kind=desk":                    "news",
		"/room?room=%7Bquery.kind%7D&kind=x": "news room/{query.kind} x/{query.kind}",
	} {
		stream := e2etest.Subscribe(t, s.url(path))
		stream.Connected(t)
		got := []string{}
		for _, topic := range []string{
			"news", "status/a", "status/a/b", "sports", "room/1", "room/2", "desk/2", "room", "room/", "room/1/x",
			"room/{query.kind}", "room/x", "x/{query.kind}", "x/x",
		} {
			if receivers(t, s.url("/events?topic="+url.QueryEscape(topic))) > 0 {
				got = append(got, topic)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s gets %q, want %q", path, got, want)
		}
		stream.Close()
		eventually(t, patience, "the client is gone", func() bool { return receivers(t, s.url("/events?broadcast")) == 0 })
	}
}

// Otherwise room/{query.room} would open every room to who asks for room "*".
func TestPlaceholdersOtherThanQueryTopicRefuseWildcards(t *testing.T) {
	s := serve(t, `
		sse /room {
			topics room/{query.room}
			publish {
				open
			}
		}
		sse /header {
			topics {header.X-Topic}
		}
		sse /prefixed {
			topics team/{query.topic}
		}
		sse /any {
			topics {query.topic}
		}`)
	for _, room := range []string{"*", "**", "a/*", "a*", "*/b"} {
		escaped := url.QueryEscape(room)
		wantRefusal(t, get(t, s.url("/room?room="+escaped)), http.StatusBadRequest, "*")
		wantRefusal(t, post(t, s.url("/room?room="+escaped), "", "x"), http.StatusBadRequest, "*")
		wantRefusal(t, get(t, s.url("/header"), e2etest.Header("X-Topic", room)), http.StatusBadRequest, "*")
		wantRefusal(t, get(t, s.url("/prefixed?topic="+escaped)), http.StatusBadRequest, "*")
		e2etest.Subscribe(t, s.url("/any?topic="+escaped)).Connected(t)
	}
	wantRefusal(t, get(t, s.url("/room?room=a%0Ab")), http.StatusBadRequest, "control")
	wantRefusal(t, get(t, s.url("/room?room="+strings.Repeat("a", 252))), http.StatusBadRequest, "256")
}

func TestTooManyTopicsAre400(t *testing.T) {
	s := serve(t, `
		sse /default
		sse /three {
			topics news {query.topic}
			max_topics 3
		}`)
	many := func(n int) string {
		var query strings.Builder
		for i := range n {
			fmt.Fprintf(&query, "topic=t%d&", i)
		}
		return query.String()
	}
	e2etest.Subscribe(t, s.url("/default?"+many(100)+"topic=t1")).Connected(t) // twice the same is one
	wantRefusal(t, get(t, s.url("/default?"+many(101))), http.StatusBadRequest, "101", "100")
	e2etest.Subscribe(t, s.url("/three?topic=a&topic=b/*&topic=news")).Connected(t)
	wantRefusal(t, get(t, s.url("/three?topic=a&topic=b/*&topic=c")), http.StatusBadRequest, "4", "3")
}
