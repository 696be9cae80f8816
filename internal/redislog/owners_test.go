package redislog

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// ownerOfC is the key of the owner of the client_id "c".
const ownerOfC = "{sse:default}:owner:c"

// clientC is the address of the client_id "c".
var clientC = []hub.Address{{Kind: hub.ToClient, Name: "c"}}

// tryClaim enters a client as a route does: it asks for the owner of the client_id first.
func (i *instance) tryClaim(clientID, user string) (*reader, error) {
	s := hubtest.As(clientID, user)
	i.log.Claim(i.t.Context(), &s)
	if owner, _ := i.Owner(clientID); owner != "" && owner != user {
		return nil, hub.ErrClientIDOwned // as Join would say
	}
	return i.subscribe(s), nil
}

// claim is tryClaim that must succeed.
func (i *instance) claim(clientID, user string) *reader {
	i.t.Helper()
	r, err := i.tryClaim(clientID, user)
	if err != nil {
		i.t.Fatalf("%q can't have %s: %v", user, clientID, err)
	}
	return r
}

// wantOwned checks that a user does not get the client_id "c".
func (i *instance) wantOwned(user string) {
	i.t.Helper()
	if _, err := i.tryClaim("c", user); !errors.Is(err, hub.ErrClientIDOwned) {
		i.t.Errorf("user %q got another's client_id: %v", user, err)
	}
}

// awaitFree returns when a user gets the client_id "c".
func (i *instance) awaitFree(user string) (r *reader) {
	i.t.Helper()
	e2etest.Await(i.t, "a client_id to be free", func() (free bool) {
		var err error
		r, err = i.tryClaim("c", user)
		return err == nil
	})
	return r
}

func TestUnusedClientIDGoesToTheNextUser(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	a, b := start(t, server.URL()), start(t, server.URL())
	client := admin(t, server.URL())
	alice := a.claim("c", "alice")
	e2etest.Await(t, "presence to be believed", func() bool { _, all := b.log.presence.known(); return all })
	awaitPresence(a, b)
	e2etest.Await(t, "the claim to be old", func() bool {
		ttl, _ := ownerTimes(hubtest.Plenty.History)
		return client.PTTL(t.Context(), ownerOfC).Val() < ttl-presenceSettles
	})
	b.wantOwned("bob") // alice is still there
	b.wantOwned("")
	alice.leave()
	bob := b.awaitFree("bob")
	a.wantOwned("alice")
	if owner := client.Get(t.Context(), ownerOfC).Val(); owner != "bob" {
		t.Errorf("the key says %q", owner)
	}
	bob.leave()
	a.awaitFree("").leave()
	if n := client.Exists(t.Context(), ownerOfC).Val(); n != 0 {
		t.Error("a key is left of a client_id without an owner")
	}
}

func TestClientIDKeepsItsOwnerWhileMessagesAreKept(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	short := func(i *instance) {
		i.Apply(hub.Limits{History: hub.HistoryLimits{Count: 100, Age: 14 * time.Second}})
	}
	a, b := launch(t, newOptions(t, server.URL()), short), launch(t, newOptions(t, server.URL()), short)
	for _, i := range []*instance{a, b} {
		i.awaitReady()
		i.awaitUp()
	}
	awaitPresence(a, b)
	a.claim("c", "alice").leave()
	published := time.Now()
	b.publish("secret", clientC...)
	for time.Since(published) < 6*time.Second {
		b.wantOwned("bob")
		b.wantOwned("")
		time.Sleep(100 * time.Millisecond) // the interval of the attempts
	}
	if ttl := client.PTTL(t.Context(), ownerOfC).Val(); ttl <= 2*time.Second || ttl > time.Hour {
		t.Errorf("the key lives for another %v", ttl)
	}
	hubtest.Want(t, b.awaitFree("bob").texts())
}

