package sse_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// listener is a client that gets whatever is published on a site: on any topic, to client_id "x", to
// user "u", to all.
type listener struct {
	*e2etest.Stream
	site *site
}

// listenedRoute is openRoute, with a second route where listen connects.
const listenedRoute = openRoute + `
	sse /listen {
		user u
		client_id x
		queue 10000 64MiB
	}`

func (s *site) listen(t testing.TB) *listener {
	t.Helper()
	l := &listener{e2etest.Subscribe(t, s.url("/listen?topic=**")), s}
	l.Connected(t)
	return l
}

// leave ends the stream and waits until the hub no longer counts it.
func (l *listener) leave(t testing.TB) {
	t.Helper()
	l.Close()
	eventually(t, patience, "the listener has left", func() bool {
		return receivers(t, l.site.url("/events?client_id=x&ephemeral")) == 0
	})
}

// next returns the next message.
func (l *listener) next(t testing.TB) eventstream.Event {
	t.Helper()
	event, err := l.Next(patience)
	if err != nil {
		t.Fatalf("waiting for a message: %v", err)
	}
	return event
}

// skip takes all that was published so far.
func (l *listener) skip(t testing.TB) {
	t.Helper()
	publish(t, l.site.url("/events?topic=marker"), "marker")
	for string(l.next(t).Data) != "marker" {
	}
}

// wantNothing fails the test if anything was published that has not been looked at.
func (l *listener) wantNothing(t testing.TB) {
	t.Helper()
	publish(t, l.site.url("/events?topic=marker"), "marker")
	if event := l.next(t); string(event.Data) != "marker" {
		t.Errorf("%q was published", event.Data)
		l.wantNothing(t)
	}
}

func TestMessageForTooManyTopicsIsRefused(t *testing.T) {
	topics := make([]string, 101)
	for i := range topics {
		topics[i] = fmt.Sprint("t", i)
	}
	s := serve(t, "sse /events {\ntopics "+strings.Join(topics, " ")+"\npublish {\nopen\n}\n}")
	wantRefusal(t, post(t, s.url("/events"), "", "x"), http.StatusBadRequest, "101 topics")
	publish(t, s.url("/events?topic=t100"), "x")
}

func TestURLThatNamesTheTargetMakesTheBodyData(t *testing.T) {
	s := serve(t, listenedRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := s.listen(t)
		for _, media := range []string{
			"", "application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x", "text/plain", "no such/type;",
			"application/octet-stream",
		} {
			for _, body := range []string{
				"", "hello", " a=b&topic=c ", `{"topic": "other", "data": 1 }`, `[{"broadcast":true}]`, "{", "a\nb\n", "\x00 ☃",
			} {
				answer := post(t, p.url("/events?topic=news"), media, body, p.via)
				if answer.Status != http.StatusOK {
					t.Fatalf("%q as %q is answered %d %s", body, media, answer.Status, answer.Body)
				}
				var r receipt
				answer.Decode(t, &r)
				event := stream.Expect(t, body)
				if event.Name != "" || event.HasRetry || event.ID != *r.ID || r.Receivers != 1.0 {
					t.Errorf("%q as %q became %+v, answered %+v", body, media, event, r)
				}
			}
		}
		stream.leave(t) // or it may still be a receiver of the next protocol's messages
	})
}

func TestEventRetryAndEphemeralComeFromTheQuery(t *testing.T) {
	s := serve(t, listenedRoute)
	stream := s.listen(t)
	for query, want := range map[string]eventstream.Event{
		"event=update":                {Name: "update"},
		"event=":                      {},
		"event=a+b:%C3%A9":            {Name: "a b:é"},
		"event=message":               {Name: "message"},
		"event=Connected":             {Name: "Connected"},
		"retry=100":                   {HasRetry: true, Retry: 100},
		"retry=60000":                 {HasRetry: true, Retry: 60000},
		"event=e&retry=500&ephemeral": {Name: "e", HasRetry: true, Retry: 500},
	} {
		publish(t, s.url("/events?topic=news&"+query), "x")
		event := stream.Expect(t, "x")
		if event.Name != want.Name || event.HasRetry != want.HasRetry || event.Retry != want.Retry {
			t.Errorf("%s: got %+v", query, event)
		}
		if (event.ID == "") != strings.Contains(query, "ephemeral") {
			t.Errorf("%s: the ID is %q", query, event.ID)
		}
	}
	for _, query := range []string{
		"event=connected", "event=gap", "event=expired", "event=closed", // they are the hub's own
		"event=a%0Ab", "event=a%0Db", "event=a%00b", "event=%FF", "event=" + strings.Repeat("a", 257),
		"retry=-1", "retry=1.5", "retry=", "retry=1s", "retry=99", "retry=60001", "retry=99999999999999999999", "retry=1%0A",
		"ephemeral=yes", "ephemeral=TRUE",
	} {
		name, _, _ := strings.Cut(query, "=")
		wantRefusal(t, post(t, s.url("/events?topic=news&"+query), "", "x"), http.StatusBadRequest, name)
	}
	stream.wantNothing(t)
}

