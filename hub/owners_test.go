package hub_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// wantRefused checks that somebody may not join.
func wantRefused(h *hubtest.Hub, s hub.Subscription, why error) {
	h.T.Helper()
	if err := h.Admits(s); !errors.Is(err, why) {
		h.T.Errorf("%q as %q would be refused with %v; want %v", s.ClientID, s.User, err, why)
	}
	if _, err := h.TryEnter(s); !errors.Is(err, why) {
		h.T.Errorf("%q as %q was refused with %v; want %v", s.ClientID, s.User, err, why)
	}
}

func TestAUsersClientIDIsRefusedToOthersWhileItIsConnected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		alice := h.Join(hubtest.As("c", "alice"))
		h.Join(hubtest.As("c", "alice")).Leave() // another tab
		for _, user := range []string{"", "bob"} {
			wantRefused(h, hubtest.As("c", user), hub.ErrClientIDOwned)
		}
		h.Join(hubtest.As("d", "bob"))
		alice.Leave() // nothing is left of it
		bob := h.Join(hubtest.As("c", "bob"))
		wantRefused(h, hubtest.As("c", "alice"), hub.ErrClientIDOwned)
		bob.Leave()
	})
}

func TestAUsersClientIDIsRefusedToOthersWhileMessagesAreKeptForIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 10, Age: time.Hour}})
		h.Join(hubtest.As("c", "alice")).Leave()
		h.Publish(to(hub.ToClient, "c"), "secret")
		hubtest.Pause(59 * time.Minute)
		for _, user := range []string{"", "bob"} {
			wantRefused(h, hubtest.As("c", user), hub.ErrClientIDOwned)
		}
		h.Join(hubtest.As("c", "alice")).Leave()
		hubtest.Pause(2 * time.Minute)
		h.Join(hubtest.As("c", "bob")).Want()
	})
}

// What is said to a user between a disconnect and the return must not become a stranger's, also when a sweep
// comes between.
func TestAClientIDOutlivesAShortAbsenceOfItsOwner(t *testing.T) {
	for _, absent := range []time.Duration{0, time.Second, hub.SweepInterval - time.Second} {
		bubble(t, func(t *testing.T) {
			h := hubtest.New(t, hubtest.Plenty)
			hubtest.Pause(30 * time.Second) // sweeps come at any time
			alice := h.Join(hubtest.As("c", "alice"))
			id := alice.Welcome.ID
			alice.Leave()
			hubtest.Pause(absent)
			m := &hub.Message{To: to(hub.ToClient, "c"), Data: []byte("secret"), Position: hub.Position{Major: 1}}
			if user := h.OwnerOf(m); user != "alice" {
				t.Errorf("%v after she left, alice's message is said to be %q's", absent, user)
			}
			h.Deliver(m)
			hubtest.Pause(2 * hub.SweepInterval)
			for _, user := range []string{"", "bob"} {
				wantRefused(h, hubtest.As("c", user), hub.ErrClientIDOwned)
			}
			h.Join(hubtest.Returning(hubtest.As("c", "alice"), id)).WantResume(hub.ResumeComplete, id, "secret")
		})
	}
}

func TestAFreedClientIDIsAnybodysAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Join(hubtest.As("c", "alice")).Leave()
		h.Join(hubtest.As("c", ""))
		h.Join(hubtest.As("c", "")) // a second tab of the same stranger
		bob := h.Join(hubtest.As("c", "bob"))
		wantRefused(h, hubtest.As("c", "alice"), hub.ErrClientIDOwned) // who had left
		bob.Leave()
	})
}

func TestAClaimCutsTheSquatterBeforeTheClaimantsFirstMessage(t *testing.T) {
	onShards(t, 4, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		var squatters []*hubtest.Client
		for range 8 { // of each shard two, the second of which is behind
			squatters = append(squatters, h.Join(hubtest.As("c", "")))
		}
		for _, c := range squatters[4:] {
			c.Block()
		}
		other := h.Join(hubtest.As("d", ""))
		h.Publish(to(hub.ToClient, "c"), "before")
		alice := h.Enter(hubtest.As("c", "alice")) // and at once:
		h.Publish(to(hub.ToClient, "c"), "for alice")
		h.Publish(to(hub.ToBroadcast, ""), "for all")
		alice.Open()
		for i, c := range squatters {
			c.Open()
			c.Want("before")
			hubtest.Want(t, []error{c.End(), c.Leave()}, hub.ErrClaimed, hub.ErrClaimed)
			if t.Failed() {
				t.Fatalf("squatter %d", i)
			}
		}
		other.Want("for all")
		alice.Want("for alice", "for all")
		hubtest.Want(t, []error{alice.End(), other.End()}, nil, nil)
		wantRefused(h, hubtest.As("c", ""), hub.ErrClientIDOwned)
	})
}

// The same while everything happens at once.
func TestNoSquatterGetsWhatIsSaidAfterAClaim(t *testing.T) {
	onShards(t, 3, func(t *testing.T) {
		for range 200 {
			h := hubtest.New(t, hubtest.Plenty)
			squatter := h.Join(hubtest.As("c", ""))
			noise := make(chan struct{})
			go func() {
				defer close(noise)
				for range 50 {
					h.PublishEphemeral(to(hub.ToClient, "c"), "noise")
				}
			}()
			alice := h.Enter(hubtest.As("c", "alice"))
			h.PublishEphemeral(to(hub.ToClient, "c"), "secret")
			<-noise
			for _, text := range squatter.Texts() {
				if text != "noise" {
					t.Fatalf("the squatter got %q", text)
				}
			}
			alice.Leave()
			h.Shut()
		}
	})
}

