package broker

import (
	"context"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Follower is a log that is elsewhere, so that this instance may be behind it.
type Follower interface {
	// Lag returns how far this instance may be behind the log, in time; 0 if it is not.
	Lag() time.Duration
}

// Sizer is a log that is kept in a file.
type Sizer interface {
	// Size returns how many bytes the file has.
	Size() int64
}

// Kicker is a log that joins several instances, which close each other's connections.
type Kicker interface {
	// Connections returns how many connections a client_id has on the other instances, as they told a moment
	// ago. If wait is set and there are none, it waits for what they tell next.
	Connections(ctx context.Context, clientID string, wait bool) (int, error)
	// Kick has the other instances call [hub.Hub.Kick]: it ends the connections of a client_id and refuses
	// the client_id for a minute.
	Kick(ctx context.Context, clientID string) error
}

// Counter is a log that joins several instances, which tell each other where their clients listen.
type Counter interface {
	// Receivers returns how many clients of the other instances a message to these addresses would reach, as
	// they told a moment ago. One that several addresses reach may count for each. If the others may not have told
	// all yet, it returns an error.
	Receivers(ctx context.Context, to []hub.Address) (int, error)
}

// Claimer is a log that joins several instances, which agree whose a client_id is.
type Claimer interface {
	// Claim is called before a client joins the hub. If the client_id is another user's on some instance, the
	// log tells the hub by [hub.Hub.Own]. If it is nobody's, it becomes that of the client's user. Claim takes
	// a bounded time. If there is no answer, the hub goes by what it knows.
	Claim(ctx context.Context, s *hub.Subscription)
	// Release is called, after Claim, if the hub has refused the client, or once the client has left and its
	// client_id was made up for it. The log forgets whose the client_id is, soon, unless it is in use on some
	// instance. Release does not wait.
	Release(clientID string)
}

// Purger is a log that can remove messages before their time. Without it nothing can be purged: who asks for it is
// answered 501.
type Purger interface {
	// Purge removes all messages for some addresses that are in the log when it is called, for good, and has the hubs of
	// all instances call [hub.Hub.Purge]. A message that has other addresses as well stays for those. The log sets
	// Until. It may be called again for the same addresses, and then does no harm. If nothing was removed the error is
	// [ErrUnavailable], if that is not known [ErrUnknownOutcome]. Purge is called as Publish is.
	Purge(ctx context.Context, p hub.Purge) error
}

// Rememberer is a log whose records of idempotency keys can be read when the hub follows another log. Without
// it a key that was used before a reload that changes the broker is free after it.
type Rememberer interface {
	// Records gives access to the records of a log that is about to be closed. It returns nil if they can't be
	// read: if the log is out of reach, say. It is called before Close, and what it returns is used after.
	Records() Records
}

// Records are the records of a log that the hub has left. They are used for [IdempotencyPeriod], from many
// goroutines at once.
type Records interface {
	// Find returns the record of a key, which is the caller's from then on; nil if there is none.
	Find(ctx context.Context, key string) (*Record, error)
	// Close ends the access. It is called once.
	Close() error
}
