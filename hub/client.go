package hub

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Stream carries a client's messages to its socket. The hub calls its methods with locks held: they
// return at once.
type Stream interface {
	// Wake tells that there is something to Take. It is called once for each time that Take
	// returned nothing, or Rest false.
	Wake()
	// Abort ends the stream without waiting for anything, a write under way included.
	Abort()
	// Blocked reports whether it is the client's socket that the stream waits for, not its turn on
	// this machine. A stream that cannot tell says yes while it is writing.
	Blocked() bool
}

// phase is where a client is in its turns.
type phase uint8

const (
	asleep phase = iota // nothing waits; the stream sleeps until Wake
	woken               // Wake was called; what is queued waits for our machine
	taking              // the stream writes, and will Take again before it sleeps
)

// Client is one connection's place in a hub: a bounded queue between the hub, which appends, and a
// stream, which takes. It needs no goroutine; a timer watches its heartbeat and its ends.
type Client struct {
	Subscriber
	hub     *Hub
	joined  moment
	expires moment // when its authorization ends; zero never

	memberships []membership  // guarded by Hub.mu
	first       [3]membership // where memberships begin, so that most clients need no memory besides
	seen        uint64        // the last delivery that reached it; guarded by Hub.mu
	serial      uint64        // grows with each client of the hub that joins

	appointment moment // when it is to be watched; guarded by clock.mu
	slot        int    // of it in clock.waiting, while it has one; guarded by clock.mu

	sentMessages, sentBytes uint64 // what its socket has taken; the stream's own

	mu     sync.Mutex // guards all below
	stream Stream
	queue  []*Message
	bytes  int // of queue
	phase  phase
	left   bool
	gap    bool // messages were dropped from before the queue
	stuck  bool // since fullSince it is its socket that keeps the queue full, not we
	// catchingUp: kept messages after cursor are still to be read from the hub's history. Until
	// that is done only ephemeral messages are queued.
	catchingUp bool
	cursor     Position
	toldLost   Position // the newest loss from history that it was told of
	cause      error    // why the stream ends once the queue has been taken; nil while it goes on
	exitRetry  *Message // when it is to come back, from drain on: told again behind messages that tell another retry

	patience  time.Duration // as of lastTurn
	lastTurn  moment        // when it last took, be it nothing
	fullSince moment        // when the queue came to hold publishers up; zero while it does not
	impatient *time.Timer   // runs while fullSince is set

	lastMessage moment // when a message was last taken
	ends        moment // by MaxAge
}

// enqueue appends a message and wakes the stream if it sleeps. It reports whether the client still
// takes messages. Called with Hub.mu held.
func (c *Client) enqueue(m *Message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil || c.left {
		return false
	}
	if c.catchingUp && !m.Ephemeral {
		return true // it will be read from history
	}
	if len(c.queue) > 0 && (len(c.queue) >= c.Queue || c.bytes+m.size() > c.QueueBytes) && !c.makeRoomLocked(m) {
		return false
	}
	c.appendLocked(m)
	return true
}

func (c *Client) appendLocked(m *Message) {
	c.queue = append(c.queue, m)
	c.bytes += m.size()
	c.wakeLocked()
	if c.phase == woken {
		c.hub.pace.waiting.Add(1)
	}
}

func (c *Client) wakeLocked() {
	if c.phase == asleep {
		c.phase = woken
		c.hub.pace.woken.Add(1)
		c.stream.Wake()
	}
}

// Take hands over what waits for the client, appended to batch; the stream writes it and calls Take
// again. When nothing is handed over and err is nil the stream sleeps until Wake. An err is why the
// stream ends; nothing comes after it.
func (c *Client) Take(batch []*Message) (_ []*Message, err error) {
	c.mu.Lock()
	if c.catchingUp { // reading history takes the hub's lock, which goes before ours
		c.mu.Unlock()
		c.hub.mu.Lock()
		defer c.hub.mu.Unlock()
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	if c.left {
		return batch, c.cause
	}
	c.notFullLocked()
	now := c.hub.clock.now()
	if c.phase != asleep {
		c.hadTurnLocked(now)
	}
	if c.phase == woken {
		c.hub.pace.took(len(c.queue))
	}
	c.phase = taking
	taken := len(batch)
	if c.catchingUp {
		batch = c.replayLocked(batch)
	}
	if !c.catchingUp {
		batch = c.takeQueueLocked(batch)
	}
	if c.exitRetry != nil && slices.ContainsFunc(batch[taken:], func(m *Message) bool { return m.HasRetry }) {
		batch = append(batch, c.exitRetry)
	}
	switch {
	case len(batch) > taken:
		if slices.ContainsFunc(batch[taken:], (*Message).published) {
			c.lastMessage = now
		}
	case c.cause != nil:
		return batch, c.cause
	default:
		c.phase = asleep
	}
	return batch, nil
}

// Rest ends the turn of a stream that lets others go first before it takes again. It reports whether
// something waits already: then the stream has another turn without a Wake.
func (c *Client) Rest() (more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 && !c.gap && !c.catchingUp && c.cause == nil {
		c.phase = asleep
		return false
	}
	if c.fullSince != 0 && c.stuck { // its socket has taken what it had; from now on the queue waits for us
		c.nowStuckLocked(false)
	}
	c.phase = woken
	c.hub.pace.woken.Add(1)
	c.hub.pace.waiting.Add(int64(len(c.queue)))
	return true
}

// HandOver gives the client to another stream, which goes on where the one before it had its turn.
func (c *Client) HandOver(to Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream = to
}

// abortIf cuts the stream if the condition, which is asked with mu held, is met.
func (c *Client) abortIf(met func(*Client) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if met(c) {
		c.stream.Abort()
	}
}

// Wrote notes that the socket has taken a batch. The stream calls it.
func (c *Client) Wrote(batch []*Message) {
	messages, bytes := c.hub.stats.wrote(batch, c.joined, c.hub.clock.now())
	c.sentMessages += messages
	c.sentBytes += bytes
}

// ToldLost returns up to where the stream has been told by gaps that messages may be missing. The stream calls it, behind
// Take.
func (c *Client) ToldLost() Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.toldLost
}

