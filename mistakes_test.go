package sse_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// Mistakes as a newcomer makes them, and words of the answer: what is wrong, and what to write instead.
func TestMistakesInARequestAreAnsweredWithWhatToChange(t *testing.T) {
	s := serveOnce(t, listenedRoute+`
		sse /guarded {
			publish {
				token secret
			}
		}
		sse /quiet
		sse /room {
			topics room/{query.room} {query.channel}
			publish {
				open
			}
		}`)
	stream := s.listen(t)
	const bad = http.StatusBadRequest
	for _, mistake := range []struct {
		path, media, body string
		status            int
		words             string
	}{
		{"/events", formType, "hi", bad, "no form | ?topic=news"},                     // curl -d hi
		{"/events", formType, "hello=world", bad, "no form | ?topic=news"},            // curl -d hello=world
		{"/events", formType, "100% sure", bad, "no form | ?topic=news"},              // curl -d '100% sure'
		{"/events", formType, `{"topic":"a","data":1}`, bad, jsonType},                // curl -d '{...}'
		{"/events", formType, "topic=a", bad, "data is missing"},                      // curl -d topic=a
		{"/events", "", "", bad, "target | ?topic=news"},                              // curl -X POST
		{"/events", jsonType, `{"data":"x"}`, bad, "target | topic, client_id, user"}, // whom for?
		{"/events", jsonType, `{"topic":"a","message":"x"}`, bad, `"message" | data`}, // another word
		{"/events", jsonType, `{"user":42,"data":"x"}`, bad, `"user" is a number | a string, as "42"`},
		{"/events", jsonType, `{"topic":7,"data":"x"}`, bad, "topic must be a string"},
		{"/events", jsonType, `{"topic":"a","data":"x","retry":"5s"}`, bad, `"retry" is a string | milliseconds | 5000`},
		{"/events", jsonType, `{"topic":"a","data":"x","retry":5}`, bad, "retry | from 100 to 60000 | 5000"},
		{"/events", jsonType, `{"broadcast":"true","data":"x"}`, bad, `"broadcast" is a string | true or false, without quotes`},
		{"/events", jsonType, `{"topic":"a","data":"x","ephemeral":1}`, bad, `"ephemeral" is a number | true or false, without quotes`},
		{"/events", jsonType, `{'topic':'a'}`, bad, "JSON is not valid"},
		{"/events?topic=a&retry=5s", "", "x", bad, "retry | milliseconds | 5000"},
		{"/events?topics=a", "", "x", bad, "topics | write topic"},
		{"/events?topic[]=a", "", "x", bad, "topic[] | write topic"},
		{"/events?channel=a", "", "x", bad, "channel | write topic"},
		{"/events?tpoic=a", "", "x", bad, "tpoic | write topic"},
		{"/events?Topic=a", "", "x", bad, "Topic | write topic"},
		{"/events?clientId=a", "", "x", bad, "clientId | write client_id"},
		{"/events?brodcast", "", "x", bad, "brodcast | write broadcast"},
		{"/events?topic=a&ephemral", "", "x", bad, "ephemral | write ephemeral"},
		{"/events?topic=a/*", "", "x", bad, "pattern"},
		{"/events?topic=a", eventsType, "hello", bad, "no message | data:"},
		{"/events?topic=a", "multipart/form-data; boundary=x", "x", 0, ""},
		{"/guarded?topic=a", "", "x", http.StatusUnauthorized, "Authorization: Bearer <token>"},
		{"/quiet?topic=a", "", "x", http.StatusForbidden, "not enabled | add a publish block with a token"},
		{"/events?last_event_id=a&user_id=3&v=1&page=2&test=1&lang=en&token=x&topic=ok", "", "other parameters pass", 0, ""},
		{"/room?channel=ok&room=a", "", "the route's parameters pass", 0, ""},
	} {
		answer := post(t, s.url(mistake.path), mistake.media, mistake.body)
		if mistake.status == 0 {
			if answer.Status != http.StatusOK {
				t.Errorf("%+v is answered %s", mistake, answer.Body)
			}
			stream.Expect(t, mistake.body)
			continue
		}
		t.Run(mistake.path+" "+mistake.body, func(t *testing.T) {
			words := strings.Split(mistake.words, "|")
			for i := range words {
				words[i] = strings.TrimSpace(words[i])
			}
			wantRefusal(t, answer, mistake.status, words...)
			if strings.Contains(answer.Body, `\u00`) {
				t.Errorf("people can't read %s", answer.Body)
			}
		})
	}
	stream.wantNothing(t)
	for _, mistake := range []struct{ query, words string }{
		{"topics=a", "topics | write topic"},
		{"topic[]=a", "topic[] | write topic"},
		{"topics[]=a", "topics[] | write topic"},
		{"channels=a", "channels | write topic"},
		{"topc=a", "topc | write topic"},
		{"topic=a&client-id=b", "client-id | write client_id"},
		{"topic=a&clientid=b", "clientid | write client_id"},
		{"topic=a&lasteventid=b", "lasteventid | write last_event_id"},
		{"topic=a&last-event-id=b", "last-event-id | write last_event_id"},
		{"topic=", "topic | empty"},
		{"topic=a/**/b", "last segment"},
		{"topic=a&client_id=a%20b", "A-Za-z0-9._~-"},
	} {
		words := strings.Split(mistake.words, "|")
		for i := range words {
			words[i] = strings.TrimSpace(words[i])
		}
		wantRefusal(t, get(t, s.url("/events?"+mistake.query)), bad, words...)
	}
	for _, path := range []string{
		"/events?topic=a&user=b&event=c&lastEventId=&lastEventID=&v=1&t=2&_=3&page=4&ts=5&utm_source=x&token=y&room=z&id=6&name=7",
		"/room?channel=a&room=b",
	} {
		e2etest.Subscribe(t, s.url(path)).Connected(t)
	}
}
