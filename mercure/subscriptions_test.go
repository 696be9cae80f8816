package mercure

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

const withSubscriptions = inMemory + "subscriptions\n"

// everything is what an administrator's token grants.
const everything = "/.well-known/mercure/subscriptions{/topic}{/subscriber}"

// wantSubscription reads the next event, which tells of a subscription.
func wantSubscription(t *testing.T, stream *e2etest.Stream, topic string, active bool) subscription {
	t.Helper()
	event, err := stream.Next(patience)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	var s subscription
	if json.Unmarshal(event.Data, &fields) != nil || json.Unmarshal(event.Data, &s) != nil {
		t.Fatalf("the event is %+v", event)
	}
	id := subscriptionsPath + "/" + strings.ReplaceAll(url.QueryEscape(topic), "+", "%20") + "/" + url.QueryEscape(s.Subscriber)
	if s.Context != "https://mercure.rocks/" || s.Type != "Subscription" || s.Topic != topic || s.Active != active ||
		s.ID != id || !strings.HasPrefix(s.Subscriber, "urn:uuid:") || event.Name != "" || s.LastEventID != "" {
		t.Fatalf("the event tells %s, not of %s: %v", event.Data, topic, active)
	}
	return s
}

// api asks the subscription API.
func (s *site) api(path string, selectors ...string) e2etest.Answer {
	s.t.Helper()
	return s.get(s.URL(path), bearer(subscribing(selectors...)))
}

// listed returns what the API lists at a path.
func (s *site) listed(path string) collection {
	s.t.Helper()
	answer := s.api(path, everything)
	if answer.Status != http.StatusOK || answer.Header.Get("Content-Type") != "application/ld+json" {
		s.t.Fatalf("%d %v %s", answer.Status, answer.Header, answer.Body)
	}
	var c collection
	answer.Decode(s.t, &c)
	return c
}

func TestRule43And44SubscribersAreToldAsPrivateUpdates(t *testing.T) {
	t.Parallel()
	s := serve(t, withSubscriptions)
	admin := s.subscribe([]string{everything}, bearer(subscribing(everything)))
	wantSubscription(t, admin, everything, true)
	nobody := s.subscribe([]string{everything, "news"}) // without a grant
	first, second := wantSubscription(t, admin, everything, true), wantSubscription(t, admin, "news", true)
	if second.Topic < first.Topic || first.Subscriber != second.Subscriber || first.Payload != nil {
		t.Errorf("of one connection are told %+v and %+v", first, second)
	}
	token := signed(subscriberKey, `{"mercure":{"subscribe":["a"],"payload":{"user":"<alice>","n":[1]}}}`)
	alice := s.subscribe([]string{"with space/é", "https://example.com/{id}"}, bearer(token))
	one := wantSubscription(t, admin, "https://example.com/{id}", true)
	other := wantSubscription(t, admin, "with space/é", true)
	if !strings.Contains(other.ID, "with%20space%2F%C3%A9") || string(one.Payload) != `{"user":"<alice>","n":[1]}` {
		t.Errorf("they are told as %+v and %+v", one, other)
	}
	alice.Close()
	for _, topic := range []string{"https://example.com/{id}", "with space/é"} {
		if gone := wantSubscription(t, admin, topic, false); gone.Subscriber != one.Subscriber {
			t.Errorf("another one has left: %+v", gone)
		}
	}
	s.publish("topic", "news", "data", "1")
	wantTexts(t, nobody, "1")
}

// Whoever subscribes to the events of one topic gets no others.
func TestRule43EventsOfOneTopic(t *testing.T) {
	t.Parallel()
	s := serve(t, withSubscriptions)
	const ofNews = subscriptionsPath + "/news{/subscriber}"
	watcher := s.subscribe([]string{ofNews}, bearer(subscribing(ofNews)))
	s.subscribe([]string{"other"}).Close()
	s.subscribe([]string{"news"}).Close()
	came := wantSubscription(t, watcher, "news", true)
	if gone := wantSubscription(t, watcher, "news", false); gone.Subscriber != came.Subscriber {
		t.Errorf("%+v has left", gone)
	}
}

