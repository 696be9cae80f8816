package sse_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestSubjectOfATokenIsTheUser(t *testing.T) {
	setSecrets(t)
	s := serve(t, jwtRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for _, user := range []string{"alice", "jürgen ☃", "org/team:7", "*", "a@example.org"} {
			tabs := []*e2etest.Stream{
				e2etest.Subscribe(t, p.url("/events"), p.via, bearer(granting(user, nil, nil))),
				e2etest.Subscribe(t, p.url("/events?topic=a"), p.via, bearer(granting(user, list("a"), nil))),
			}
			stranger := e2etest.Subscribe(t, p.url("/events"), p.via, bearer(granting("x"+user, nil, nil)))
			nobody := e2etest.Subscribe(t, p.url("/events"), p.via, bearer(granting("", nil, nil)))
			for _, stream := range append(tabs, stranger, nobody) {
				stream.Connected(t)
			}
			publish(t, p.url("/events?user="+url.QueryEscape(user)), "yours", p.via, bearer(publishSecret))
			publish(t, p.url("/events?broadcast"), "end", p.via, bearer(publishSecret))
			for _, tab := range tabs {
				tab.Expect(t, "yours")
			}
			for _, stream := range append(tabs, stranger, nobody) {
				stream.Expect(t, "end")
				stream.Close()
			}
		}
	})
}

func TestClientIDBelongsToATokensUserWhileMessagesAreKept(t *testing.T) {
	setSecrets(t)
	s := serve(t, jwtRoute, globals("sse {\nhistory 10 20s\n}\n"))
	alice, bob := granting("alice", list("a"), nil), granting("bob", list("a"), nil)
	const path = "/events?client_id=x&topic=public"
	wantOthersRefused := func(when string) {
		t.Helper()
		for who, options := range map[string][]e2etest.Option{
			"bob": With(bearer(bob)), "nobody": nil, "a token without user": With(bearer(granting("", nil, nil))),
		} {
			t.Run(when+", "+who, func(t *testing.T) {
				r := wantRefusal(t, refusedGet(t, s.url(path), options...), http.StatusForbidden, "belongs to another user")
				if strings.Contains(r.Detail, "alice") {
					t.Errorf("they are told whose it is: %s", r.Detail)
				}
			})
		}
	}
	stream := e2etest.Subscribe(t, s.url(path), bearer(alice))
	stream.Connected(t)
	e2etest.Subscribe(t, s.url(path), bearer(alice)).Close() // another tab that comes and goes
	wantOthersRefused("while she listens")
	publish(t, s.url("/events?client_id=x"), "kept", bearer(publishSecret))
	stream.Expect(t, "kept")
	stream.Close()
	wantOthersRefused("while a message is kept")
	if err := s.load(); err != nil {
		t.Fatal(err)
	}
	wantOthersRefused("after a reload")

	// Then it is anybody's, and the message is not.
	var now *e2etest.Stream
	eventually(t, 2*patience, "bob may have the client_id", func() bool {
		var err error
		now, err = e2etest.Open(t.Context(), s.url(path), bearer(bob), e2etest.LastEventID("x-1"))
		return err == nil
	})
	defer now.Close()
	publish(t, s.url("/events?broadcast"), "end", bearer(publishSecret))
	now.Expect(t, "end")
	wantRefusal(t, refusedGet(t, s.url(path), bearer(alice)), http.StatusForbidden)
}

// Caddy's own authentication says who somebody is where a token does not.
func TestSubjectGoesBeforeTheUserOfCaddysAuthentication(t *testing.T) {
	setSecrets(t)
	s := serve(t, withUsers(`
		sse /events {
			jwt {
				`+hsKey+`
				cookie session
				public public
			}
			publish {
				token {env.SSE_TEST_PUBLISH}
			}
		}
		sse /anonymous {
			publish {
				open
			}
		}`))
	for token, user := range map[string]string{
		granting("carol", list("a"), nil): "carol",
		granting("", list("a"), nil):      "alice",
	} {
		stream := e2etest.Subscribe(t, s.url("/events?topic=a"), As("alice"), cookie(token))
		stream.Connected(t)
		publish(t, s.url("/anonymous?user="+user), "for "+user)
		stream.Expect(t, "for "+user)
	}
	public := e2etest.Subscribe(t, s.url("/events?topic=public"), As("alice"))
	public.Connected(t)
	publish(t, s.url("/anonymous?user=alice"), "for alice")
	public.Expect(t, "for alice")
	wantRefusal(t, refusedGet(t, s.url("/events?topic=a"), As("alice")), http.StatusUnauthorized, "needs a token")
}

