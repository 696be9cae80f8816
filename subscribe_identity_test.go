package sse_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// withUsers puts Caddy's own authentication before the directives. Alice and Bob have the password
// "secret".
func withUsers(body string) string {
	const hash = "$2a$04$wUeMeUWuMYgRyPb5gweYhuswajyngdCXCId2FGPZHTpeT3pXERoIi"
	return `
		@users not path /anonymous
		basic_auth @users {
			alice ` + hash + `
			bob ` + hash + `
		}
		` + body
}

// As authenticates a request.
func As(user string) e2etest.Option {
	return e2etest.Header("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":secret")))
}

func TestClientIDIsTheOneAskedFor(t *testing.T) {
	s := serve(t, openRoute)
	for _, id := range []string{"x", "A-Za-z0-9._~-", strings.Repeat("a", 128)} {
		stream := e2etest.Subscribe(t, s.url("/events?client_id="+id))
		if got := stream.Connected(t).ClientID; got != id {
			t.Errorf("asked for %q, got %q", id, got)
		}
		publish(t, s.url("/events?client_id="+id), "for you")
		stream.Expect(t, "for you")
	}
}

func TestGeneratedClientIDHas128RandomBits(t *testing.T) {
	s := serve(t, openRoute)
	seen := make(map[string]bool)
	var differ [64]map[byte]bool
	for i := range 200 {
		path := "/events?client_id="
		if i%2 == 0 {
			path = "/events"
		}
		stream := e2etest.Subscribe(t, s.url(path))
		id := stream.Connected(t).ClientID
		stream.Close()
		if seen[id] {
			t.Fatalf("%q was generated twice", id)
		}
		seen[id] = true
		for j := range id {
			if differ[j] == nil {
				differ[j] = make(map[byte]bool)
			}
			differ[j][id[j]] = true
		}
	}
	bits := 0
	for _, values := range differ { // 200 samples show nearly all of up to 64 values
		for n := len(values); n > 1; n = (n + 1) / 2 {
			bits++
		}
	}
	if bits < 128 {
		t.Errorf("the IDs have about %d bits", bits)
	}
}

func TestClientIDMayComeFromAnyPlaceholder(t *testing.T) {
	s := serve(t, `
		sse /events {
			client_id device-{header.X-Device}
		}`)
	stream := e2etest.Subscribe(t, s.url("/events?client_id=ignored"), e2etest.Header("X-Device", "7"))
	if id := stream.Connected(t).ClientID; id != "device-7" {
		t.Errorf("client_id is %q", id)
	}
	wantRefusal(t, get(t, s.url("/events"), e2etest.Header("X-Device", "a b")), http.StatusBadRequest, "client_id")
}

func TestSeveralConnectionsShareAClientID(t *testing.T) {
	s := serve(t, openRoute)
	tabs := []*e2etest.Stream{
		e2etest.Subscribe(t, s.url("/events?client_id=x")),
		e2etest.Subscribe(t, s.url("/events?client_id=x&topic=a")),
	}
	for _, tab := range tabs {
		tab.Connected(t)
	}
	if n := receivers(t, s.url("/events?client_id=x")); n != 2 {
		t.Errorf("two tabs are %d receivers", n)
	}
	for _, tab := range tabs {
		tab.Expect(t, "")
	}
}

func TestUserGetsMessagesOnEveryConnection(t *testing.T) {
	s := serve(t, withUsers(openRoute), withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		alice := []*e2etest.Stream{
			e2etest.Subscribe(t, p.url("/events?client_id=a1"), p.via, As("alice")),
			e2etest.Subscribe(t, p.url("/events"), p.via, As("alice")),
		}
		bob := e2etest.Subscribe(t, p.url("/events"), p.via, As("bob"))
		for _, stream := range append(alice, bob) {
			stream.Connected(t)
		}
		publish(t, p.url("/events?user=alice"), "for alice", As("bob"))
		publish(t, p.url("/events?user=bob"), "for bob", As("alice"))
		for _, stream := range alice {
			stream.Expect(t, "for alice")
		}
		bob.Expect(t, "for bob")
	})
}

func TestUserMayComeFromAnotherPlaceholder(t *testing.T) {
	s := serve(t, openRoute+`
		sse /proxied {
			user {header.X-User}
		}`)
	stream := e2etest.Subscribe(t, s.url("/proxied"), e2etest.Header("X-User", "jürgen m"))
	stream.Connected(t)
	publish(t, s.url("/events?user=j%C3%BCrgen+m"), "hello")
	stream.Expect(t, "hello")
}

func TestClientIDOfAUserIsRefusedToOthers(t *testing.T) {
	s := serve(t, withUsers(openRoute+`
		sse /anonymous {
			publish {
				open
			}
		}`), withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		id := "id" + strings.ReplaceAll(p.name, " ", "")
		query := "?client_id=" + id
		alice := e2etest.Subscribe(t, p.url("/events"+query), p.via, As("alice"))
		start := alice.Connected(t)
		e2etest.Subscribe(t, p.url("/events"+query), p.via, As("alice")).Connected(t) // another tab
		for who, answer := range map[string]e2etest.Answer{
			"bob":    get(t, p.url("/events"+query), As("bob"), p.via),
			"nobody": get(t, p.url("/anonymous"+query), p.via),
		} {
			r := wantRefusal(t, answer, http.StatusForbidden, "client_id")
			if strings.Contains(r.Detail, "alice") {
				t.Errorf("%s is told whose it is: %s", who, r.Detail)
			}
		}
		// It stays hers while messages for it are kept.
		publish(t, p.url("/anonymous"+query), "kept")
		alice.Expect(t, "kept")
		alice.Close()
		wantRefusal(t, get(t, p.url("/events"+query), As("bob"), p.via), http.StatusForbidden)
		if head := e2etest.Send(t, http.MethodHead, p.url("/events"+query), "", As("bob"), p.via); head.Status != http.StatusForbidden {
			t.Errorf("HEAD is answered %d", head.Status)
		}
		again := e2etest.Subscribe(t, p.url("/events"+query), p.via, As("alice"), e2etest.LastEventID(start.ID))
		again.Expect(t, "kept")
	})
}

func TestUserTakesOverTheClientIDOfAnAnonymous(t *testing.T) {
	s := serve(t, withUsers(openRoute+"\nsse /anonymous"))
	anonymous := e2etest.Subscribe(t, s.url("/anonymous?client_id=x"))
	anonymous.Connected(t)
	alice := e2etest.Subscribe(t, s.url("/events?client_id=x"), As("alice"))
	alice.Connected(t)
	if err := anonymous.Ended(patience); err == e2etest.ErrTimeout {
		t.Error("the anonymous client stays")
	}
	wantRefusal(t, get(t, s.url("/anonymous?client_id=x")), http.StatusForbidden)
}
