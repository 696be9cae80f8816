package e2e

import (
	"errors"
	"net/http"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// userSite is a site on whose routes everybody is who they say they are.
func userSite(broker string) string {
	return `
{
	sse {
		broker ` + broker + `
	}
}
http://127.0.0.1:{{port}} {
	sse /anonymous {
		publish {
			open
		}
	}
	sse /events {
		user {query.u}
	}
}
`
}

// ownedURL is where a user, or nobody, listens under a client_id.
func ownedURL(server *e2etest.Server, clientID, user string) string {
	if user == "" {
		return server.URL("/anonymous?client_id=" + clientID)
	}
	return server.URL("/events?client_id=" + clientID + "&u=" + user)
}

// wantOwned checks that others than its user are refused a client_id.
func wantOwned(t *testing.T, server *e2etest.Server, clientID, lastEventID string) {
	t.Helper()
	for _, user := range []string{"bob", ""} {
		stream, err := e2etest.Open(t.Context(), ownedURL(server, clientID, user), e2etest.LastEventID(lastEventID))
		if err == nil {
			stream.Close()
		}
		var refused *e2etest.Refused
		if !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
			t.Errorf("user %q of another's client_id got %v; want 403", user, err)
		}
	}
}

// wantKept checks that the user of a client_id has it, with what is kept.
func wantKept(t *testing.T, server *e2etest.Server, clientID, user, lastEventID, text string) {
	t.Helper()
	stream := e2etest.Subscribe(t, ownedURL(server, clientID, user), e2etest.LastEventID(lastEventID))
	defer stream.Close()
	if resume := stream.Connected(t).Resume; resume != "complete" {
		t.Errorf("%s resumes with %q", user, resume)
	}
	stream.Expect(t, text)
}

func TestAClientIDInAFileStaysItsUsersOverRestarts(t *testing.T) {
	server := e2etest.Start(t, userSite("bolt {{dir}}/hub.db"))
	alice := e2etest.Subscribe(t, ownedURL(server, "o1", "alice"))
	begin := alice.Connected(t).ID
	e2etest.Publish(t, server.URL("/anonymous?client_id=o1"), "secret")
	alice.Expect(t, "secret")
	alice.Close()
	for _, end := range []func(){server.Kill, server.Stop, server.Kill} {
		end()
		server.Restart()
		wantOwned(t, server, "o1", begin)
		wantKept(t, server, "o1", "alice", begin, "secret")
	}
}
