package sse_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// What issuers write in several ways is read in all of them.
func TestClaimsMayBeWrittenInSeveralWays(t *testing.T) {
	setSecrets(t)
	s := serveOnce(t, jwtRoute)
	later := time.Now().Add(time.Hour).Unix()
	for _, claims := range []string{
		`"sub":42,"exp":%d`, `"sub":"42","exp":"%d"`, `"sub":42,"exp":%d.5`, `"sub":42,"exp":"%d.25"`,
		`"sub":42,"nbf":"1000000000","iat":"1000000000.5","exp":%d`,
	} {
		token := signed(`{` + fmt.Sprintf(claims, later) + `,"sse":{"subscribe":["news"]}}`)
		stream := e2etest.Subscribe(t, s.url("/events?topic=news"), bearer(token))
		stream.Connected(t)
		if n := publish(t, s.url("/events?user=42"), "x", bearer(publishSecret)).Receivers; n != 1.0 {
			t.Errorf("%s: user 42 has %v clients", claims, n)
		}
		stream.Close()
		eventually(t, patience, "the client is gone", func() bool {
			return publish(t, s.url("/events?user=42&ephemeral"), "", bearer(publishSecret)).Receivers == 0.0
		})
	}
}

const cookieRoute = `
	sse /events {
		cors_origins https://listed.example
		jwt {
			` + hsKey + `
			cookie session
			query token
		}
		publish {
		}
	}`

// A browser sends one cookie for each domain and path that has set it. Any of them may be the right one.
func TestAllCookiesOfTheNameAreTried(t *testing.T) {
	setSecrets(t)
	s := serveOnce(t, cookieRoute)
	good := granting("alice", list("news"), list("news"))
	old := grantingUntil(time.Now().Add(-time.Hour), "alice", list("news"), list("news"))
	for _, cookies := range []string{
		"session=" + old + "; session=" + good, "session=; session=garbage; other=1; session=" + good, "session=" + good + "; session=" + old,
	} {
		stream := e2etest.Subscribe(t, s.url("/events?topic=news"), e2etest.Header("Cookie", cookies))
		stream.Connected(t)
		publish(t, s.url("/events?topic=news"), "x", e2etest.Header("Cookie", cookies), origin("https://listed.example"))
		stream.Expect(t, "x")
		stream.Close()
	}
	answer := refusedGet(t, s.url("/events?topic=news"), e2etest.Header("Cookie", "session="+old+"; session=garbage"))
	wantRefusal(t, answer, http.StatusUnauthorized, "expired")
}

func TestAForeignPageMayNotChooseAClientIDByCookie(t *testing.T) {
	setSecrets(t)
	s := serveOnce(t, cookieRoute)
	token := granting("alice", list("news"), nil)
	for _, c := range []struct {
		origin  string
		refused bool
	}{
		{"https://evil.example", true},
		{"null", true},
		{"https://listed.example", false},
		{"https://listed.example:443", false},
		{s.url(""), false},
		{"", false},
	} {
		with := []e2etest.Option{cookie(token)}
		if c.origin != "" {
			with = append(with, origin(c.origin))
		}
		if c.refused {
			wantRefusal(t, refusedGet(t, s.url("/events?topic=news&client_id=x"), with...), http.StatusForbidden, c.origin, "client_id")
		} else {
			e2etest.Subscribe(t, s.url("/events?topic=news&client_id=x"), with...).Connected(t)
		}
		e2etest.Subscribe(t, s.url("/events?topic=news"), with...).Connected(t)                                        // a generated one
		e2etest.Subscribe(t, s.url("/events?topic=news&client_id=y"), append(with[1:], bearer(token))...).Connected(t) // not by cookie
		e2etest.Subscribe(t, s.url("/events?topic=news&client_id=y&token="+token), with[1:]...).Connected(t)           // nor so
	}
}