func TestEveryTargetIsReachedFromURLAndBody(t *testing.T) {
	s := serve(t, listenedRoute)
	client := func(path string) *e2etest.Stream {
		stream := e2etest.Subscribe(t, s.url(path))
		stream.Connected(t)
		return stream
	}
	mine, others := client("/listen?topic=a&topic=b"), client("/events?topic=c&client_id=y")
	for _, target := range []struct {
		query, json string
		mine, other bool
	}{
		{"topic=a", `"topic":"a"`, true, false},
		{"topic=a&topic=b", `"topic":["a","b"]`, true, false},
		{"topic=a&topic=a", `"topic":["a","a"]`, true, false},
		{"topic=a&topic=c", `"topic":["a","c"]`, true, true},
		{"topic=none", `"topic":"none"`, false, false},
		{"client_id=x", `"client_id":"x"`, true, false},
		{"client_id=y", `"client_id":"y"`, false, true},
		{"user=u", `"user":"u"`, true, false},
		{"user=y", `"user":"y"`, false, false},
		{"broadcast", `"broadcast":true`, true, true},
		{"broadcast=", `"broadcast": true`, true, true},
		{"broadcast=1", `"broadcast":true,"ephemeral":false`, true, true},
		{"broadcast=false&topic=a", `"broadcast":false,"topic":"a"`, true, false},
	} {
		want := 0
		for _, reached := range []bool{target.mine, target.other} {
			if reached {
				want++
			}
		}
		if target.query == "topic=a&topic=b" {
			want++ // one client is reached through both
		}
		inURL := publish(t, s.url("/events?"+target.query), "A "+target.query)
		inJSON := post(t, s.url("/events"), "application/json", `{`+target.json+`,"data":"B `+target.query+`"}`)
		inForm := post(t, s.url("/events"), "application/x-www-form-urlencoded", strings.ReplaceAll(target.query, "broadcast&", "")+
			map[bool]string{true: "=1"}[target.query == "broadcast"]+
			map[bool]string{true: "1"}[target.query == "broadcast="]+"&data=C+"+url.QueryEscape(target.query))
		if inURL.Receivers != float64(want) {
			t.Errorf("%s had %v receivers, want %d", target.query, inURL.Receivers, want)
		}
		for form, answer := range map[string]e2etest.Answer{"JSON": inJSON, "form": inForm} {
			var r receipt
			answer.Decode(t, &r)
			if answer.Status != http.StatusOK || r.Receivers != float64(want) {
				t.Errorf("%s as %s is answered %d %s", target.query, form, answer.Status, answer.Body)
			}
		}
		for _, form := range []string{"A", "B", "C"} {
			if target.mine {
				mine.Expect(t, form+" "+target.query)
			}
			if target.other {
				others.Expect(t, form+" "+target.query)
			}
		}
	}
}

