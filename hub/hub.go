package hub

import (
	"context"
	"errors"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// What Join refuses with.
var (
	ErrHubFull         = errors.New("the hub has all the clients it may have")
	ErrTooManyFromHere = errors.New("too many connections from one address")
	ErrClientIDOwned   = errors.New("the client_id belongs to another user")
	ErrClientIDBarred  = errors.New("the client_id was closed by an operator a moment ago")
)

// Limits are a hub's settings; they may change while clients are connected.
type Limits struct {
	History     HistoryLimits
	MaxClients  int           // 0 is without limit
	DrainSpread time.Duration // over how long clients come back after Drain
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
	// Lost is up to where messages may be missing that the client should have had, as far as it is told so; the zero
	// Position if none are.
	Lost Position
}

// Hub delivers a log's messages to this process's clients. It is a replica of the log's end: it
// keeps history for those who come back, and decides nothing about order. It knows nothing of HTTP,
// Caddy or Redis.
type Hub struct {
	clock   *clock
	pace    pace
	stats   stats
	log     availability
	context context.Context // ends with Drain or Close
	cancel  context.CancelCauseFunc
	// BrokerChanged, if set, is told when the log goes out of reach or takes no messages, and when that is
	// over. It is set before a broker starts.
	BrokerChanged func(up bool, err error)

	mu         sync.Mutex // guards all below; goes before any Client.mu
	limits     Limits
	epoch      string
	last       Position
	given      *positions // the positions of a sparse log; nil while every one up to last was given
	shared     bool       // other instances follow the log too
	arrivals   arrivals
	history    *history
	index      *index
	clients    int
	joined     uint64 // clients so far
	deliveries uint64 // counts Deliver, to reach each client once
	sources    map[netip.Prefix]int
	owners     map[string]owner     // by client_id
	claimed    map[string]struct{}  // client_ids since Claimed; nil if nobody asks
	barred     map[string]time.Time // by client_id until when it may not join
	ended      error                // ErrDraining or ErrHubClosed; nil while the hub is open
	sweeper    *time.Timer
}

// sweepInterval is how often silent topics and forgotten owners are looked through.
const sweepInterval = time.Minute

// NewHub returns an open hub without clients and with an empty log.
func NewHub(limits Limits) *Hub {
	h := &Hub{
		clock:   newClock(),
		limits:  limits,
		epoch:   NewEpoch(),
		history: newHistory(limits.History),
		index:   newIndex(),
		sources: make(map[netip.Prefix]int),
		owners:  make(map[string]owner),
		barred:  make(map[string]time.Time),

		arrivals: make(arrivals),
	}
	h.context, h.cancel = context.WithCancelCause(context.Background())
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sweeper = time.AfterFunc(sweepInterval, h.sweep)
	return h
}

// Apply makes other limits hold. Clients beyond a lowered MaxClients stay.
func (h *Hub) Apply(limits Limits) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.limits = limits
	h.history.setLimits(limits.History, time.Now())
}

// Context ends, with ErrDraining or ErrHubClosed as its cause, when the hub takes no more clients and
// publishes no more.
func (h *Hub) Context() context.Context { return h.context }

// Join enters a client: it replays what the client missed and, in the same moment, begins to follow
// the log, so there is nothing between the two to be lost or doubled. The stream begins to Take at
// once, and calls Leave at its end.
func (h *Hub) Join(s Subscription, stream Stream) (*Client, Welcome, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if err := h.admitLocked(&s, now); err != nil {
		h.stats.refuse(err)
		return nil, Welcome{}, err
	}
	c := &Client{
		Subscriber: s.Subscriber, expires: h.clock.fromWall(s.Expires),
		hub: h, stream: stream, patience: maxPatience, phase: taking,
	}
	if s.User != "" {
		h.claimLocked(s.ClientID, s.User)
	}
	welcome := h.resumeLocked(c, s.LastEventID, now)
	h.joined++
	c.serial = h.joined
	h.index.add(c)
	h.clients++
	if s.Source.IsValid() {
		h.sources[s.Source]++
	}
	c.start(now)
	h.stats.accept(welcome.Resume)
	return c, welcome, nil
}

// Admits says why a client could not join at the moment; nil if it could.
func (h *Hub) Admits(s Subscription) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.admitLocked(&s, time.Now())
}

