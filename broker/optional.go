package broker

import (
	"context"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Follower is what a Broker implements whose log is elsewhere, so that an instance may be behind it.
type Follower interface {
	// Lag returns how far this instance may be behind the log, in time; 0 if it is not.
	Lag() time.Duration
}

// Sizer is what a Broker implements that keeps its log in a file.
type Sizer interface {
	// Size returns how many bytes the file has.
	Size() int64
}

// Kicker is what a Broker implements that joins several instances.
type Kicker interface {
	// Connections returns how many connections a client_id has on the other instances, as they told
	// a moment ago. If wait is set and there are none, it waits for what they tell next.
	Connections(ctx context.Context, clientID string, wait bool) (int, error)
	// Kick has the other instances end the connections of a client_id and refuse it for barTime.
	Kick(ctx context.Context, clientID string) error
}

// Claimer is what a Broker implements that joins several instances.
type Claimer interface {
	// Claim asks whose a client_id is, before a client joins the hub under it: if it is another user's
	// on some instance the hub is told by Own, and if it is nobody's it becomes that of the client's
	// user. It takes a bounded time; if there is no answer the hub goes by what it knows.
	Claim(ctx context.Context, s *hub.Subscription)
}
