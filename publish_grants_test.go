package sse_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func bearer(token string) e2etest.Option { return e2etest.Header("Authorization", "Bearer "+token) }

func TestPublishingNeedsOneOfTheTokens(t *testing.T) {
	t.Setenv("SSE_TEST_TOKEN", "from-the-environment")
	s := serveOnce(t, `
		sse /events {
			publish {
				token secret other
				token {env.SSE_TEST_TOKEN}
			}
		}`, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := e2etest.Subscribe(t, p.url("/events?topic=a"), p.via)
		stream.Connected(t)
		for _, header := range []string{"Bearer secret", "bearer other", "BEARER  secret", "Bearer from-the-environment"} {
			publish(t, p.url("/events?topic=a"), header, p.via, e2etest.Header("Authorization", header))
			stream.Expect(t, header)
		}
		for header, challenge := range map[string]string{
			"":                            `Bearer realm="sse"`,
			"Bearer":                      `Bearer realm="sse"`,
			"Bearer ":                     `Bearer realm="sse"`,
			"Basic c2VjcmV0OnNlY3JldA==":  `Bearer realm="sse"`,
			"secret":                      `Bearer realm="sse"`,
			"Bearer secre":                `Bearer realm="sse", error="invalid_token"`,
			"Bearer secrett":              `Bearer realm="sse", error="invalid_token"`,
			"Bearer Secret":               `Bearer realm="sse", error="invalid_token"`,
			"Bearer secret other":         `Bearer realm="sse", error="invalid_token"`,
			"Bearer {env.SSE_TEST_TOKEN}": `Bearer realm="sse", error="invalid_token"`,
		} {
			answer := post(t, p.url("/events?topic=a"), "", "stolen", p.via, e2etest.Header("Authorization", header))
			wantRefusal(t, answer, http.StatusUnauthorized, "token")
			if got := answer.Header.Get("WWW-Authenticate"); got != challenge {
				t.Errorf("%q: WWW-Authenticate is %q", header, got)
			}
		}
		wantRefusal(t, post(t, p.url("/events?topic=a&token=secret&access_token=secret"), "", "stolen", p.via), http.StatusUnauthorized)
		publish(t, p.url("/events?topic=a"), "end", p.via, bearer("secret"))
		stream.Expect(t, "end")
	})
}

func TestUnsetTokensFailTheConfig(t *testing.T) {
	for _, token := range []string{"{env.SSE_TEST_UNSET}", `""`, "{file./nonexistent/token}"} {
		s := &site{t: t, conf: "{\nadmin off\npersist_config off\n}\nhttp://127.0.0.1:1 {\nsse {\npublish {\ntoken " + token + "\n}\n}\n}"}
		if err := s.load(); err == nil {
			t.Errorf("token %s: the config loads", token)
		} else if !strings.Contains(err.Error(), "token") {
			t.Errorf("token %s: %v", token, err)
		}
	}
}

func TestPublishTokenMakesNoDifferenceToGet(t *testing.T) {
	s := serveOnce(t, `
		sse /events {
			publish {
				token secret
			}
		}
		sse /room {
			topics room/{query.room}
			publish {
				token secret
			}
		}`)
	for _, token := range []string{"secret", "wrong"} {
		stream := e2etest.Subscribe(t, s.url("/events?topic=a"), bearer(token))
		stream.Connected(t)
		publish(t, s.url("/events?user=secret"), "no", bearer("secret"))
		publish(t, s.url("/events?topic=a"), "yes", bearer("secret"))
		stream.Expect(t, "yes")
		wantRefusal(t, get(t, s.url("/room?room=*"), bearer(token)), http.StatusBadRequest)
	}
}

// attempt is one publish on a route, and what becomes of it: the topics that get it, or a status.
type attempt struct{ query, media, body, want string }

func (a attempt) run(t *testing.T, s *site, path string, stream *listener) {
	t.Helper()
	answer := post(t, s.url(path+a.query), a.media, a.body)
	if strings.HasPrefix(a.want, "4") {
		status := map[string]int{"400": 400, "403": 403}[a.want]
		wantRefusal(t, answer, status)
		return
	}
	if answer.Status != http.StatusOK {
		t.Errorf("%s%s %s is answered %d %s", path, a.query, a.body, answer.Status, answer.Body)
		return
	}
	stream.Expect(t, a.want)
}

