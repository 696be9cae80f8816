package e2e

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

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
	e2etest.NotAboutStreams(t)
	t.Parallel()
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

func TestAClientIDInRedisIsItsUsersOnAllInstances(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	redis := e2etest.RedisServer(t)
	site := userSite("redis " + redis.URL())
	one, two := e2etest.Start(t, site), e2etest.Start(t, site)
	for _, server := range []*e2etest.Server{one, two} {
		awaitHub(t, server, true)
	}
	stranger := e2etest.Subscribe(t, ownedURL(two, "r1", ""))
	stranger.Connected(t)
	alice := e2etest.Subscribe(t, ownedURL(one, "r1", "alice"))
	begin := alice.Connected(t).ID
	if err := stranger.Ended(10 * time.Second); errors.Is(err, e2etest.ErrTimeout) {
		t.Error("who listened there before, without being alice, stays")
	}
	wantOwned(t, two, "r1", "")
	e2etest.Publish(t, two.URL("/anonymous?client_id=r1"), "secret")
	alice.Expect(t, "secret")
	alice.Close()
	for _, server := range []*e2etest.Server{one, two} {
		wantOwned(t, server, "r1", begin)
		wantKept(t, server, "r1", "alice", begin, "secret")
	}
	one.Kill()
	two.Kill()
	two.Restart()
	awaitHub(t, two, true)
	wantOwned(t, two, "r1", begin)
	wantKept(t, two, "r1", "alice", begin, "secret")
}

func TestOfTwoUsersWhoClaimAClientIDOnTwoInstancesOneIsRefused(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	redis := e2etest.RedisServer(t)
	site := userSite("redis " + redis.URL())
	servers := []*e2etest.Server{e2etest.Start(t, site), e2etest.Start(t, site)}
	for _, server := range servers {
		awaitHub(t, server, true)
	}
	for i := range 30 {
		clientID := "r" + strings.Repeat("x", i)
		var claims sync.WaitGroup
		streams, errs := make([]*e2etest.Stream, 2), make([]error, 2)
		for n, user := range []string{"alice", "bob"} {
			claims.Go(func() { streams[n], errs[n] = e2etest.Open(t.Context(), ownedURL(servers[n], clientID, user)) })
		}
		claims.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("alice got %v, bob %v", errs[0], errs[1])
		}
		for n, stream := range streams {
			var refused *e2etest.Refused
			switch {
			case stream == nil && (!errors.As(errs[n], &refused) || refused.Status != http.StatusForbidden):
				t.Errorf("one is refused with %v", errs[n])
			case stream != nil:
				stream.Connected(t)
				stream.Close()
			}
		}
	}
}

func TestClientsConnectAndKnownOwnersHoldWhileRedisIsDown(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	redis := e2etest.RedisServer(t, "--appendonly", "yes")
	site := userSite("redis " + redis.URL())
	one, two := e2etest.Start(t, site), e2etest.Start(t, site)
	for _, server := range []*e2etest.Server{one, two} {
		awaitHub(t, server, true)
	}
	alice := e2etest.Subscribe(t, ownedURL(one, "r1", "alice"))
	alice.Connected(t)
	redis.Kill()
	for _, server := range []*e2etest.Server{one, two} {
		awaitHub(t, server, false)
	}
	wantOwned(t, one, "r1", "")
	var bob *e2etest.Stream
	e2etest.Await(t, "the other to let bob in, of whom it can't know better", func() (in bool) {
		var err error
		bob, err = e2etest.Open(t.Context(), ownedURL(two, "r1", "bob"))
		return err == nil
	})
	defer bob.Close()
	redis.Restart()
	for _, server := range []*e2etest.Server{one, two} {
		awaitHub(t, server, true)
	}
	if err := bob.Ended(10 * time.Second); errors.Is(err, e2etest.ErrTimeout) {
		t.Error("bob keeps alice's client_id")
	}
	wantOwned(t, two, "r1", "")
	e2etest.Publish(t, two.URL("/anonymous?client_id=r1"), "for alice")
	alice.Expect(t, "for alice")
}

// awaitHub returns when the default hub's broker is in reach, or no longer is.
func awaitHub(t *testing.T, server *e2etest.Server, up bool) {
	t.Helper()
	e2etest.Await(t, "the broker's state", func() bool { return hubs(t, server)["default"].Up == up })
}

func TestGeneratedClientIDsLeaveNothingInRedis(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	log := e2etest.RedisServer(t)
	client := redis.NewClient(&redis.Options{Addr: log.Addr()})
	t.Cleanup(func() { client.Close() })
	server := e2etest.Start(t, userSite("redis "+log.URL()))
	owners := func() []string { return client.Keys(t.Context(), "*:owner:*").Val() }
	awaitBroker(t, server)
	var streams []*e2etest.Stream
	for range 20 {
		stream := e2etest.Subscribe(t, server.URL("/events?u=alice"))
		stream.Connected(t)
		streams = append(streams, stream)
	}
	if n := len(owners()); n != len(streams) {
		t.Errorf("%d client_ids have owners, want %d", n, len(streams))
	}
	for _, stream := range streams {
		stream.Close()
	}
	e2etest.Await(t, "the owners to be gone", func() bool { return len(owners()) == 0 })
}
