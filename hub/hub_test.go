package hub_test

import (
	"slices"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestAClientGetsAMessageOnceHoweverManyOfItsAddressesItReaches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		many := h.Join(hubtest.With("a", "b", "room/7", "room/*", "room/**", "**"))
		one := h.Join(hubtest.With("a"))
		none := h.Join(hubtest.With("c"))
		h.Publish(hub.Topics("a", "b", "room/7", "x/y"), "hi")
		many.Want("hi")
		one.Want("hi")
		none.Want()
		if _, receivers := h.Publish(hub.Topics("nobody"), "hi"); receivers != 1 {
			t.Errorf("a topic that one client's ** matches counts %d receivers; want 1", receivers)
		}
	})
}

func TestMessagesReachTheirTargetAndNobodyElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := hubtest.New(t, hubtest.Plenty)
		join := func(clientID, user string) *hubtest.Client {
			s := hubtest.With("topic")
			s.ClientID, s.User = clientID, user
			return h.Join(s)
		}
		tab1, tab2, other, anonymous := join("c1", "alice"), join("c1", "alice"), join("c2", "alice"), join("c3", "")
		for _, test := range []struct {
			to      hub.Address
			reaches []*hubtest.Client
		}{
			{hub.Address{Kind: hub.ToClient, Name: "c1"}, []*hubtest.Client{tab1, tab2}},
			{hub.Address{Kind: hub.ToClient, Name: "c3"}, []*hubtest.Client{anonymous}},
			{hub.Address{Kind: hub.ToClient, Name: "topic"}, nil},
			{hub.Address{Kind: hub.ToUser, Name: "alice"}, []*hubtest.Client{tab1, tab2, other}},
			{hub.Address{Kind: hub.ToUser, Name: "c3"}, nil},
			{hub.Address{Kind: hub.ToUser}, nil},
			{hub.Address{Kind: hub.ToTopic, Name: "alice"}, nil},
			{hub.Address{Kind: hub.ToBroadcast}, []*hubtest.Client{tab1, tab2, other, anonymous}},
		} {
			if _, receivers := h.Publish([]hub.Address{test.to}, "hi"); receivers != len(test.reaches) {
				t.Errorf("to %v: %d receivers; want %d", test.to, receivers, len(test.reaches))
			}
			for i, c := range []*hubtest.Client{tab1, tab2, other, anonymous} {
				if got := len(c.Texts()) == 1; got != slices.Contains(test.reaches, c) {
					t.Errorf("to %v: reached client %d: %v", test.to, i, got)
				}
			}
		}
	})
}