func TestRouteTopicsLimitWhatIsPublishedThere(t *testing.T) {
	s := serveOnce(t, listenedRoute+`
		sse /literal {
			topics news status
			publish {
				open
			}
		}
		sse /pattern {
			topics room/* all/**
			publish {
				open
			}
		}
		sse /room {
			topics room/{query.room}
			publish {
				open
			}
		}
		sse /mixed {
			topics news room/*
			publish {
				open
			}
		}
		sse /asked {
			topics news {query.topic}
			publish {
				open
			}
		}
		sse /targets {
			topics news
			publish {
				open
				targets client broadcast
			}
		}`)
	stream := s.listen(t)
	for path, attempts := range map[string][]attempt{
		"/literal": {
			{"", "", "x", "x"}, // to the route's own topics
			{"", jsonType, `{"topic":"a","data":"x"}`, `{"topic":"a","data":"x"}`}, // which makes the body data
			{"", ndjsonType, "x", "x"},
			{"", eventsType, "data: x", "x"},
			{"?event=e", "", "x", "x"},
			{"?topic=news", "", "x", "x"},
			{"?topic=status&topic=news", "", "x", "x"},
			{"?topic=other", "", "x", "403"},
			{"?topic=news&topic=other", "", "x", "403"},
			{"?topic=News", "", "x", "403"},
			{"?topic=*", "", "x", "400"},
			{"?client_id=x", "", "x", "403"},
			{"?user=u", "", "x", "403"},
			{"?broadcast", "", "x", "403"},
		},
		"/pattern": {
			{"", "", "x", "400"}, // it must name one
			{"", eventsType, "data: x", "400"},
			{"?event=e", "", "x", "400"},
			{"?topic=room/1", "", "x", "x"},
			{"?topic=room/1&topic=all/a/b", "", "x", "x"},
			{"?topic=room", "", "x", "403"},
			{"?topic=room/1/2", "", "x", "403"},
			{"?topic=room/1&topic=other", "", "x", "403"},
			{"?topic=room/*", "", "x", "400"},
			{"?broadcast", "", "x", "403"},
			{"", jsonType, `{"topic":"room/1","data":"x"}`, "x"}, // or its body does
			{"", jsonType, `{"topic":["room/1","all/a"],"data":"x"}`, "x"},
			{"", jsonType, `[{"topic":"room/1","data":"x"}]`, "x"},
			{"", jsonType, `{"topic":["room/1","other"],"data":"x"}`, "403"},
			{"", jsonType, `[{"topic":"room/1","data":"x"},{"topic":"other","data":"x"}]`, "403"},
			{"", jsonType, `{"broadcast":true,"data":"x"}`, "403"},
			{"", jsonType, `{"client_id":"x","data":"x"}`, "403"},
			{"", jsonType, `{"user":"u","data":"x"}`, "403"},
			{"", formType, "topic=room/1&data=x", "x"},
			{"", formType, "topic=other&data=x", "403"},
			{"", ndjsonType, `{"topic":"room/1","data":"x"}`, "x"},
			{"", ndjsonType, `{"topic":"other","data":"x"}`, "403"},
		},
		"/room": {
			{"?room=1", "", "x", "x"},
			{"?room=1&topic=room/1", "", "x", "x"},
			{"?room=1&topic=room/2", "", "x", "403"},
			{"", "", "x", "400"},
			{"?topic=room/1", "", "x", "403"},
			{"", jsonType, `{"topic":"room/1","data":"x"}`, "403"},
		},
		"/mixed": {
			{"", "", "x", "x"},
			{"?topic=room/1", "", "x", "x"},
			{"?topic=other", "", "x", "403"},
		},
		"/asked": {
			{"", "", "x", "x"},
			{"?topic=other", "", "x", "x"},
			{"?client_id=x", "", "x", "x"},
			{"?broadcast", "", "x", "x"},
		},
		"/targets": {
			{"", "", "x", "x"},
			{"?client_id=x", "", "x", "x"},
			{"?broadcast", "", "x", "x"},
			{"?user=u", "", "x", "403"},
			{"?topic=other", "", "x", "403"},
		},
	} {
		for _, a := range attempts {
			a.run(t, s, path, stream)
		}
	}
	stream.wantNothing(t)
}

func TestRouteTopicsReceiveWhatIsPostedWithoutATarget(t *testing.T) {
	s := serveOnce(t, openRoute+`
		sse /room {
			topics news room/{query.room}
			publish {
				open
			}
		}`)
	news := e2etest.Subscribe(t, s.url("/events?topic=news"))
	room := e2etest.Subscribe(t, s.url("/events?topic=room/1"))
	other := e2etest.Subscribe(t, s.url("/events?topic=room/2"))
	for _, stream := range []*e2etest.Stream{news, room, other} {
		stream.Connected(t)
	}
	if n := publish(t, s.url("/room?room=1"), "both").Receivers; n != 2.0 {
		t.Errorf("%v receivers, want 2", n)
	}
	publish(t, s.url("/room?room=1&topic=room/1"), "one")
	publish(t, s.url("/events?broadcast"), "end")
	news.Expect(t, "both")
	news.Expect(t, "end")
	room.Expect(t, "both")
	room.Expect(t, "one")
	other.Expect(t, "end")
}

