package hub

import (
	"context"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Limits are a hub's settings; they may change while clients are connected.
type Limits struct {
	History     HistoryLimits
	Policies    []Policy      // for some topics; of those that cover a topic the first counts. Not to be changed.
	MaxClients  int           // 0 is without limit
	DrainSpread time.Duration // over how long clients come back after Drain
}

// Hub delivers a log's messages to this process's clients. It is a replica of the log's end: it
// keeps history for those who come back, and decides nothing about order. It knows nothing of HTTP,
// Caddy or Redis.
type Hub struct {
	times   *epochTime
	most    measures
	stats   stats
	gzip    compressor
	pace    pace
	log     availability
	guests  guestbook
	shards  []*shard
	running sync.WaitGroup // the goroutines of shards, and the keeper's
	context context.Context
	cancel  context.CancelCauseFunc
	// BrokerChanged, if set, is told when the log goes out of reach or takes no messages, and when that is
	// over. It is set before a broker starts.
	BrokerChanged func(up bool, err error)
	// HistoryLost, if set, is told when the log has lost messages, and how many clients were told a gap. The
	// reason is that of the gap. It is set before a broker starts, and called by the broker's goroutine.
	HistoryLost func(reason string, clients int)

	encoder  atomic.Pointer[idForm]   // what IDs look like, for those who don't hold mu
	policies atomic.Pointer[policies] // of limits, for those who don't hold mu
	_        [cacheLine]byte          // what follows changes all the time, what stands before seldom

	head atomic.Uint64 // frames.next, for those who don't hold mu

	mu        lock // guards all below
	limits    Limits
	epoch     string
	last      Position
	given     *positions // the positions of a sparse log; nil while every one up to last was given
	begin     uint64     // the place in frames where the log began that is followed
	losses    []place    // of Lose that are told in the ring
	past      past
	shared    bool                                    // other instances follow the log too
	newest    func(context.Context) (Position, error) // of Origin
	looks     looks
	arrivals  arrivals
	frames    *sequence
	values    map[value]*Frame    // the newest message of each, of those that may give way
	chosen    map[string][]*Frame // by the ID that their publisher chose, the oldest first
	holdings  holdings
	history   *history
	audience  *audience
	presence  *presence // nil unless some topics have presence
	joined    uint64    // clients so far
	presences uint64    // how many presences there were
	held      int       // places that are held for clients that are yet to join
	sources   map[netip.Prefix]int
	owners    owners
	ended     error  // ErrDraining or ErrHubClosed; nil while the hub is open
	lapse     *Frame // the newest announcement of another log; nil if there was none
	restoring bool   // another log is followed, and not announced yet
	sweepAt   *time.Timer
}

// cacheLine is how many bytes processors take from each other at once, at most.
const cacheLine = 128

// idForm is what an ID needs before its position is known.
type idForm struct {
	epoch  string
	digits int    // of the next position
	most   uint64 // the last position that has so many
}

// NewHub returns an open hub without clients and with an empty log.
func NewHub(limits Limits) *Hub {
	h := &Hub{
		times:    newEpochTime(),
		most:     usual,
		limits:   limits,
		epoch:    NewEpoch(),
		begin:    1,
		frames:   newSequence(),
		audience: newAudience(),
		sources:  make(map[netip.Prefix]int),
		owners:   newOwners(),
		arrivals: make(arrivals),
		values:   make(map[value]*Frame),
		chosen:   make(map[string][]*Frame),
	}
	h.frames.released = h.releasedLocked
	h.head.Store(h.frames.next)
	h.policies.Store(newPolicies(limits.Policies))
	h.presence = newPresence(1, h.policies.Load())
	h.presences = 1
	h.context, h.cancel = context.WithCancelCause(context.Background())
	for i := range max(1, runtime.GOMAXPROCS(0)-1) { // publishers have work to do, too
		h.shards = append(h.shards, newShard(h, i))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.newHistoryLocked()
	h.past.Epoch = h.epoch
	h.encoder.Store(&idForm{h.epoch, 1, 9})
	h.sweepAt = time.AfterFunc(sweepInterval, h.sweep)
	return h
}

func (h *Hub) newHistoryLocked() {
	h.history = newHistory(h.limits.History, h.frames, &h.most)
	h.history.setLimits(h.limits.History, h.policies.Load())
	h.history.came, h.history.gone = h.logCameLocked, h.logGoneLocked
	h.audience.onlyKept = 0
	h.audience.kept = func(topic string) bool { return h.history.logs[ToTopic][topic] != nil }
}

// Context ends, with ErrDraining or ErrHubClosed as its cause, when the hub takes no more clients and
// publishes no more.
func (h *Hub) Context() context.Context { return h.context }

// Join enters a client. From the log's present position on it gets what is addressed to it, and before that what it
// missed. Its stream is not ready until it says so by Client.Post, and calls Leave at its end.
func (h *Hub) Join(s Subscription, stream Stream) (*Client, Welcome, error) {
	c := newClient(h, s, stream)
	hint := h.lookBack(c, &s)
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	s.Place.giveUpLocked()
	if err := h.admitLocked(&s, now); err != nil {
		h.stats.refuse(err)
		return nil, Welcome{}, err
	}
	if s.User != "" {
		h.claimLocked(s.ClientID, s.User)
	}
	h.joined++
	c.serial = h.joined
	c.shard = h.shards[c.serial%uint64(len(h.shards))]
	c.from = h.frames.next
	welcome := h.resumeLocked(c, s.LastEventID, s.Since, hint, now)
	h.audience.add(c)
	h.presence.arrive(h, c)
	h.countSourceLocked(s.Source, 1)
	c.start(h.times.moment(now))
	if c.Form == Answer {
		c.answer = newAnswer(&s, welcome, c.joined)
	}
	h.stats.accept(welcome)
	h.gzip.joined(c)
	c.shard.enterLocked(c)
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
	owner := h.ownerLocked(s.ClientID, now)
	clients, fromHere := h.audience.everybody+h.held, h.sources[s.Source]
	if s.Place.isHeldLocked() { // which counts already
		clients, fromHere = clients-1, fromHere-1
	}
	switch {
	case h.ended != nil:
		return h.ended
	case owner != "" && owner != s.User:
		return ErrClientIDOwned
	case h.owners.barred(s.ClientID, now):
		return ErrClientIDBarred
	case h.tooOpenLocked(s):
		return ErrTooManyOpen
	case s.MaxPerSource > 0 && s.Source.IsValid() && fromHere >= s.MaxPerSource:
		return ErrTooManyFromHere
	case h.limits.MaxClients > 0 && clients >= h.limits.MaxClients:
		return ErrHubFull
	}
	return nil
}

// Leave takes a client out; whoever calls it again changes nothing. cause is why its stream ended, unless the hub
// had ended it. Leave returns the one that counts.
func (h *Hub) Leave(c *Client, cause error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.cause != nil {
		return c.cause
	}
	if e := c.ending.Load(); e != nil {
		cause = e.cause
	}
	if cause == nil {
		cause = ErrGone
	}
	c.cause = cause
	h.audience.remove(c)
	h.presence.depart(h, c)
	h.countSourceLocked(c.Source, -1)
	h.leftByLocked(c.ClientID, time.Now())
	c.shard.noteLocked(func(s *shard) { s.remove(c) })
	h.stats.disconnected(cause)
	h.gzip.left(c)
	return cause
}

// Size returns how many clients are connected and what the kept messages cost in memory.
func (h *Hub) Size() (clients int, historyBytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.audience.everybody, h.history.bytes
}

// Drain ends every client in an orderly way because the process exits: each gets a delay of its own
// before it comes back, then what was published for it, then the end of its stream.
func (h *Hub) Drain() { h.end(ErrDraining) }

// Close ends every client because nobody uses the hub any more.
func (h *Hub) Close() { h.end(ErrHubClosed) }

func (h *Hub) end(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended != nil {
		return
	}
	h.leaveAllLocked()
	if h.ended != nil { // somebody else was faster
		return
	}
	h.ended = cause
	for len(h.holdings.order) > 0 { // what has come meanwhile
		h.endFirstLocked(time.Now())
	}
	h.sweepAt.Stop()
	if h.holdings.timer != nil {
		h.holdings.timer.Stop()
	}
	if h.presence != nil && h.presence.timer != nil {
		h.presence.timer.Stop()
	}
	h.cancel(cause)
	spread, until := max(1, h.limits.DrainSpread), h.frames.next
	for _, s := range h.shards {
		s.noteLocked(func(s *shard) { s.endAll(cause, until, spread) })
	}
}

// Abort cuts every client that is still there.
func (h *Hub) Abort() { h.abort(func(*Client) bool { return true }) }

// AbortBlocked cuts every client whose socket takes nothing, and waits on for those that wait for us.
func (h *Hub) AbortBlocked() { h.abort(func(c *Client) bool { return !c.ready && c.shard.blocked(c) }) }

func (h *Hub) abort(whom func(*Client) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.shards {
		s.noteLocked(func(s *shard) { s.abort(whom) })
	}
}

// WaitEmpty returns when the last client of an ended hub has left and the hub's goroutines have ended, or after
// that long.
func (h *Hub) WaitEmpty(atMost time.Duration) {
	done := make(chan struct{})
	go func() {
		h.running.Wait()
		close(done)
	}()
	timeout := time.NewTimer(atMost)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	}
}
