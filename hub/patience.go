package hub

import (
	"slices"
	"time"
)

// maxPatience is how long a client whose socket is blocked may hold publishers up. It regains a
// twentieth of the time between its turns, so one that never has another holds up nobody twice. Out of
// patience, its queue's limit holds at once: see SlowClient.
const maxPatience = time.Second

func (c *Client) hadTurnLocked(now moment) {
	c.patience = min(maxPatience, c.patience+now.since(c.lastTurn)/20)
	c.lastTurn = now
}

// makeRoomLocked decides what happens when a queue is full, here and nowhere else. While it is we who
// are behind, or publishers still have patience with this client, the message is let in over the
// limit and publishers wait. Otherwise the client is slow.
func (c *Client) makeRoomLocked(m *Message) bool {
	if c.fullSince != 0 {
		return true
	}
	blocked := c.blockedLocked()
	if blocked && c.patience < lookAgain {
		return c.slowLocked(m.size())
	}
	c.hub.pace.full.Add(1)
	c.impatient = time.AfterFunc(c.fullLocked(blocked), c.losePatience)
	return true
}

// lookAgain is how often a full queue is looked at while it is our turn that it waits for. Less
// patience than that is none.
const lookAgain = 20 * time.Millisecond

// fullLocked notes that the queue holds publishers up from now on, and whose doing that is. It returns
// when to look again.
func (c *Client) fullLocked(stuck bool) time.Duration {
	c.fullSince, c.stuck = c.hub.clock.now(), stuck
	if stuck {
		return max(c.patience, lookAgain)
	}
	return lookAgain
}

// chargeLocked takes from the client's patience the time that its socket kept the queue full.
func (c *Client) chargeLocked() {
	if c.stuck {
		c.patience = max(0, c.patience-c.hub.clock.now().since(c.fullSince))
	}
}

// blockedLocked reports whether the client's socket, and nothing else, keeps its queue from being
// taken.
func (c *Client) blockedLocked() bool { return c.phase == taking && c.stream.Blocked() }

// slowLocked treats the client as slow: it brings the queue back within its limits with room for a
// further message of size bytes, or ends the client. It reports whether the client goes on.
func (c *Client) slowLocked(size int) bool {
	if c.SlowClient != DropOldest {
		c.endLocked(ErrSlow)
		c.stream.Abort()
		return false
	}
	dropped := 0
	for dropped < len(c.queue) && (len(c.queue)-dropped >= c.Queue || c.bytes+size > c.QueueBytes) {
		c.bytes -= c.queue[dropped].size()
		dropped++
	}
	c.queue = slices.Delete(c.queue, 0, dropped)
	c.hub.stats.droppedSlow.Add(uint64(dropped))
	c.gap = true
	return true
}

// losePatience looks at a queue that holds publishers up. Once its socket has kept it full for as long
// as they bear with it, the client is slow.
func (c *Client) losePatience() {
	c.mu.Lock()
	defer c.mu.Unlock()
	blocked := c.blockedLocked()
	switch {
	case c.fullSince == 0:
	case blocked != c.stuck:
		c.nowStuckLocked(blocked)
	case blocked && c.hub.clock.now().since(c.fullSince) >= c.patience:
		c.notFullLocked()
		c.slowLocked(0)
	default: // it is us, or a timer that was stopped too late
		c.impatient.Reset(lookAgain)
	}
}

// nowStuckLocked notes that it is from now on the client's socket that keeps the queue full, or no longer.
func (c *Client) nowStuckLocked(stuck bool) {
	c.chargeLocked()
	c.impatient.Reset(c.fullLocked(stuck))
}

// notFullLocked ends the time in which a full queue holds publishers up.
func (c *Client) notFullLocked() {
	if c.fullSince == 0 {
		return
	}
	c.impatient.Stop()
	c.chargeLocked()
	c.fullSince = 0
	c.hub.pace.emptied()
}
