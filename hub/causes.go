package hub

import (
	"errors"
)

// Why a client's stream ended: the cause that Take returns and Leave is given.
var (
	ErrGone      = errors.New("client left")             // it closed its connection
	ErrSlow      = errors.New("client too slow")         // its queue was full and its socket blocked
	ErrStuck     = errors.New("write timed out")         // one write made no progress for write_timeout
	ErrIdle      = errors.New("idle timeout")            // it got no message for idle_timeout
	ErrMaxAge    = errors.New("maximum age reached")     // it was connected for max_age
	ErrExpired   = errors.New("authorization expired")   // its token ran out
	ErrKicked    = errors.New("closed by an operator")   // DELETE on the admin endpoint
	ErrClaimed   = errors.New("client_id was claimed")   // an authenticated user took the client_id
	ErrDraining  = errors.New("server is shutting down") // the process exits
	ErrHubClosed = errors.New("hub is closed")           // no route uses the hub any more
)

// causes are the reasons why streams end, with their names in metrics.
var causes = [...]struct {
	err  error
	name string
}{
	{ErrGone, "left"},
	{ErrSlow, "slow_client"},
	{ErrStuck, "write_timeout"},
	{ErrIdle, "idle_timeout"},
	{ErrMaxAge, "max_age"},
	{ErrExpired, "expired"},
	{ErrKicked, "closed"},
	{ErrClaimed, "claimed"},
	{ErrDraining, "shutdown"},
	{ErrHubClosed, "hub_closed"},
}

// NameOf returns the name that why a stream ended has in metrics and logs.
func NameOf(cause error) string {
	if i := indexOf(cause); i < len(causes) {
		return causes[i].name
	}
	return otherCause
}

// otherCause is the name of any cause that has none of its own.
const otherCause = "cut"

func indexOf(cause error) int {
	for i, c := range causes {
		if c.err == cause {
			return i
		}
	}
	return len(causes)
}
