package hub

import "errors"

// What Join refuses with.
var (
	ErrHubFull         = errors.New("the hub has all the clients it may have")
	ErrTooManyFromHere = errors.New("too many connections from one address")
	ErrClientIDOwned   = errors.New("the client_id belongs to another user")
	ErrTooManyOpen     = errors.New("the hub has all the open-ended URI templates it may have")
	ErrClientIDBarred  = errors.New("the client_id was closed by an operator a moment ago")
)

// Why a client's stream ended: the cause that a stream is given, and Leave returns.
var (
	ErrGone      = errors.New("client left")             // it closed its connection
	ErrSlow      = errors.New("client too slow")         // it was further behind than its queue, and its socket blocked
	ErrStuck     = errors.New("write timed out")         // one write made no progress for write_timeout
	ErrIdle      = errors.New("idle timeout")            // it got no message for idle_timeout
	ErrAnswered  = errors.New("answered")                // it polled, and has got its answer
	ErrMaxAge    = errors.New("maximum age reached")     // it was connected for max_age
	ErrExpired   = errors.New("authorization expired")   // its token ran out
	ErrKicked    = errors.New("closed by an operator")   // DELETE on the admin endpoint
	ErrClaimed   = errors.New("client_id was claimed")   // an authenticated user took the client_id
	ErrDraining  = errors.New("server is shutting down") // the process exits
	ErrLossy     = errors.New("messages are missing")    // its form tells that in no other way
	ErrHubClosed = errors.New("hub is closed")           // no route uses the hub any more
	ErrAborted   = errors.New("stream was cut")          // by Abort, or because it panicked
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
	{ErrAnswered, "answered"},
	{ErrMaxAge, "max_age"},
	{ErrExpired, "expired"},
	{ErrKicked, "closed"},
	{ErrClaimed, "claimed"},
	{ErrLossy, "gap"},
	{ErrDraining, "shutdown"},
	{ErrHubClosed, "hub_closed"},
}

// otherCause is the name of any cause that has none of its own.
const otherCause = "cut"

// NameOf returns the name of why a stream has ended, as metrics have it.
func NameOf(cause error) string {
	if i := indexOf(cause); i < len(causes) {
		return causes[i].name
	}
	return otherCause
}

func indexOf(cause error) int {
	for i, c := range causes {
		if c.err == cause {
			return i
		}
	}
	return len(causes)
}

// EndsCleanly reports whether a stream that ended for this cause gets a proper last chunk. One that was
// cut does not: there is no telling what the client has.
func EndsCleanly(cause error) bool {
	switch cause {
	case ErrGone, ErrSlow, ErrStuck, ErrAborted:
		return false
	}
	return indexOf(cause) < len(causes)
}