// An older instance may keep messages that the log has dropped, for a client_id that is not in use.
func TestClientIDKeepsItsOwnerWhileOthersMayKeepMessages(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	kept := launch(t, newOptions(t, server.URL()), func(i *instance) {
		i.Apply(hub.Limits{History: hub.HistoryLimits{Count: 100, Age: time.Hour}})
	})
	kept.awaitUp()
	kept.claim("c", "alice").leave()
	kept.publish("secret", clientC...)
	kept.publish("other", hub.Topics("a")...)
	do(t, client, "XTRIM "+defaultLog+" MAXLEN 1")
	later := launch(t, newOptions(t, server.URL()), func(i *instance) {
		i.Apply(hub.Limits{History: hub.HistoryLimits{Count: 100, Age: time.Hour}})
	})
	later.awaitUp()
	e2etest.Await(t, "presence to be believed", func() bool { _, all := later.log.presence.known(); return all })
	do(t, client, "PEXPIRE "+ownerOfC+" 600000") // as after an old claim
	later.wantOwned("bob")
	if owner := client.Get(t.Context(), ownerOfC).Val(); owner != "alice" {
		t.Errorf("the key says %q", owner)
	}
}

func TestNewInstanceLearnsOwners(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	a := start(t, server.URL())
	a.claim("c", "alice").leave()
	a.publish("secret", clientC...)
	a.stop()
	b := start(t, server.URL())
	b.wantOwned("bob")
	c := start(t, server.URL())
	e2etest.Await(t, "an instance to learn the owner of what it keeps", func() bool {
		user, _ := c.Owner("c")
		return user == "alice"
	})
	server.Kill()
	e2etest.Await(t, "the instance to notice", func() bool { return !c.LogUp() })
	c.wantOwned("bob")
	c.claim("c", "alice")
}

func TestOwnersComeBackAfterAFlush(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, server.URL())
	for n := range 3 * ownersChunk / 2 {
		a.claim(fmt.Sprint("c", n), "alice")
	}
	a.claim("c", "alice")
	do(t, client, "FLUSHALL")
	e2etest.Await(t, "the keys to be set again", func() bool {
		return len(client.Keys(t.Context(), "{sse:default}:owner:*").Val()) == 3*ownersChunk/2+1
	})
	b.wantOwned("bob")
}

func TestClaimDisconnectsClientsOnOtherInstances(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	a, b := start(t, server.URL()), start(t, server.URL())
	awaitSubscribed(t, admin(t, server.URL()), "{sse:default}:kick", 2)
	stranger, other := b.claim("c", ""), b.claim("d", "")
	alice := a.claim("c", "alice")
	<-stranger.done
	b.wantOwned("")
	a.publish("for alice", clientC...)
	alice.awaitText("for alice")
	hubtest.Want(t, stranger.texts())
	select {
	case <-other.done:
		t.Error("another client was cut")
	default:
	}
}

func TestInstanceLearnsAClaimThatItDidNotHear(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	proxy := e2etest.NewProxy(t, server.Addr())
	client := admin(t, server.URL())
	a, b := start(t, server.URL()), start(t, proxy.URL())
	stranger := b.claim("c", "")
	proxy.Cut()
	a.claim("c", "alice")
	proxy.Heal()
	<-stranger.done
	b.wantOwned("")

	awaitSubscribed(t, client, "{sse:default}:kick", 2)
	other := b.claim("d", "")
	do(t, client, "SET {sse:default}:owner:d alice") // as after a claim that nobody heard
	do(t, client, "CLIENT KILL TYPE pubsub")
	<-other.done
}

func TestClaimIsBoundedInTimeWhileRedisHangs(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	a := start(t, server.URL(), withTimeout(300*time.Millisecond))
	a.claim("c", "alice")
	server.Freeze()
	began := time.Now()
	a.claim("d", "bob")
	a.wantOwned("bob")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	e2etest.Await(t, "the instance to notice", func() bool { return !a.LogUp() })
	began = time.Now()
	for n := range 50 {
		a.claim(fmt.Sprint("e", n), "bob")
	}
	if took := time.Since(began); took > 300*time.Millisecond*50/3 {
		t.Errorf("fifty clients waited %v for a Redis that is known to be away", took)
	}
}

