package hub_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// Whatever strangers bring, nothing of it is left when they are gone.
func TestNothingIsLeftOfStrangers(t *testing.T) {
	onShards(t, 3, func(t *testing.T) {
		h := hubtest.New(t, hub.Limits{})
		h.Switch(hub.Origin{Epoch: "log", Trims: true, Shared: true}, "test")
		before := hub.LeftoversOf(h.Hub)
		for i := range 2000 {
			s := hubtest.With(fmt.Sprint("topic/", i), fmt.Sprint("pattern/", i, "/*/x"), fmt.Sprint("rest/", i, "/**"))
			s.User = fmt.Sprint("user-", i)
			s.Source = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
			s.MaxPerSource, s.Heartbeat, s.MaxAge = 1, time.Minute, time.Hour
			s.LastEventID = []string{"", "?", fmt.Sprint("log-", i), "log-0"}[i%4]
			c := h.Enter(s)
			if i%3 == 0 {
				c.Let(i % 2)
			}
			wantRefused(h, hubtest.As(c.ClientID, "somebody else"), hub.ErrClientIDOwned)
			h.Publish(to(hub.ToClient, c.ClientID), "hi")
			c.Leave()
		}
		hubtest.Pause(2 * hub.SweepInterval)
		after := hub.LeftoversOf(h.Hub)
		after.Timers = before.Timers
		if after != before {
			t.Errorf("before %+v\nafter  %+v", before, after)
		}
	})
}
