package hub

import (
	"net/netip"
	"time"
)

// SlowClient tells what happens to a client whose queue is full while its socket takes nothing.
type SlowClient string

const (
	// Disconnect ends the client: it reconnects and resumes. The default.
	Disconnect SlowClient = "disconnect"
	// DropOldest drops what has waited longest and tells the client with a gap event.
	DropOldest SlowClient = "drop_oldest"
)

// Subscription is what somebody who joins a hub asks for.
type Subscription struct {
	Subscriber
	// LastEventID is the ID the client has seen last; empty for one that comes for the first time.
	LastEventID string
	Expires     time.Time // when its authorization ends; zero never
}

// Subscriber is what a hub knows of a client for as long as it is there.
type Subscriber struct {
	ClientID  string
	Generated bool         // whether the ClientID was made up for it, so that nobody else knows it
	User      string       // authenticated user; empty for anonymous
	Source    netip.Prefix // where it connects from, for MaxPerSource; the zero Prefix is not counted
	Topics    []string     // without wildcards
	Patterns  []string
	*ClientOptions
}

// ClientOptions are the limits and times of a client, which many share.
type ClientOptions struct {
	Queue        int           // messages that may wait
	QueueBytes   int           // bytes that may wait; a single larger message passes when alone
	SlowClient   SlowClient    // what happens when more wait
	Retry        time.Duration // told on Drain, with some of Limits.DrainSpread added
	Heartbeat    time.Duration // 0 is off
	IdleTimeout  time.Duration // 0 is off
	MaxAge       time.Duration // 0 is off; up to a tenth is taken off at random
	MaxPerSource int           // clients of one Source; 0 is without limit
	WriteTimeout time.Duration // how long a write may get nowhere; the stream sees to it
}

// addresses returns all that a client listens at but patterns.
func (s *Subscriber) addresses() []Address {
	all := append(Topics(s.Topics...), Address{ToClient, s.ClientID}, Address{Kind: ToBroadcast})
	if s.User != "" {
		all = append(all, Address{ToUser, s.User})
	}
	return all
}