// Serial tells the client from all others of its hub.
func (c *Client) Serial() uint64 { return c.serial }

// Age returns how long ago the client joined.
func (c *Client) Age() time.Duration { return c.hub.clock.now().since(c.joined) }

// Sent returns how many messages and bytes of them the socket has taken. The stream calls it.
func (c *Client) Sent() (messages, bytes uint64) { return c.sentMessages, c.sentBytes }

func (c *Client) takeQueueLocked(batch []*Message) []*Message {
	batch = append(c.takeGapLocked(batch), c.queue...)
	clear(c.queue)
	c.queue, c.bytes = c.queue[:0], 0
	if cap(c.queue) > window {
		c.queue = nil // an idle client keeps no large queue
	}
	return batch
}

// takeGapLocked appends what is to be told before the first of the queue.
func (c *Client) takeGapLocked(batch []*Message) []*Message {
	if c.gap {
		batch = append(batch, gapFrame("", "slow_client"))
		c.gap = false
	}
	return batch
}

// replayLocked appends the next messages from history, no more than a full queue, and among them the
// ephemeral ones that came meanwhile. Called with Hub.mu held.
func (c *Client) replayLocked(batch []*Message) []*Message {
	h := c.hub.history
	addresses := c.addresses()
	logs := h.logsOf(addresses, c.Patterns, c.cursor, time.Now())
	if lost := h.lost(addresses, c.Patterns, c.cursor); lost.After(c.cursor) && lost.After(c.toldLost) {
		batch = append(batch, gapFrame("", "history_trimmed"))
		c.toldLost = lost
	}
	kept, more := after(logs, c.cursor, c.Queue, c.QueueBytes)
	for _, m := range kept {
		for len(c.queue) > 0 && m.Position.After(c.queue[0].Position) {
			batch = append(c.takeGapLocked(batch), c.queue[0])
			c.bytes -= c.queue[0].size()
			c.queue = slices.Delete(c.queue, 0, 1)
		}
		batch = append(batch, m)
		c.cursor = m.Position
	}
	c.catchingUp = more // what is queued stands behind what is still to come
	return batch
}

// finish ends the stream once everything queued and the last frames have been taken.
func (c *Client) finish(cause error, last ...*Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishLocked(cause, last...)
}

func (c *Client) finishLocked(cause error, last ...*Message) {
	if c.cause != nil || c.left {
		return
	}
	c.notFullLocked()
	for _, m := range last {
		c.appendLocked(m)
	}
	c.cause = cause
	c.catchingUp = false // the rest of the past is for when it comes back
	c.wakeLocked()
}

// drain ends the stream once all that is meant for the client has been taken, behind its retry, which counts.
func (c *Client) drain(retry *Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil || c.left {
		return
	}
	c.notFullLocked()
	c.cause = ErrDraining
	c.wakeLocked()
	c.exitRetry = retry
	c.queue = slices.Insert(c.queue, 0, retry)
	c.bytes += retry.size()
	if c.phase == woken {
		c.hub.pace.waiting.Add(1)
	}
}

// stopCatchingUp ends a replay whose history is no more.
func (c *Client) stopCatchingUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.catchingUp = false
}

// tell queues something the hub has to say.
func (c *Client) tell(m *Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil && !c.left {
		c.appendLocked(m)
	}
}

// start begins the client's times. Called once, before anything is queued.
func (c *Client) start(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.hub.clock.moment(now)
	c.joined, c.lastTurn, c.lastMessage = at, at, at
	if c.MaxAge > 0 {
		c.ends = at.after(c.MaxAge - rand.N(c.MaxAge/10+1))
	}
	c.hub.clock.set(c, c.nextWatchLocked(at))
}

// endLocked ends the stream without anything further.
func (c *Client) endLocked(cause error) {
	c.cause = cause
	c.catchingUp = false
	c.queue, c.bytes = nil, 0
}

// leave stops all that still runs for the client and returns why it ended. Called with Hub.mu held.
func (c *Client) leave(cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = true
	if c.cause == nil {
		c.cause = cause
	}
	c.notFullLocked()
	if c.phase == woken {
		c.hub.pace.took(len(c.queue))
		c.phase = taking
	}
	c.queue = nil
	c.hub.clock.set(c, 0)
	return c.cause
}