// gate answers for forward_auth: who knows a session's name is its user. It says so in Remote-User, and in
// Remote-Team if the user has one.
func gate(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.ContentLength > 0 {
			t.Errorf("asked by %s with %d bytes", r.Method, r.ContentLength)
		}
		session, err := r.Cookie("session")
		if err != nil {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Remote-User", session.Value)
		if session.Value == "alice" {
			w.Header().Set("Remote-Team", "red")
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestUserOfForwardAuthCanNotBeForged(t *testing.T) {
	s := serve(t, `
		forward_auth /events `+gate(t)+` {
			uri /verify
			copy_headers Remote-User Remote-Team
		}
		sse /events {
			user {header.Remote-User}
			topics news team/{header.Remote-Team}
			publish {
				open
			}
		}
		sse /backend {
			publish {
				open
			}
		}`, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		forged := With(p.via,
			e2etest.Header("Remote-User", "bob"), e2etest.Header("Remote-Team", "blue"),
			e2etest.Header("remote_user", "bob"), e2etest.Header("X-Forwarded-User", "bob"))
		alice := e2etest.Subscribe(t, p.url("/events"), append(forged, cookie("alice"))...)
		carol := e2etest.Subscribe(t, p.url("/events"), append(forged, cookie("carol"))...) // has no team
		alice.Connected(t)
		carol.Connected(t)
		for target, want := range map[string]float64{
			"user=bob": 0, "user=alice": 1, "user=carol": 1, "topic=team/blue": 0, "topic=team/": 0, "topic=team/red": 1, "topic=news": 2,
		} {
			if n := publish(t, p.url("/backend?"+target), target, p.via).Receivers; n != want {
				t.Errorf("%s reaches %v, want %v", target, n, want)
			}
		}
		answer := refusedGet(t, p.url("/events"), forged...)
		if answer.Status != http.StatusUnauthorized || !strings.Contains(answer.Body, "sign in first") {
			t.Errorf("answered %d: %s", answer.Status, answer.Body)
		}
		if answer := post(t, p.url("/events?topic=news"), "", "forged", forged...); answer.Status != http.StatusUnauthorized {
			t.Errorf("POST answered %d: %s", answer.Status, answer.Body)
		}
		alice.Close()
		carol.Close()
		eventually(t, patience, "both are gone", func() bool {
			return receivers(t, s.url("/backend?broadcast&ephemeral")) == 0
		})
	})
}

func TestUserThatNobodyCouldAddressIsRefused(t *testing.T) {
	s := serve(t, `
		sse /events {
			user {header.X-User}
		}`)
	for _, user := range []string{strings.Repeat("a", 257), "a\tb", "a\xffb"} {
		wantRefusal(t, refusedGet(t, s.url("/events"), e2etest.Header("X-User", user)), http.StatusBadRequest, "user must be")
	}
	e2etest.Subscribe(t, s.url("/events"), e2etest.Header("X-User", strings.Repeat("a", 256))).Connected(t)
}

func TestLimitPerAddressSeesThroughTrustedProxiesOnly(t *testing.T) {
	const route = `
		sse /events {
			max_clients_per_ip 2
			publish {
				open
			}
		}`
	from := func(address string) e2etest.Option { return e2etest.Header("X-Forwarded-For", address) }
	s := serve(t, route, globals("servers {\ntrusted_proxies static 127.0.0.1/32\n}\n"))
	for _, address := range []string{"192.0.2.1", "192.0.2.2", "2001:db8:1:1::1", "2001:db8:1:2::1"} {
		for range 2 {
			e2etest.Subscribe(t, s.url("/events"), from(address)).Connected(t)
		}
		answer := refusedGet(t, s.url("/events"), from(address))
		r := wantRefusal(t, answer, http.StatusTooManyRequests, "address")
		if r.Title != "Too many connections" || answer.Header.Get("Retry-After") == "" {
			t.Errorf("the answer is %s, Retry-After %q", answer.Body, answer.Header.Get("Retry-After"))
		}
	}
	// An IPv6 host commands its whole /64.
	wantRefusal(t, refusedGet(t, s.url("/events"), from("2001:db8:1:1:ffff::2")), http.StatusTooManyRequests)
	s.stop()

	s = serve(t, route)
	for i := range 2 {
		e2etest.Subscribe(t, s.url("/events"), from([]string{"192.0.2.1", "192.0.2.2"}[i])).Connected(t)
	}
	wantRefusal(t, refusedGet(t, s.url("/events"), from("192.0.2.3")), http.StatusTooManyRequests)
}

func TestForwardAuthLeavesTheBodyOfAPostAlone(t *testing.T) {
	s := serve(t, `
		forward_auth /events `+gate(t)+` {
			uri /verify
			copy_headers Remote-User
		}
		sse /events {
			user {header.Remote-User}
			publish {
				open
			}
		}`)
	stream := e2etest.Subscribe(t, s.url("/events?topic=a"), cookie("alice"))
	stream.Connected(t)
	reader, writer := io.Pipe()
	request, err := http.NewRequest(http.MethodPost, s.url("/events?topic=a"), reader)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "text/event-stream")
	request.Header.Set("Cookie", "session=alice")
	answered := make(chan error, 1)
	go func() {
		response, err := e2etest.H1(t).Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		answered <- err
	}()
	for _, text := range []string{"one", "two", "three"} { // each arrives before the next is sent
		if _, err := io.WriteString(writer, "data: "+text+"\n\n"); err != nil {
			t.Fatal(err)
		}
		stream.Expect(t, text)
	}
	_ = writer.Close()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
