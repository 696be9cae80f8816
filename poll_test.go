package sse_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// polled is an answer in JSON.
type polled struct {
	Resume   string   `json:"resume"`
	Messages []object `json:"messages"`
	LastID   string   `json:"last_id"`
	More     bool     `json:"more"`
}

func (p polled) texts() (texts []string) {
	for _, m := range p.Messages {
		texts = append(texts, m.Data)
	}
	return texts
}

// poll asks for one answer.
func poll(t testing.TB, url string, options ...e2etest.Option) (p polled) {
	t.Helper()
	answer := e2etest.Send(t, http.MethodGet, url, "", options...)
	if kind := answer.Header.Get("Content-Type"); answer.Status != http.StatusOK || kind != "application/json" {
		t.Fatalf("%s is answered %d as %s: %s", url, answer.Status, kind, answer.Body)
	}
	answer.Decode(t, &p)
	return p
}

// rest reads an answer that has begun, to its end: by then its client has left.
func rest(t testing.TB, response *http.Response) (p polled) {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err == nil {
		err = json.Unmarshal(body, &p)
	}
	if err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	return p
}

func TestAPollHasWhatThereIsOverEachProtocol(t *testing.T) {
	s := serve(t, openRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		topic := url.QueryEscape(p.name)
		ask := p.url("/events?format=json&topic=" + topic)
		if empty := poll(t, ask, p.via); empty.Resume != "none" || empty.Messages == nil || len(empty.Messages) > 0 || empty.More {
			t.Errorf("with nothing kept the answer is %+v", empty)
		}
		for i := range 5 {
			publish(t, p.url("/events?event=e&topic="+topic), strconv.Itoa(i), p.via)
		}
		last := *publish(t, p.url("/events?topic=other"), "not for it", p.via).ID
		whole := poll(t, ask, p.via)
		if got := strings.Join(whole.texts(), " "); got != "0 1 2 3 4" || whole.LastID != last || whole.More {
			t.Errorf("the answer is %+v", whole)
		}
		if m := whole.Messages[3]; m.ID == "" || m.Topic != p.name || m.Event != "e" || m.Time.IsZero() {
			t.Errorf("a message is %+v", m)
		}
		begin := poll(t, ask+"&limit=2", p.via)
		if got := strings.Join(begin.texts(), " "); got != "0 1" || !begin.More || begin.LastID != begin.Messages[1].ID {
			t.Errorf("the first 2 are %+v", begin)
		}
		rest := poll(t, ask+"&limit=3&last_event_id="+begin.LastID, p.via)
		if got := strings.Join(rest.texts(), " "); got != "2 3 4" || rest.More || rest.Resume != "complete" || rest.LastID != last {
			t.Errorf("the rest is %+v", rest)
		}
		if newest := poll(t, ask+"&since=latest", p.via, e2etest.Header("Accept", "text/html")); strings.Join(newest.texts(), " ") != "4" {
			t.Errorf("the newest is %+v", newest)
		}
		if lost := poll(t, ask, p.via, e2etest.LastEventID("rubbish")); lost.Resume != "gap" || len(lost.Messages) != 5 {
			t.Errorf("an unknown ID is answered %+v", lost)
		}
		if n := receivers(t, p.url("/events?topic="+topic)); n != 0 {
			t.Errorf("polls left %d clients behind", n)
		}
	})
}