func TestAKickComesBeforeLaterMessages(t *testing.T) {
	onShards(t, 4, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		var clients []*hubtest.Client
		for range 8 {
			clients = append(clients, h.Join(hubtest.As("c", "alice")))
		}
		for _, c := range clients[4:] {
			c.Block()
		}
		other := h.Join(hubtest.As("d", "alice"))
		h.Publish(to(hub.ToUser, "alice"), "before")
		if n := h.Connections("c"); n != 8 {
			t.Errorf("it has %d connections; want 8", n)
		}
		if n := h.Kick("c"); n != 8 {
			t.Errorf("%d connections were closed; want 8", n)
		}
		h.Publish(to(hub.ToUser, "alice"), "after")
		for _, c := range clients {
			c.Open()
			c.Want("before", `closed {"status":"closed"}`)
			hubtest.Want(t, []error{c.End(), c.Leave()}, hub.ErrKicked, hub.ErrKicked)
		}
		other.Want("before", "after")
		hubtest.Want(t, []error{other.End()}, nil)
	})
}

func TestAClientThatIsClosedIsBarredForAMinute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Join(hubtest.As("c", "alice"))
		h.Kick("c")
		hubtest.Pause(hub.BarTime - 1)
		wantRefused(h, hubtest.As("c", "alice"), hub.ErrClientIDBarred)
		hubtest.Pause(1)
		h.Join(hubtest.As("c", "alice"))
		if n := h.Connections("c"); n != 1 {
			t.Errorf("it has %d connections; want 1", n)
		}
		if n := h.Kick("nobody"); n != 0 {
			t.Errorf("%d connections of nobody were closed", n)
		}
	})
}

func TestOwnersBarsAndOldMessagesAreForgottenInTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{History: hub.HistoryLimits{Count: 10, Age: time.Hour}})
		for i := range 1000 {
			id := fmt.Sprint("c", i)
			h.Join(hubtest.As(id, "alice")).Leave()
			if i%2 == 0 {
				h.Publish(to(hub.ToClient, id), "hi")
			}
			h.Kick(id)
			h.Own(fmt.Sprint("elsewhere", i), "bob", time.Now().Add(time.Minute))
		}
		hubtest.Pause(hub.BarTime + 2*hub.SweepInterval)
		if l := hub.LeftoversOf(h.Hub); l.Owners != 500 || l.Bars != 0 || l.Expiries != 0 {
			t.Errorf("minutes later the hub holds %+v; want the owners of kept messages only", l)
		}
		hubtest.Pause(time.Hour)
		if l := hub.LeftoversOf(h.Hub); l.Owners != 0 || l.Kept != 0 {
			t.Errorf("an hour later the hub holds %+v", l)
		}
		if _, bytes := h.Size(); bytes != 0 {
			t.Errorf("an hour later the hub keeps %d bytes", bytes)
		}
	})
}

func TestALogIsToldOwnersWithTheirMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		h.Switch(hub.Origin{Epoch: "log", Trims: true}, "test")
		first, second := h.Join(hubtest.As("c", "alice")), h.Join(hubtest.As("silent", "bob"))
		h.Publish(to(hub.ToClient, "c"), "hi")
		if claims := h.Claimed(); len(claims) != 1 || claims[hub.Position{Major: 1}] != "alice" {
			t.Errorf("the log is told %v; want alice at 1", claims)
		}
		if claims := h.Claimed(); len(claims) != 0 {
			t.Errorf("the log is told again of %v", claims)
		}
		for id, want := range map[string]string{"c": "alice", "silent": "bob", "other": ""} {
			if user, inUse := h.Owner(id); user != want || inUse != (want != "") {
				t.Errorf("%s is %q's, in use %v; want %q", id, user, inUse, want)
			}
		}
		owners := h.Owners()
		if len(owners) != 2 || owners["c"] != "alice" || owners["silent"] != "bob" {
			t.Errorf("the owners are %v", owners)
		}
		first.Leave()
		second.Leave()

		h.Follow(hub.Origin{Epoch: "again", Trims: true}) // as after a restart
		h.RestoreOwned(&hub.Message{To: to(hub.ToClient, "c"), Position: hub.Position{Major: 1}}, "alice")
		h.Announce("test")
		wantRefused(h, hubtest.As("c", "bob"), hub.ErrClientIDOwned)
	})
}

func TestWhoComesAndGoesCanNotHaveEndlessOwnersRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		stays := h.Join(hubtest.As("stays", "alice"))
		h.Join(hubtest.As("stays", "alice")).Leave()
		for i := range hub.MaxExpiries {
			h.Own(fmt.Sprint("elsewhere", i), "bob", time.Now().Add(time.Minute))
		}
		for i := range 10 {
			h.Join(hubtest.As(fmt.Sprint("c", i), "alice")).Leave()
		}
		if l := hub.LeftoversOf(h.Hub); l.Expiries != hub.MaxExpiries || l.Owners != hub.MaxExpiries+1 {
			t.Errorf("the hub holds %d owners, %d of them for a while", l.Owners, l.Expiries)
		}
		wantRefused(h, hubtest.As("stays", "bob"), hub.ErrClientIDOwned)
		stays.Leave()
		hubtest.Pause(2 * hub.SweepInterval)
		if l := hub.LeftoversOf(h.Hub); l.Owners != 0 || l.Expiries != 0 {
			t.Errorf("minutes later the hub holds %d owners, %d of them for a while", l.Owners, l.Expiries)
		}
	})
}