func TestRedisIsNotAskedAboutGeneratedClientIDs(t *testing.T) {
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a := start(t, server.URL())
	s := hubtest.As("c", "")
	s.Generated = true
	asked := callsOf(t, client, "eval") + callsOf(t, client, "evalsha")
	a.log.Claim(t.Context(), &s)
	if n := callsOf(t, client, "eval") + callsOf(t, client, "evalsha") - asked; n != 0 {
		t.Errorf("it was asked %d times", n)
	}
	s.User = "alice"
	a.log.Claim(t.Context(), &s)
	a.subscribe(s)
	if owner := client.Get(t.Context(), ownerOfC).Val(); owner != "alice" {
		t.Errorf("the owner is %q", owner)
	}
}

func TestOwnerKeysOutliveMessagesAndAreRenewedInTime(t *testing.T) {
	for _, age := range []time.Duration{0, time.Second, time.Hour, 1000 * time.Hour} {
		ttl, every := ownerTimes(hub.HistoryLimits{Age: age})
		if ttl < age+2*every || every <= 0 || ttl <= presenceSettles {
			t.Errorf("with messages of %v the keys live for %v and are renewed every %v", age, ttl, every)
		}
	}
}

func TestMalformedLastEntryDoesNotBlockAClientID(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	a := start(t, server.URL())
	a.claim("c", "alice").leave()
	client.XAdd(t.Context(), &redis.XAddArgs{Stream: defaultLog, Values: []string{"nonsense", "x"}})
	e2etest.Await(t, "the entry to be read", func() bool { return a.malformed() == 1 })
	a.awaitFree("bob")
}

func TestClusterKeepsOwnersInTheHubsSlot(t *testing.T) {
	t.Parallel()
	cluster := e2etest.RedisCluster(t)
	nodes := at(cluster.Addrs())
	a, b := start(t, "", nodes), start(t, "", nodes)
	alice := a.claim("c", "alice")
	b.wantOwned("bob")
	alice.leave()
	b.awaitFree("bob")
	a.wantOwned("alice")
}

func TestAReleasedClientIDLeavesNoKeyUnlessItIsInUse(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	a, b := start(t, server.URL()), start(t, server.URL())
	client := admin(t, server.URL())
	claim := func(i *instance, clientID string) *reader {
		s := hubtest.As(clientID, "alice")
		s.Generated = true
		i.log.Claim(t.Context(), &s)
		return i.subscribe(s)
	}
	for _, id := range []string{"left", "kept", "here"} {
		r := claim(a, id)
		if id == "kept" {
			a.publish("secret", hub.Address{Kind: hub.ToClient, Name: id})
		}
		if id != "here" {
			r.leave()
		}
	}
	claim(b, "elsewhere")
	claim(a, "back").leave()
	awaitPresence(a, b)
	refused := hubtest.As("refused", "alice")
	a.log.Claim(t.Context(), &refused)
	for _, id := range []string{"left", "kept", "here", "elsewhere", "back", "refused", "never"} {
		a.log.Release(id)
	}
	claim(b, "back")
	e2etest.Await(t, "the keys of what is not in use to be gone", func() bool {
		return client.Exists(t.Context(), "{sse:default}:owner:left", "{sse:default}:owner:refused").Val() == 0
	})
	for _, id := range []string{"kept", "here", "elsewhere", "back"} {
		if owner := client.Get(t.Context(), "{sse:default}:owner:"+id).Val(); owner != "alice" {
			t.Errorf("the key of %s, which is in use, says %q", id, owner)
		}
	}
}

func TestReleasesAreBounded(t *testing.T) {
	t.Parallel()
	var l Log
	for i := range maxReleases + 10 {
		if l.Release("a"); i == maxReleases/2 {
			l.releases.turn()
		}
	}
	due := l.releases.turn()
	l.releases.turn() // nobody makes room meanwhile
	l.releases.postpone(make([]string, maxReleases+len(due)))
	if n := len(l.releases.due) + len(l.releases.waiting); n != maxReleases {
		t.Errorf("%d client_ids wait", n)
	}
}
