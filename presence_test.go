package sse_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// roomPolicy gives rooms presence, but for one.
var roomPolicy = globals(roomsOn)

const roomsOn = `sse {
	topic room/quiet {
		presence off
	}
	topic room/* {
		presence on
	}
}`

// whoIsThere is what GET ?presence= answers.
type whoIsThere struct {
	Topic   string
	Clients int
	Users   []struct{ User, Info string }
	More    bool
}

// awaitPresence waits until somebody asks and gets that many clients. It returns the answer.
func awaitPresence(t testing.TB, address string, clients int, options ...e2etest.Option) (now whoIsThere) {
	t.Helper()
	eventually(t, patience, "others to be there", func() bool {
		now = whoIsThere{}
		answer := get(t, address, options...)
		if answer.Status != http.StatusOK {
			t.Fatalf("answered %d: %s", answer.Status, answer.Body)
		}
		answer.Decode(t, &now)
		return now.Clients == clients
	})
	return now
}

func TestPresenceIsAnsweredAndTold(t *testing.T) {
	s := serveOnce(t, withUsers(`
		sse /events {
			info {query.name}
		}
		sse /anonymous {
			info {query.name}
		}`), roomPolicy, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		room := url.QueryEscape("room/" + strings.ReplaceAll(t.Name(), "/", "-"))
		ask := p.url("/anonymous?presence=" + room)
		awaitPresence(t, ask, 0, p.via) // those of the protocol before have left
		empty := get(t, ask, p.via)
		if want := `{"topic":"` + strings.ReplaceAll(room, "%2F", "/") + `","clients":0,"users":[]}` + "\n"; empty.Body != want {
			t.Errorf("answered %s, want %s", empty.Body, want)
		}
		if media, cache := empty.Header.Get("Content-Type"), empty.Header.Get("Cache-Control"); media != "application/json" || cache != "no-store" {
			t.Errorf("answered as %q, %q", media, cache)
		}
		watch := e2etest.Subscribe(t, p.url("/anonymous?topic=room/*&name=Watch"), p.via)
		long := strings.Repeat("é", 200) + "x"
		alice := e2etest.Subscribe(t, p.url("/events?topic="+room+"&client_id=secret&name="+url.QueryEscape(long)), p.via, As("alice"))
		e2etest.Subscribe(t, p.url("/events?topic="+room+"&name=Other"), p.via, As("alice")) // a second tab
		nameless := e2etest.Subscribe(t, p.url("/anonymous?topic="+room), p.via)
		now := awaitPresence(t, ask, 4, p.via)
		if len(now.Users) != 2 || now.Users[0].User != "" || now.Users[0].Info != "Watch" || now.Users[1].User != "alice" {
			t.Errorf("there are %+v", now.Users)
		} else if info := now.Users[1].Info; info != strings.Repeat("é", 128) && info != "Other" {
			t.Errorf("the info of 401 bytes is cut to %d bytes: %q", len(info), info)
		}
		if answer := get(t, ask, p.via); strings.Contains(answer.Body, "secret") {
			t.Errorf("the answer tells a client_id: %s", answer.Body)
		}
		for sum := map[string]bool{}; !sum["alice"] || !sum["4"]; {
			event, err := watch.Next(patience)
			if err != nil {
				t.Fatal(err)
			}
			var told struct {
				Topic   string
				Clients int
				Joined  []struct{ User, Info string }
			}
			if err := json.Unmarshal(event.Data, &told); err != nil || event.Name != "presence" || event.ID != "" {
				t.Fatalf("got %+v, %v", event, err)
			}
			if strings.Contains(string(event.Data), "secret") {
				t.Errorf("the event tells a client_id: %s", event.Data)
			}
			for _, p := range told.Joined {
				sum[p.User] = true
			}
			sum["4"] = told.Clients == 4
		}
		nameless.Close()
		awaitPresence(t, ask, 3, p.via)
		alice.Close()
		awaitPresence(t, ask, 2, p.via)
		head := e2etest.Send(t, http.MethodHead, ask, "", p.via)
		if head.Status != http.StatusOK || head.Body != "" || head.Header.Get("Content-Type") != "application/json" {
			t.Errorf("HEAD is answered %+v", head)
		}
	})
}

func TestPresenceOfPatternsAndOfTopicsWithoutItIs400(t *testing.T) {
	s := serveOnce(t, openRoute, roomPolicy)
	for topic, words := range map[string][]string{
		"room/*":           {"pattern"},
		"**":               {"pattern"},
		"":                 {"empty"},
		"a%00b":            {"control"},
		"news":             {"news", "presence on"},
		"room/quiet":       {"presence on"},
		"room/1&presence=": {"one topic"},
	} {
		wantRefusal(t, get(t, s.url("/events?presence="+topic)), http.StatusBadRequest, words...)
	}
	wantRefusal(t, get(t, s.url("/events?prezence=room/1")), http.StatusBadRequest, "write presence")
}

