package hub

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/caddy-sse/caddy-sse/topic"
)

// Stream carries a client's frames to its socket. Only the client's shard calls Send and Notice, one call at a time;
// all methods return at once. When its socket is done for, the stream calls Hub.Leave.
type Stream interface {
	// Send hands over the frames that come next. It returns how many the stream took: those are written, or will be,
	// before anything else. It keeps less than 16 KiB of what is not written yet. ready tells that it would take more
	// now; if it would not, the stream calls Client.Post as soon as that has changed. An end is why the stream ends once
	// all the frames are written; if not all were taken, the rest comes again, with the end.
	Send(frames []*Frame, end error) (taken int, ready bool)
	// Notice tells what Client.Post was given since the last call. It reports whether the stream would take frames.
	Notice(News) (ready bool)
	// Abort ends the stream without waiting for anything, a write under way included.
	Abort()
	// Blocked reports whether it is the client's socket that a stream waits for which is not ready. A stream that
	// cannot tell says yes while it is writing.
	Blocked() bool
}

// News is what happens to a stream between its turns. Its bits mean what the stream wants them to.
type News uint32

// Client is one connection's place in a hub: a cursor on its log. It is live while its stream takes what its shard
// reads; else it is late, and reads on by itself when its stream is ready. All that has no other comment belongs to
// its shard once the client has joined.
type Client struct {
	Subscriber
	hub      *Hub
	shard    *shard
	patterns []string // those of Patterns that no other one covers
	wide     []string // with Selectors: patterns that cover what templates match, and more
	serial   uint64   // grows with each client of the hub that joins
	joined   moment
	expires  moment // when its authorization ends; zero never

	stream Stream
	ready  bool // the stream would take frames
	over   bool // nothing more goes to the stream
	inLine bool // the client stands in its shard's line

	from   uint64                 // before this place of the log nothing more goes to it while it is live
	late   *late                  // nil while it is live
	answer *answer                // of a client that polls; nil of one that listens
	coding *coding                // of a client that reads gzip; nil of others
	ending atomic.Pointer[ending] // nil while its stream goes on; others may look

	own         *clientSet    // where private messages for it gather; nil if it gets none
	memberships []membership  // its places in the shard's index
	first       [3]membership // where memberships begin, so that most clients need no memory besides
	stamp       uint64        // the shard's last cycle that had something for it

	appointment  moment // when it is to be watched
	slot         int    // of it in the shard's appointments, while it has one
	lastTurn     moment // when its stream last took something
	lastMessage  moment // when that was a message
	ends         moment // by MaxAge
	retryPending bool   // it was told another retry than that of the drain since

	sentMessages, sentBytes atomic.Uint64 // what its stream took
	news                    atomic.Uint32 // what was posted and not noticed yet

	cause    error     // why it left; nil while it is there; guarded by Hub.mu
	standing *standing // where it is present; nil if nowhere; guarded by Hub.mu
}

// late is what a client is that does not have its shard's place in the log.
type late struct {
	seq      uint64   // the place in the log where it reads on
	position Position // the broker's log's position there: what was trimmed after it is a gap
	told     Position // the newest loss that it was told of
	entitled uint64   // from this place on it gets all, and before only what is kept
	trims    uint64   // history.trims when it last looked for losses

	// What the shard has seen for it between seq and its own place.
	messages, bytes, ephemeral int

	latest  bool   // of what is before entitled it gets only the newest message of each address and key
	scan    bool   // what it reads of history is the most of it: to look for its logs is of no use
	lossy   bool   // it is to go on with the newest messages, as many as its queue holds
	dropped int    // of messages, how many were counted as dropped
	tell    *Frame // what it is to be told before anything else; nil if there is nothing
}

// ending is how a client's stream ends.
type ending struct {
	cause  error
	until  uint64   // before this place of the log the client still gets what it is entitled to
	frames []*Frame // told last
	retry  *Frame   // told again behind a message that tells another; nil if there is none
}

// membership is a client's side of a member.
type membership struct {
	set  *clientSet
	slot int // of set.members
}

// newClient returns a client that has not joined yet.
func newClient(h *Hub, s Subscription, stream Stream) *Client {
	c := &Client{Subscriber: s.Subscriber, hub: h, stream: stream, expires: h.times.fromWall(s.Expires)}
	if c.Selectors != nil {
		c.setSelectors()
	} else {
		c.patterns, c.Granted = uncovered(s.Patterns), nil
	}
	if s.Gzip && s.Form != Answer {
		c.coding = new(coding)
	}
	return c
}

// uncovered returns the patterns without those that others cover.
func uncovered(patterns []string) []string {
	covered := func(i int) bool {
		for j, other := range patterns {
			if j != i && topic.Match(other, patterns[i]) && (other != patterns[i] || j < i) {
				return true
			}
		}
		return false
	}
	for i := range patterns {
		if !covered(i) {
			continue
		}
		var left []string
		for j := range patterns {
			if !covered(j) {
				left = append(left, patterns[j])
			}
		}
		return left
	}
	return patterns
}

// start begins the client's times.
func (c *Client) start(now moment) {
	c.joined, c.lastTurn, c.lastMessage = now, now, now
	if c.MaxAge > 0 {
		c.ends = now.after(c.MaxAge - rand.N(c.MaxAge/10+1))
	}
}

// Serial is the client's number: it grows with each client of the hub that joins.
func (c *Client) Serial() uint64 { return c.serial }

// Shard is the number of the goroutine that calls the client's stream, from 0 to Shards.
func (c *Client) Shard() int { return c.shard.number }

// Sent returns how many messages and bytes of them the client's stream took.
func (c *Client) Sent() (messages, bytes uint64) {
	return c.sentMessages.Load(), c.sentBytes.Load()
}

// Post has the client's shard call the stream's Notice, soon. Anybody may call it at any time.
func (c *Client) Post(news News) {
	if c.news.Or(uint32(news)) == 0 {
		c.shard.post(c)
	}
}

// HandOver gives the client to another stream, which then calls Post. The one before it was never ready.
func (c *Client) HandOver(to Stream) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.shard.noteLocked(func(*shard) { c.stream = to })
}

// gets reports whether a frame is addressed to the client.
func (c *Client) gets(f *Frame) bool {
	return c.by(f) != nil
}

// by returns the first address of a frame that the client listens at; nil if there is none.
func (c *Client) by(f *Frame) *Address {
	switch {
	case f.to == nil, f.is(announced) && f.to.Kind == ToBroadcast:
		return f.to
	case f.to.Kind == ToPrivate:
		return c.byGrant(f)
	case c.listensAt(f.to):
		return f.to
	}
	for _, a := range f.others() {
		if c.listensAt(a) {
			return a
		}
	}
	return nil
}

// listensAt reports whether the client gets what is sent to an address.
func (c *Client) listensAt(a *Address) bool {
	if c.Selectors != nil {
		return (a.Kind == ToTopic || a.Kind == ToPrivate && c.Granted != nil) && c.Selectors.Match(a.Name)
	}
	switch a.Kind {
	case ToClient:
		return a.Name == c.ClientID
	case ToUser:
		return c.User != "" && a.Name == c.User
	case ToTopic:
		return slices.Contains(c.Topics, a.Name) || len(c.patterns) > 0 && topic.Covered(c.patterns, a.Name)
	case ToPrivate:
		return false
	}
	return true
}

// until is before which place of the log the client still gets anything.
func (c *Client) until() uint64 {
	if e := c.ending.Load(); e != nil {
		return e.until
	}
	return math.MaxUint64
}