func TestInvalidTargetsAre400(t *testing.T) {
	s := serve(t, listenedRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := s.listen(t)
		for target, word := range map[string]string{
			"topic=":                            "empty",
			"topic=a&topic=":                    "empty",
			"topic=*":                           "pattern",
			"topic=a/**":                        "pattern",
			"topic=a/*/b":                       "pattern",
			"topic=a%0Ab":                       "control",
			"topic=a%7Fb":                       "control",
			"topic=%FF":                         "UTF-8",
			"topic=" + strings.Repeat("a", 257): "256",
			"client_id=":                        "client_id",
			"client_id=a/b":                     "client_id",
			"user=":                             "user",
			"user=a%0Ab":                        "user",
			"broadcast=maybe":                   "broadcast",
			"broadcast=false":                   "target",
			"topic=a&client_id=x":               "one of",
			"topic=a&user=u":                    "one of",
			"topic=a&broadcast":                 "one of",
			"client_id=x&user=u":                "one of",
			"user=u&broadcast=true":             "one of",
			"":                                  "target",
			"id=5":                              "target",
			"Topic=a":                           "write topic",
			"client_id=x&client_id=y":           "client_id stands in the URL 2 times",
			"client_id=x&client_id=x":           "client_id stands",
			"user=u&user=u&user=":               "user stands in the URL 3 times",
			"broadcast&broadcast=false":         "broadcast stands",
			"broadcast&broadcast":               "broadcast stands",
			"topic=a&event=a&event=a":           "event stands",
			"topic=a&retry=5&retry=5":           "retry stands",
			"topic=a&ephemeral&ephemeral=false": "ephemeral stands",
			"event=a&event=b":                   "event stands",
		} {
			wantRefusal(t, post(t, p.url("/events?"+target), "text/plain", "x", p.via), http.StatusBadRequest, word)
		}
		many := strings.Repeat("topic=%d&", 101)
		wantRefusal(t, post(t, p.url("/events?"+fmt.Sprintf(many, numbers(101)...)), "", "x", p.via), http.StatusBadRequest, "101", "100")
		publish(t, p.url("/events?"+fmt.Sprintf(many[:900], numbers(100)...)), "a hundred")
		stream.Expect(t, "a hundred")
		stream.wantNothing(t)
	})
}

func numbers(n int) []any {
	all := make([]any, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func TestReceiversAreTheConnectedClientsAddressed(t *testing.T) {
	s := serve(t, openRoute)
	if n := receivers(t, s.url("/events?topic=a")); n != 0 {
		t.Errorf("nobody is %d receivers", n)
	}
	for _, path := range []string{"?topic=a", "?topic=a&topic=b", "?topic=*", "?topic=b/**", "?client_id=x", "?client_id=x&topic=a"} {
		e2etest.Subscribe(t, s.url("/events"+path)).Connected(t)
	}
	for query, want := range map[string]int{
		"topic=a": 4, "topic=b": 2, "topic=b/c": 1, "topic=a&topic=b/c": 5, "client_id=x": 2, "broadcast": 6, "user=u": 0,
		"topic=a&ephemeral": 4,
	} {
		if n := receivers(t, s.url("/events?"+query)); n != want {
			t.Errorf("%s has %d receivers, want %d", query, n, want)
		}
	}
}

func TestAnswersHaveTheirDocumentedForm(t *testing.T) {
	s := serve(t, listenedRoute)
	first := e2etest.Publish(t, s.url("/events?topic=a"), "x")
	var r receipt
	first.Decode(t, &r)
	epoch, _, _ := strings.Cut(*r.ID, "-")
	for _, c := range []struct{ path, media, body, want string }{
		{"?topic=a", "", "x", `{"id":"E-2","receivers":0}`},
		{"", "application/json", `{"topic":"a","data":""}`, `{"id":"E-3","receivers":0}`},
		{"", "application/json", `[{"topic":"a","data":""},{"topic":"a","data":"","ephemeral":true},{"topic":"b","data":""}]`, `{"ids":["E-4",null,"E-5"],"receivers":[0,0,0]}`},
		{"", "application/json", `[]`, `{"ids":[],"receivers":[]}`},
		{"?topic=a", "application/x-ndjson", "1\n2\n", `{"published":2,"last_id":"E-7"}`},
		{"?topic=a", "text/event-stream", "data: 1\n\n", `{"published":1,"last_id":"E-8"}`},
		{"?topic=a", "text/event-stream", "", `{"published":0,"last_id":null}`},
		{"?topic=a&ephemeral", "application/x-ndjson", "1\n", `{"published":1,"last_id":null}`},
	} {
		answer := post(t, s.url("/events"+c.path), c.media, c.body)
		if want := strings.ReplaceAll(c.want, "E-", epoch+"-") + "\n"; answer.Status != http.StatusOK || answer.Body != want {
			t.Errorf("%s as %s is answered %d %s, want %s", c.body, c.media, answer.Status, answer.Body, want)
		}
	}
}

func TestWithoutAPublishBlockPostIs403AndSaysHowToEnableIt(t *testing.T) {
	s := serve(t, "sse /events", withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		wantRefusal(t, post(t, p.url("/events?topic=a"), "", "x", p.via), http.StatusForbidden, "publish", "token", "sse")
	})
}
