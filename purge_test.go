package sse_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// purge makes a DELETE.
func purge(t testing.TB, url string, options ...e2etest.Option) e2etest.Answer {
	t.Helper()
	return e2etest.Send(t, http.MethodDelete, url, "", options...)
}

// wantPurged makes a DELETE that must succeed.
func wantPurged(t testing.TB, url string, options ...e2etest.Option) {
	t.Helper()
	if answer := purge(t, url, options...); answer.Status != http.StatusNoContent || answer.Body != "" {
		t.Fatalf("DELETE %s is answered %d %s", url, answer.Status, answer.Body)
	}
}

func TestDeletePurgesWhatIsKept(t *testing.T) {
	s := serveOnce(t, openRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for _, target := range []string{"topic=a", "client_id=me", "topic=b&topic=c"} {
			here := p.url("/events?topic=a&topic=b&topic=c&client_id=me")
			live := e2etest.Subscribe(t, here, p.via)
			before := live.Connected(t).ID
			publish(t, p.url("/events?"+target), "secret", p.via)
			publish(t, p.url("/events?"+target+"&key=k"), "one value", p.via)
			live.Expect(t, "secret")
			live.Expect(t, "one value")

			wantPurged(t, p.url("/events?"+target+"&key=k"), p.via)
			back := e2etest.Subscribe(t, here, p.via, e2etest.LastEventID(before))
			if told := back.Connected(t); told.Resume != "gap" {
				t.Errorf("%s: after the purge of a key a client is told %q", target, told.Resume)
			}
			back.Expect(t, "secret")
			wantPurged(t, p.url("/events?"+target), p.via)
			publish(t, p.url("/events?"+target), "end", p.via)
			back = e2etest.Subscribe(t, here, p.via, e2etest.LastEventID(before))
			if told := back.Connected(t); told.Resume != "gap" {
				t.Errorf("%s: after the purge a client is told %q", target, told.Resume)
			}
			back.Expect(t, "end")
			live.Expect(t, "end") // and no gap: it has had all
			wantPurged(t, p.url("/events?"+target), p.via)
			wantPurged(t, p.url("/events?"+target), p.via) // of which nothing is kept any more
		}
	})
}

func TestDeleteSaysWhatIsWrongWithIt(t *testing.T) {
	s := serveOnce(t, openRoute+`
		sse /news {
			topics news status
			publish {
				token secret
			}
		}
		sse /silent`)
	var manyTopics string
	for i := range 101 {
		manyTopics += fmt.Sprintf("topic=%d&", i)
	}
	for query, words := range map[string]string{
		"":                     "name what to purge",
		"key=x":                "name what to purge",
		"broadcast=false":      "name what to purge",
		"broadcast":            "everybody can't be purged",
		"topic=a&client_id=me": "",
		"user=a&client_id=me":  "",
		"topic=a/*":            "a/*",
		"topic=**":             "**",
		"topic=":               "topic",
		"client_id=a%20b":      "client_id",
		"topics=a":             "write topic",
		"topic%5B%5D=a":        "write topic",
		"channel=a":            "write topic",
		"topic=a&keys=x":       "write key",
		"topic=a&event=x":      "event",
		"topic=a&retry=1000":   "retry",
		"topic=a&ephemeral":    "ephemeral",
		"topic=a&key=":         "key in the URL is empty",
		"topic=a&key=x&key=y":  "2 times",
		"user=a&user=b":        "2 times",
		"topic=a&key=%00":      "key",
		manyTopics:             "100",
	} {
		t.Run(query, func(t *testing.T) {
			wantRefusal(t, purge(t, s.url("/events?"+query)), http.StatusBadRequest, words)
		})
	}
	wantRefusal(t, purge(t, s.url("/silent?topic=a")), http.StatusForbidden, "publish block")
	wantRefusal(t, purge(t, s.url("/news?topic=news")), http.StatusUnauthorized, "token")
	wantRefusal(t, purge(t, s.url("/news?topic=other"), bearer("secret")), http.StatusForbidden, "other")
	wantRefusal(t, purge(t, s.url("/news?client_id=me"), bearer("secret")), http.StatusForbidden, "targets client")
	wantRefusal(t, purge(t, s.url("/news"), bearer("secret")), http.StatusBadRequest, "name what to purge")
	wantPurged(t, s.url("/news?topic=news&topic=status"), bearer("secret"))
}

func TestPurgesNeedTheGrantsAndOriginsOfPublishing(t *testing.T) {
	setSecrets(t)
	s := serveOnce(t, cookieRoute)
	token := granting("alice", list("**"), list("a"))
	wantPurged(t, s.url("/events?topic=a"), bearer(token))
	wantRefusal(t, purge(t, s.url("/events?topic=b"), bearer(token)), http.StatusForbidden, "does not grant")
	wantRefusal(t, purge(t, s.url("/events?topic=a&topic=b"), bearer(token)), http.StatusForbidden, "does not grant")
	wantRefusal(t, purge(t, s.url("/events?user=alice"), bearer(token)), http.StatusForbidden, "does not grant")
	answer := purge(t, s.url("/events?topic=a"), cookie(token), origin("https://listed.example"))
	if answer.Status != http.StatusNoContent ||
		answer.Header.Get("Access-Control-Allow-Origin") != "https://listed.example" {
		t.Errorf("a page of a listed origin is answered %d %s", answer.Status, answer.Header)
	}
	for _, foreign := range []string{"https://evil.example", ""} {
		wantRefusal(t, purge(t, s.url("/events?topic=a"), cookie(token), origin(foreign)), http.StatusForbidden, "Origin")
	}
}

func TestPurgesCountToTheRateOfTheirPublisher(t *testing.T) {
	s := serveOnce(t, `
		sse /events {
			publish {
				open
				rate 0.001 2
			}
		}`)
	wantPurged(t, s.url("/events?topic=a"))
	publish(t, s.url("/events?topic=a"), "x")
	answer := purge(t, s.url("/events?topic=a"))
	wantRefusal(t, answer, http.StatusTooManyRequests)
	if answer.Header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
}