// admitLocked says why somebody may not join.
func (h *Hub) admitLocked(s *Subscription, now time.Time) error {
	owner := h.ownerLocked(s.ClientID)
	switch {
	case h.ended != nil:
		return h.ended
	case owner != "" && owner != s.User:
		return ErrClientIDOwned
	case now.Before(h.barred[s.ClientID]):
		return ErrClientIDBarred
	case s.MaxPerSource > 0 && s.Source.IsValid() && h.sources[s.Source] >= s.MaxPerSource:
		return ErrTooManyFromHere
	case h.limits.MaxClients > 0 && h.clients >= h.limits.MaxClients:
		return ErrHubFull
	}
	return nil
}

// resumeLocked finds where a client goes on, and whether that is exact.
func (h *Hub) resumeLocked(c *Client, lastEventID string, now time.Time) Welcome {
	if lastEventID == "" {
		return Welcome{ID: h.idLocked(h.last), Resume: ResumeNone}
	}
	id, known := ParseID(lastEventID)
	known = known && h.gaveLocked(id)
	if known {
		c.cursor = id.Position
	}
	addresses := c.addresses()
	logs := h.history.logsOf(addresses, c.Patterns, c.cursor, now)
	c.toldLost = h.history.lost(addresses, c.Patterns, c.cursor)
	if known {
		c.catchingUp = slices.ContainsFunc(logs, func(l *addressLog) bool { return l.search(c.cursor) < len(l.messages) })
		if c.toldLost.After(id.Position) {
			return Welcome{lastEventID, ResumeGap, c.toldLost}
		}
		return Welcome{lastEventID, ResumeComplete, c.toldLost}
	}
	if c.cursor, c.catchingUp = newest(logs, h.limits.History.Count); !c.catchingUp {
		c.cursor = h.last
	}
	return Welcome{h.idLocked(c.cursor), ResumeGap, c.toldLost}
}

// gaveLocked reports whether this log gave out an ID.
func (h *Hub) gaveLocked(id ID) bool {
	switch {
	case id.Epoch != h.epoch || id.Position.After(h.last):
		return false
	case h.given == nil:
		return id.Position.Minor == 0
	default:
		return id.Position == Position{} || h.given.has(id.Position)
	}
}

func (h *Hub) idLocked(p Position) string { return ID{h.epoch, p}.String() }

// Leave takes a client out, once. cause is why its stream ended, unless the hub had ended it; Leave
// returns the one that counts.
func (h *Hub) Leave(c *Client, cause error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index.remove(c)
	h.clients--
	if c.Source.IsValid() {
		if h.sources[c.Source]--; h.sources[c.Source] == 0 {
			delete(h.sources, c.Source)
		}
	}
	cause = c.leave(cause)
	h.stats.disconnected(cause)
	return cause
}

// Size returns how many clients are connected and how many bytes of messages are kept.
func (h *Hub) Size() (clients int, historyBytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.clients, h.history.bytes
}

// eachLocked visits every client: all of them listen to broadcasts.
func (h *Hub) eachLocked(visit func(*Client)) {
	if set := h.index.exact[Address{Kind: ToBroadcast}]; set != nil {
		for _, m := range set.members {
			visit(m.client)
		}
	}
}

// Drain ends every client in an orderly way because the process exits: each gets a delay of its own
// before it comes back, then what was queued for it, then the end of its stream.
func (h *Hub) Drain() {
	h.end(ErrDraining, func(c *Client) {
		c.drain(retryFrame(c.Retry + mathrand.N(max(1, h.limits.DrainSpread))))
	})
}

// Close ends every client because nobody uses the hub any more.
func (h *Hub) Close() {
	h.end(ErrHubClosed, func(c *Client) { c.finish(ErrHubClosed) })
}

func (h *Hub) end(cause error, farewell func(*Client)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended != nil {
		return
	}
	h.ended = cause
	h.sweeper.Stop()
	h.cancel(cause)
	h.eachLocked(farewell)
}

// Abort cuts every client that is still there.
func (h *Hub) Abort() { h.abort(func(*Client) bool { return true }) }

// AbortBlocked cuts every client whose socket takes nothing, and waits on for those that wait for us.
func (h *Hub) AbortBlocked() { h.abort((*Client).blockedLocked) }

func (h *Hub) abort(whom func(*Client) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.eachLocked(func(c *Client) { c.abortIf(whom) })
}

// sweep ages silent topics, and forgets owners of client_ids that nothing is left of.
func (h *Hub) sweep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended != nil {
		return
	}
	now := time.Now()
	h.history.sweep(now)
	for id := range h.owners {
		h.ownerLocked(id)
	}
	for id, until := range h.barred {
		if !now.Before(until) {
			delete(h.barred, id)
		}
	}
	h.sweeper.Reset(sweepInterval)
}
