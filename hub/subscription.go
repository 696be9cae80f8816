package hub

import (
	"net/netip"
	"time"
)

// SlowClient tells what happens to a client whose socket takes nothing.
type SlowClient string

const (
	// CatchUp lets the client keep its place in the log: it reads on when its socket takes bytes again, and
	// is told a gap if what it has missed is no longer kept. The default.
	CatchUp SlowClient = "catch_up"
	// Disconnect ends the client once it is more than its queue behind: it reconnects and resumes.
	Disconnect SlowClient = "disconnect"
	// DropOldest lets the client go on with the newest messages, as many as its queue holds, and tells it a gap.
	DropOldest SlowClient = "drop_oldest"
)

// Subscription is what somebody who joins a hub asks for.
type Subscription struct {
	Subscriber
	// LastEventID is the ID the client has seen last; empty for one that comes for the first time.
	LastEventID string
	// Since is where a client begins that brings no ID.
	Since   Since
	Expires time.Time // when its authorization ends; zero never
	// Limit is how many messages an Answer has at most, and Wait how long it waits for the first. It goes on with what
	// has been published by then, and ends.
	Limit int
	Wait  time.Duration
	// Place is what Hold gave for the client; nil for one that joins at once.
	Place *Place
}

// Subscriber is what a hub knows of a client for as long as it is there.
type Subscriber struct {
	ClientID  string
	Generated bool         // whether the ClientID was made up for it, so that nobody else knows it
	Unseen    bool         // whether it is left out of presence, as a client that polls is
	User      string       // authenticated user; empty for anonymous
	Info      string       // shown beside it in presence, at most MaxInfoBytes; empty for none
	Source    netip.Prefix // where it connects from, for MaxPerSource; the zero Prefix is not counted
	Topics    []string     // without wildcards
	Patterns  []string
	// Selectors are set instead of Topics and Patterns. Such a client gets what is published to topics, and nothing
	// that is for its client_id, its user or everybody. It knows messages by the IDs that their publishers chose.
	Selectors *Selectors
	// Granted are topics of which a private message has one at least that such a client gets. Nil means no private one.
	Granted *Selectors
	Form    Form // of what it gets
	Gzip    bool // whether that is compressed, if it is no Answer; its stream begins with Client.Opening
	*ClientOptions
}

// MaxInfoBytes is the size limit of a client's Info.
const MaxInfoBytes = 256

// ClientOptions are the limits and times of a client, which many share.
type ClientOptions struct {
	Queue        int           // messages that it may be behind before SlowClient counts
	QueueBytes   int           // bytes of them; a single larger message passes when alone
	SlowClient   SlowClient    // what happens when it is further behind; empty is CatchUp
	Retry        time.Duration // told on Drain, with some of Limits.DrainSpread added
	Heartbeat    time.Duration // 0 is off
	IdleTimeout  time.Duration // 0 is off
	MaxAge       time.Duration // 0 is off; up to a tenth is taken off at random
	MaxPerSource int           // clients of one Source; 0 is without limit
	WriteTimeout time.Duration // how long a write may get nowhere; the stream sees to it
	GapEvents    bool          // whether the form Updates tells gaps by events, instead of ending the stream
}

// Resume tells what became of a client's Last-Event-ID.
type Resume string

// The values of "resume" in the connected event.
const (
	ResumeNone     Resume = "none"     // it brought none
	ResumeComplete Resume = "complete" // it gets every message since
	ResumeGap      Resume = "gap"      // it may have missed some; it gets what is kept
)

// Welcome is what a client that joined is told first.
type Welcome struct {
	// ID is the position just before the first message that may follow.
	ID     string
	Resume Resume
	// Reason is why there is a gap, empty if there is none: unknown_id or history_trimmed.
	Reason string
	// Lost is up to where the gap tells that messages may be missing; the zero Position if it is not known.
	Lost Position
}

// The reasons of gaps. Brokers bring the last two.
const (
	reasonUnknownID     = "unknown_id"
	reasonTrimmed       = "history_trimmed"
	reasonSlow          = "slow_client"
	reasonLogLost       = "log_lost"
	reasonBrokerChanged = "broker_changed"
)

// addresses returns all that a client listens at but patterns.
func (s *Subscriber) addresses() []Address {
	if s.Selectors != nil {
		return s.selected()
	}
	all := append(make([]Address, 0, len(s.Topics)+3), Topics(s.Topics...)...)
	all = append(all, Address{ToClient, s.ClientID}, everybody)
	if s.User != "" {
		all = append(all, Address{ToUser, s.User})
	}
	return all
}

// selected returns the topics that a client with Selectors names.
func (s *Subscriber) selected() []Address {
	all := Topics(s.Topics...)
	if s.Granted != nil {
		all = append(all, PrivateTopics(s.Topics...)...)
	}
	return all
}

// Asked returns the topics and patterns that the client asked for, never nil: it goes into JSON.
func (s *Subscriber) Asked() []string {
	if s.Selectors != nil {
		return append([]string{}, s.Selectors.names...)
	}
	return append(append([]string{}, s.Topics...), s.Patterns...)
}