func TestPublishBlockLimitsTopicsAndTargets(t *testing.T) {
	s := serveOnce(t, listenedRoute+`
		sse /topics {
			publish {
				open
				topics news room/*
			}
		}
		sse /targets {
			publish {
				open
				topics news
				targets user
			}
		}
		sse /quiet {
			publish {
				open
				broadcast off
			}
		}
		sse /both {
			topics news room/*
			publish {
				open
				topics room/** other
			}
		}`)
	stream := s.listen(t)
	for path, attempts := range map[string][]attempt{
		"/topics": {
			{"?topic=news", "", "x", "x"},
			{"?topic=room/1", "", "x", "x"},
			{"?topic=room/1/2", "", "x", "403"},
			{"?topic=news&topic=other", "", "x", "403"},
			{"?topic=room/*", "", "x", "400"},
			{"?client_id=x", "", "x", "403"},
			{"?user=u", "", "x", "403"},
			{"?broadcast", "", "x", "403"},
			{"", jsonType, `{"topic":"news","data":"x"}`, "x"},
			{"", jsonType, `{"topic":"other","data":"x"}`, "403"},
			{"", jsonType, `{"broadcast":true,"data":"x"}`, "403"},
			{"", formType, "user=u&data=x", "403"},
			{"", ndjsonType, `{"client_id":"x","data":"x"}`, "403"},
		},
		"/targets": {
			{"?user=u", "", "x", "x"},
			{"?client_id=x", "", "x", "403"},
			{"?broadcast", "", "x", "403"},
			{"?topic=news", "", "x", "x"},
		},
		"/quiet": {
			{"?topic=news", "", "x", "x"},
			{"?client_id=x", "", "x", "x"},
			{"?user=u", "", "x", "x"},
			{"?broadcast", "", "x", "403"},
			{"", jsonType, `{"broadcast":true,"data":"x"}`, "403"},
			{"", formType, "broadcast=true&data=x", "403"},
		},
		"/both": {
			{"?topic=room/1", "", "x", "x"},
			{"?topic=news", "", "x", "403"},
			{"?topic=other", "", "x", "403"},
			{"", "", "x", "403"},
		},
	} {
		for _, a := range attempts {
			a.run(t, s, path, stream)
		}
	}
	stream.wantNothing(t)
}

func TestForeignPagesMayNotPublishOnOpenRoutes(t *testing.T) {
	s := serveOnce(t, listenedRoute+`
		sse /listed {
			cors_origins https://app.example.com
			publish {
				open
			}
		}
		sse /any {
			cors_origins *
			publish {
				open
			}
		}
		sse /token {
			publish {
				token secret
			}
		}`)
	stream := s.listen(t)
	own := strings.TrimSuffix(s.url("/"), "/")
	for path, origins := range map[string]map[string]bool{
		"/events?topic=a": {
			"": true, own: true, "https://evil.example": false, "null": false, "http://127.0.0.1": false, "http://127.0.0.1:1": false,
			own + ".evil.example": false, "https://app.example.com": false, "file://": false, "nonsense": false,
		},
		"/listed?topic=a": {
			"": true, own: true, "https://app.example.com": true, "http://app.example.com": false, "https://app.example.com:444": false,
			"https://x.app.example.com": false, "null": false, "HTTPS://APP.EXAMPLE.COM": false,
		},
		"/any?topic=a": {"": true, "https://evil.example": true, "null": true},
	} {
		for origin, may := range origins {
			with := []e2etest.Option{e2etest.Header("Origin", origin)}
			if origin == "" {
				with = nil
			}
			answer := post(t, s.url(path), "text/plain", "x", with...)
			if !may {
				wantRefusal(t, answer, http.StatusForbidden, "cors_origins")
				continue
			}
			if answer.Status != http.StatusOK {
				t.Fatalf("%s with Origin %q is answered %d %s", path, origin, answer.Status, answer.Body)
			}
			stream.Expect(t, "x")
		}
	}
	// A page of another site does not know the token.
	publish(t, s.url("/token?topic=a"), "x", bearer("secret"), e2etest.Header("Origin", "https://other.example"))
	stream.Expect(t, "x")
	stream.wantNothing(t)
}