func TestOriginsAreComparedWithTheirDefaultPorts(t *testing.T) {
	s := serveOnce(t, `
		sse /open {
			publish {
				open
			}
		}
		sse /listed {
			cors_origins https://app.example https://other.example:443 http://[::1]:3000 http://plain.example:80 capacitor://localhost chrome-extension://abc
			publish {
				open
			}
		}`)
	for _, c := range []struct {
		path, host, origin string
		may                bool
	}{
		{"/open", "127.0.0.1", "http://127.0.0.1", true},
		{"/open", "127.0.0.1:80", "http://127.0.0.1", true},
		{"/open", "127.0.0.1", "http://127.0.0.1:80", true},
		{"/open", "127.0.0.1:443", "https://127.0.0.1", true}, // behind a proxy that ends TLS
		{"/open", "127.0.0.1:443", "http://127.0.0.1", false},
		{"/open", "127.0.0.1:80", "https://127.0.0.1", false},
		{"/open", "127.0.0.1:8080", "http://127.0.0.1", false},
		{"/open", "127.0.0.1", "capacitor://127.0.0.1", false},
		{"/listed", "127.0.0.1", "https://app.example", true},
		{"/listed", "127.0.0.1", "https://app.example:443", true},
		{"/listed", "127.0.0.1", "https://app.example:80", false},
		{"/listed", "127.0.0.1", "http://app.example:443", false},
		{"/listed", "127.0.0.1", "https://other.example", true},
		{"/listed", "127.0.0.1", "http://plain.example", true},
		{"/listed", "127.0.0.1", "http://[::1]:3000", true},
		{"/listed", "127.0.0.1", "http://[::1]", false},
		{"/listed", "127.0.0.1", "capacitor://localhost", true},
		{"/listed", "127.0.0.1", "ionic://localhost", false},
		{"/listed", "127.0.0.1", "chrome-extension://abc", true},
		{"/listed", "127.0.0.1", "chrome-extension://abd", false},
	} {
		answer := sendRaw(t, s, "POST", c.path+"?topic=a", "Host: "+c.host, "Origin: "+c.origin)
		if may := answer.Status == http.StatusOK; may != c.may {
			t.Errorf("%s on %s%s is answered %d %s", c.origin, c.host, c.path, answer.Status, answer.Body)
		}
		if c.path == "/listed" && (answer.Header.Get("Access-Control-Allow-Origin") == c.origin) != c.may {
			t.Errorf("%s gets %v", c.origin, answer.Header)
		}
	}
}

func TestPreflightLetsTracingAndHTMXThrough(t *testing.T) {
	s := corsSite(t)
	answer := e2etest.Send(t, http.MethodOptions, s.url("/listed"), "", origin(page), e2etest.Header("Access-Control-Request-Method", "POST"))
	var allowed []string
	for name := range strings.SplitSeq(answer.Header.Get("Access-Control-Allow-Headers"), ",") {
		allowed = append(allowed, strings.ToLower(strings.TrimSpace(name)))
	}
	for name := range strings.FieldsSeq("traceparent tracestate baggage sentry-trace hx-request hx-current-url hx-target hx-trigger " +
		"x-requested-with x-datadog-trace-id content-encoding") {
		if !strings.Contains(strings.Join(allowed, " "), name) {
			t.Errorf("%s is not allowed", name)
		}
	}
	for _, name := range allowed {
		if name == "*" || strings.HasPrefix(name, "remote-") || strings.HasPrefix(name, "x-forwarded") {
			t.Errorf("%s is allowed, which guards may believe", name)
		}
	}
}