func TestPresenceNeedsWhatSubscribingNeeds(t *testing.T) {
	setSecrets(t)
	s := serveOnce(t, `
		sse /jwt {
			cors_origins https://app.example.com
			jwt {
				`+hsKey+`
				cookie session
				public room/public
			}
		}
		sse /rooms/* {
			topics room/{path.1}
		}
		sse /named {
			topics room/{query.presence}
		}`, roomPolicy)
	token := e2etest.Header("Authorization", "Bearer "+granting("alice", []string{"room/1"}, nil))
	cookie := e2etest.Header("Cookie", "session="+granting("alice", []string{"room/1"}, nil))
	for _, c := range []struct {
		path   string
		status int
		with   []e2etest.Option
	}{
		{"/jwt?presence=room/public", http.StatusOK, nil},
		{"/jwt?presence=room/1", http.StatusUnauthorized, nil},
		{"/jwt?presence=room/1", http.StatusUnauthorized, []e2etest.Option{e2etest.Header("Authorization", "Bearer rubbish")}},
		{"/jwt?presence=room/1", http.StatusOK, []e2etest.Option{token}},
		{"/jwt?presence=room/1", http.StatusOK, []e2etest.Option{cookie}},
		{"/jwt?presence=room/2", http.StatusForbidden, []e2etest.Option{token}},
		{"/rooms/1?presence=room/1", http.StatusOK, nil},
		{"/rooms/1?presence=room/2", http.StatusForbidden, nil},
		{"/rooms/1?presence=room/2&topic=room/2", http.StatusForbidden, nil},
	} {
		if answer := get(t, s.url(c.path), c.with...); answer.Status != c.status {
			t.Errorf("%s is answered %d, want %d: %s", c.path, answer.Status, c.status, answer.Body)
		}
	}
	answer := get(t, s.url("/jwt?presence=room/1"), cookie, e2etest.Header("Origin", "https://app.example.com"))
	if allowed := answer.Header.Get("Access-Control-Allow-Origin"); allowed != "https://app.example.com" {
		t.Errorf("pages of %q may read the answer", allowed)
	}
	answer = get(t, s.url("/jwt?presence=room/1"), cookie, e2etest.Header("Origin", "https://evil.example"))
	if allowed := answer.Header.Get("Access-Control-Allow-Origin"); allowed != "" {
		t.Errorf("pages of %q may read the answer", allowed)
	}
	// Where the route itself takes a parameter of that name, it is the route's.
	stream := e2etest.Subscribe(t, s.url("/named?presence=1"))
	if topics := stream.Connected(t).Topics; len(topics) != 1 || topics[0] != "room/1" {
		t.Errorf("listens to %q", topics)
	}
}

func TestPresenceIsAReservedEventOnItsTopics(t *testing.T) {
	s := serveOnce(t, openRoute, roomPolicy)
	for _, c := range []struct{ query, media, body string }{
		{"?topic=room/1&event=presence", "", "fake"},
		{"", jsonType, `{"topic":"room/1","event":"presence","data":"fake"}`},
		{"", jsonType, `[{"topic":["other","room/1"],"event":"presence","data":"fake"}]`},
		{"", formType, "topic=room/1&event=presence&data=fake"},
		{"", ndjsonType, `{"topic":"room/1","event":"presence","data":"fake"}`},
		{"?topic=room/1", eventsType, "event: presence\ndata: fake\n\n"},
	} {
		wantRefusal(t, post(t, s.url("/events"+c.query), c.media, c.body), http.StatusBadRequest, "presence", "reserved")
	}
	for _, topic := range []string{"news", "room/quiet"} {
		publish(t, s.url("/events?topic="+topic+"&event=presence"), "fine")
	}
}

func TestReloadTurnsPresenceOnForClientsThatAreThere(t *testing.T) {
	s := serveOnce(t, openRoute)
	stream := e2etest.Subscribe(t, s.url("/events?topic=room/1"))
	stream.Connected(t)
	wantRefusal(t, get(t, s.url("/events?presence=room/1")), http.StatusBadRequest, "presence on")
	s.conf = strings.Replace(s.conf, "admin off", "admin off\n"+roomsOn, 1)
	if err := s.load(); err != nil {
		t.Fatal(err)
	}
	awaitPresence(t, s.url("/events?presence=room/1"), 1)
	event, err := stream.Next(patience)
	if err != nil || event.Name != "presence" {
		t.Errorf("got %+v, %v", event, err)
	}
	stream.Close()
	began := time.Now()
	awaitPresence(t, s.url("/events?presence=room/1"), 0)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("who left was noticed after %v", took)
	}
}