func TestRule45TheAPIListsSubscriptions(t *testing.T) {
	t.Parallel()
	s := serve(t, withSubscriptions)
	if c := s.listed(subscriptionsPath); len(c.Subscriptions) != 0 || c.Type != "Subscriptions" || c.LastEventID == "" ||
		c.Context != "https://mercure.rocks/" || c.ID != subscriptionsPath {
		t.Errorf("of nobody it tells %+v", c)
	}
	token := signed(subscriberKey, `{"mercure":{"payload":"p"}}`)
	s.subscribe([]string{"a b/é", "x"}, bearer(token))
	s.subscribe([]string{"x"})
	var c collection
	e2etest.Await(t, "all are listed", func() bool { c = s.listed(subscriptionsPath); return len(c.Subscriptions) == 3 })
	first := c.Subscriptions[0]
	if first.Topic != "a b/é" || !first.Active || string(first.Payload) != `"p"` || first.Context != "" ||
		first.ID != pathOf("a b/é", first.Subscriber) || c.Subscriptions[1].Topic != "x" || c.Subscriptions[2].Topic != "x" {
		t.Errorf("it lists %+v", c)
	}
	if of := s.listed(subscriptionsPath + "/a%20b%2F%C3%A9"); len(of.Subscriptions) != 1 || of.ID != subscriptionsPath+"/a%20b%2F%C3%A9" {
		t.Errorf("of a topic it lists %+v", of)
	}
	if of := s.listed(subscriptionsPath + "/unknown"); len(of.Subscriptions) != 0 {
		t.Errorf("of another topic it lists %+v", of)
	}
	var one subscription
	s.api(first.ID, everything).Decode(t, &one)
	if one.Topic != first.Topic || one.Subscriber != first.Subscriber || one.Context == "" || one.LastEventID == "" || !one.Active {
		t.Errorf("of one it tells %+v", one)
	}
	wantRefusal(t, s.api(pathOf("x", "urn:uuid:nobody"), everything), http.StatusNotFound)
	wantRefusal(t, s.api(subscriptionsPath+"/a/b/c", "*"), http.StatusNotFound)
	wantRefusal(t, s.api(subscriptionsPath+"/", "*"), http.StatusNotFound)
	again := s.api(subscriptionsPath, everything)
	same := s.get(s.URL(subscriptionsPath), bearer(subscribing(everything)), e2etest.Header("If-None-Match", again.Header.Get("ETag")))
	if again.Header.Get("ETag") == "" || same.Status != http.StatusNotModified || same.Body != "" {
		t.Errorf("with its ETag: %d %q", same.Status, same.Body)
	}
}

func TestRule46TheAPINeedsAGrantThatMatchesThePath(t *testing.T) {
	t.Parallel()
	s := serve(t, withSubscriptions)
	s.subscribe([]string{"a"})
	path := subscriptionsPath + "/a"
	wantRefusal(t, s.get(s.URL(path)), http.StatusUnauthorized, "token")
	for grant, status := range map[string]int{
		"*": 200, path: 200, everything: 200, subscriptionsPath + "{/topic}": 200, subscriptionsPath + "/b": 403, "a": 403, subscriptionsPath: 403,
	} {
		if answer := s.api(path, grant); answer.Status != status {
			t.Errorf("%s: %d, want %d", grant, answer.Status, status)
		}
	}
	inQuery := s.get(s.URL(path + "?authorization=" + subscribing(path)))
	if inQuery.Status != http.StatusOK {
		t.Errorf("with the token in the query: %d", inQuery.Status)
	}
	wantRefusal(t, e2etest.Send(t, http.MethodPost, s.URL(path), ""), http.StatusMethodNotAllowed)
}

// What is listed, and the updates since, make up who is there, however much comes and goes meanwhile.
func TestRule48AListAndTheEventsSinceAreComplete(t *testing.T) {
	t.Parallel()
	for name, transport := range map[string]string{"local": "transport local\n", "bolt": "transport bolt {\npath {{dir}}/updates.db\n}\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, "anonymous\nsubscriptions\n"+transport)
			done := make(chan bool)
			go func() {
				defer close(done)
				for i := range 60 {
					stream, err := e2etest.Open(t.Context(), s.topics(fmt.Sprint("t", i)))
					if err != nil {
						t.Error(err)
						return
					}
					if i%2 == 0 {
						stream.Close()
					} else {
						t.Cleanup(stream.Close)
					}
				}
			}()
			type view struct {
				present map[string]bool
				stream  *e2etest.Stream
			}
			var views []view
			for range 10 {
				c := s.listed(subscriptionsPath)
				v := view{map[string]bool{}, e2etest.Subscribe(t, s.topics(everything), bearer(subscribing(everything)),
					e2etest.LastEventID(c.LastEventID))}
				if told := cursorOfAnswer(v.stream); told != c.LastEventID {
					t.Errorf("after %s the answer tells %q", c.LastEventID, told)
				}
				for _, one := range c.Subscriptions {
					v.present[one.ID] = true
				}
				views = append(views, v)
			}
			<-done
			e2etest.Await(t, "who left is not listed", func() bool {
				odd := 0
				for _, one := range s.listed(subscriptionsPath).Subscriptions {
					if strings.HasPrefix(one.Topic, "t") {
						odd++
					}
				}
				return odd == 30
			})
			last := s.subscribe([]string{"last"})
			defer last.Close()
			for i, v := range views {
				for ended := false; !ended; {
					event, err := v.stream.Next(patience)
					if err != nil {
						t.Fatal(err)
					}
					var one subscription
					if err := json.Unmarshal(event.Data, &one); err != nil {
						t.Fatal(err)
					}
					if v.present[one.ID] = true; !one.Active {
						delete(v.present, one.ID)
					}
					ended = one.Topic == "last"
				}
				left := 0
				for id := range v.present {
					if strings.HasPrefix(id, subscriptionsPath+"/t") {
						left++
					}
				}
				if left != 30 {
					t.Errorf("who listed as number %d sees %d of 30", i, left)
				}
			}
		})
	}
}

func TestRule49WithoutTheOptionThereIsNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	admin := s.subscribe([]string{everything, "a"}, bearer(subscribing("*")))
	s.subscribe([]string{"a"}).Close()
	wantRefusal(t, s.api(subscriptionsPath, "*"), http.StatusNotFound)
	s.publish("topic", "a", "data", "1")
	wantTexts(t, admin, "1")
}