func TestAPollWaitsForAMessage(t *testing.T) {
	s := serve(t, strings.Replace(openRoute, "publish {", "heartbeat 50ms\nidle_timeout 50ms\nmax_age 50ms\npublish {", 1), withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		topic := url.QueryEscape(p.name)
		began := time.Now()
		empty := poll(t, p.url("/events?format=json&wait=300ms&topic="+topic), p.via)
		if took := time.Since(began); took < 300*time.Millisecond || len(empty.Messages) > 0 || empty.Resume != "none" {
			t.Errorf("after %v the answer is %+v", took, empty)
		}
		var waiting []*http.Response
		for range 3 { // they are answered at once, but for their messages
			waiting = append(waiting, openUnread(t, p.client, p.url("/events?format=json&wait=60s&topic="+topic+"&last_event_id="+empty.LastID)))
		}
		publish(t, p.url("/events?topic="+topic), "first", p.via)
		for _, response := range waiting {
			if got := rest(t, response); strings.Join(got.texts(), " ") != "first" || got.Resume != "complete" {
				t.Errorf("the answer is %+v", got)
			}
		}
		if took := time.Since(began); took > patience {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAPollIsAClientWhileItWaits(t *testing.T) {
	s := serve(t, openRoute, globals("sse {\nmax_clients 1\n}"))
	ask := s.url("/events?topic=a&format=json&wait=60s")
	waiting := openUnread(t, e2etest.H1(t), ask)
	for range 2 {
		answer := e2etest.Send(t, http.MethodGet, ask, "")
		wantRefusal(t, answer, http.StatusServiceUnavailable)
		wantRetryAfter(t, answer)
	}
	publish(t, s.url("/events?topic=a"), "now")
	if got := rest(t, waiting); strings.Join(got.texts(), " ") != "now" {
		t.Errorf("the answer is %+v", got)
	}
	poll(t, s.url("/events?topic=a&format=json"))
}

func TestWhoMayNotSubscribeMayNotRead(t *testing.T) {
	setSecrets(t)
	s := serve(t, jwtRoute)
	alice := bearer(granting("alice", list("a"), nil))
	for _, format := range []string{"sse", "envelope", "ndjson", "json"} {
		wantRefusal(t, get(t, s.url("/events?topic=a&format="+format)), http.StatusUnauthorized)
		wantRefusal(t, get(t, s.url("/events?topic=b&since=all&format="+format), alice), http.StatusForbidden)
		wantRefusal(t, get(t, s.url("/events?topic=**&since=latest&format="+format), alice), http.StatusForbidden)
	}
	if got := poll(t, s.url("/events?topic=a&format=json"), alice); got.Resume != "none" {
		t.Errorf("the answer is %+v", got)
	}
	soon := bearer(grantingUntil(time.Now().Add(1200*time.Millisecond), "alice", list("a"), nil))
	if got := poll(t, s.url("/events?topic=a&format=json&wait=60s"), soon); got.Resume != "none" || len(got.Messages) > 0 {
		t.Errorf("when its token ends, a poll is answered %+v", got)
	}
}

func TestStalledPollsHoldUpNobodyAndAreCut(t *testing.T) {
	s := serve(t, strings.Replace(openRoute, "publish {", "write_timeout 300ms\npublish {\nmax_size 16MiB", 1))
	for range 2 {
		publish(t, s.url("/events?topic=a"), hugeData[:6<<20])
	}
	client := lazyClient(t, protocol{major: 1})
	for range 3 {
		openUnread(t, client, s.url("/events?topic=a&format=json"))
	}
	for i := range 20 {
		publish(t, s.url("/events?topic=a"), numbered(i))
	}
	eventually(t, patience, "all were cut", func() bool { return receivers(t, s.url("/events?broadcast&ephemeral")) == 0 })
}

// pollAgain polls until there is an answer, as persist publishes.
func pollAgain(t *testing.T, url, last string) (p polled) {
	t.Helper()
	eventually(t, patience, "an answer", func() bool {
		answer, err := e2etest.Do(t.Context(), http.MethodGet, url, "", e2etest.LastEventID(last))
		if err != nil {
			return false
		}
		answer.Decode(t, &p)
		return true
	})
	return p
}

func TestPollsInALoopOverReloadsMissNothingAndDoubleNothing(t *testing.T) {
	s := serve(t, openRoute)
	const messages = 400
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for i := range messages {
			persist(t, s.url("/events?topic=a/"+strconv.Itoa(i%3)), strconv.Itoa(i), strconv.Itoa(i))
			if i%100 == 50 {
				s.conf = strings.Replace(s.conf, "sse /events {", "sse /events {\nretry "+fmt.Sprint(1+i/100)+"s", 1)
				s.conf = strings.Replace(s.conf, fmt.Sprintf("\nretry %ds\nretry", 1+i/100), "\nretry", 1)
				if err := s.load(); err != nil {
					t.Errorf("reloading: %v", err)
				}
			}
		}
	})
	var got []string
	last := ""
	for deadline := time.Now().Add(patience); len(got) < messages && time.Now().Before(deadline); {
		answer := pollAgain(t, s.url("/events?topic=a/*&format=json&limit=7&wait=1s"), last)
		if last != "" && answer.Resume != "complete" {
			t.Fatalf("after %d messages an answer says %q", len(got), answer.Resume)
		}
		got, last = append(got, answer.texts()...), answer.LastID
	}
	publishing.Wait()
	var want []string
	for i := range messages {
		want = append(want, strconv.Itoa(i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestAPollSaysGapWhenItsHubHasAnotherBroker(t *testing.T) {
	s := serve(t, openRoute, globals("sse\n"))
	before := *publish(t, s.url("/events?topic=a"), "before").ID
	waiting := openUnread(t, e2etest.H1(t), s.url("/events?topic=a&format=json&wait=60s&last_event_id="+before))
	s.conf = strings.Replace(s.conf, "sse\n", "sse {\nbroker bolt "+s.dir+"/log.db\n}\n", 1)
	if err := s.load(); err != nil {
		t.Fatal(err)
	}
	publish(t, s.url("/events?topic=a"), "after")
	answer := rest(t, waiting)
	if answer.Resume != "gap" {
		t.Errorf("over a change of brokers a poll is answered %+v", answer)
	}
	last := answer.LastID
	if next := poll(t, s.url("/events?topic=a&format=json&last_event_id="+before)); next.Resume != "gap" || strings.Join(next.texts(), "") != "after" {
		t.Errorf("an ID from before is answered %+v", next)
	}
	if next := poll(t, s.url("/events?topic=a&format=json&last_event_id="+last)); next.Resume != "complete" {
		t.Errorf("an ID of the answer is answered %+v", next)
	}
}