// A guard in front has read another path than we do, where a path is not clean.
func TestPathsThatAreNotCleanNameNothing(t *testing.T) {
	s := serveOnce(t, `
		sse /room/* {
			topics room/{path.1}
			publish {
				open
			}
		}
		sse /regexp/* {
			topics {re.room.1}
		}
		handle_path /app/* {
			sse /user/* {
				user {path.1}
			}
			sse /client/* {
				client_id {path.1}
			}
			sse /plain*
		}`)
	for _, path := range []string{
		"/room//a", "/room/./a", "/room/x/../a", "/room/%2e/a", "/room/x/%2E%2e/a", "/room/a/", "/room/a%2F..%2Fb", "/room/a/%2f",
		"/app/user//a", "/app/user/x/../a", "/app/client/a/", "//app/client/a", "/x/../app/client/a",
	} {
		wantRefusal(t, sendRaw(t, s, "GET", path), http.StatusBadRequest, "path", "segment")
		if strings.HasPrefix(path, "/room") {
			wantRefusal(t, sendRaw(t, s, "POST", path), http.StatusBadRequest, "path", "segment")
		}
	}
	for _, path := range []string{"/room/a", "/room/a.b", "/room/...", "/room/%61", "/app/user/a", "/app/plain//?topic=a", "/app/plain/..%2fplain?topic=a"} {
		if answer := sendRaw(t, s, "HEAD", path); answer.Status != http.StatusOK {
			t.Errorf("%s is answered %d", path, answer.Status)
		}
	}
}

// A placeholder that is a part of a topic stands for one segment; alone, it may be several.
func TestSlashesOfAPlaceholderOpenNoOtherTopic(t *testing.T) {
	s := serveOnce(t, `
		sse /part {
			topics room/{query.room}
			publish {
				open
			}
		}
		sse /alone {
			topics {query.room}
		}`)
	for _, room := range []string{"a/b", "a/", "/", "/a", "a%2Fb"} {
		wantRefusal(t, get(t, s.url("/part?room="+room)), http.StatusBadRequest, "/", "one segment")
		wantRefusal(t, post(t, s.url("/part?room="+room), "", "x"), http.StatusBadRequest, "one segment")
	}
	stream := e2etest.Subscribe(t, s.url("/alone?room=room/a"))
	stream.Connected(t)
	publish(t, s.url("/part?room=a"), "x")
	stream.Expect(t, "x")
}

// Refused requests are logged with their reason, at debug, and hold no token and no data.
func TestRefusedRequestsAreLoggedWithTheirReason(t *testing.T) {
	setSecrets(t)
	s := serveLogged(t, jwtRoute)
	theirs := compact(`{"alg":"HS256"}`, `{"sub":"x"}`, withHMAC("guessed-secret-0123456789-0123456789"))
	refusedGet(t, s.url("/events?topic=news"))
	refusedGet(t, s.url("/events?topic=news"), bearer(theirs))
	refusedGet(t, s.url("/events?topic=news"), bearer(granting("alice", list("sports"), nil)))
	refusedGet(t, s.url("/events?topics=news"))
	post(t, s.url("/events?topic=news"), "", "payload-payload", bearer("no-such-token-no-such-token"))
	post(t, s.url("/events"), jsonType, `{"topic":"news","data":"payload-payload","retry":5}`, bearer(publishSecret))
	log, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{
		`"status":401|topic \"news\" needs a token`, `"status":401|not signed with a key`, `"status":403|does not grant subscribing`,
		`"status":400|write topic`, `"method":"POST"|"status":401`, `"method":"POST"|"status":400|from 100 to 60000`,
	} {
		found := false
		for line := range strings.Lines(string(log)) {
			has := strings.Contains(line, `"level":"debug"`) && strings.Contains(line, "request refused") && strings.Contains(line, `"remote":"127.0.0.1:`)
			for word := range strings.SplitSeq(words, "|") {
				has = has && strings.Contains(line, word)
			}
			found = found || has
		}
		if !found {
			t.Errorf("no line has %s", words)
		}
	}
	s.wantNowhere(theirs, "payload-payload", "no-such-token-no-such-token", publishSecret, tokenSecret)
}

// sendRaw sends a request whose path no client has tidied up.
func sendRaw(t *testing.T, s *site, method, path string, headers ...string) e2etest.Answer {
	t.Helper()
	return e2etest.SendRaw(t, fmt.Sprintf("127.0.0.1:%d", s.port), method, path, "", headers...)
}
