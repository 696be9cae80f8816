package hub

import (
	"container/heap"
	"sync"
	"time"
)

// clock has every client of a hub watched when its time has come. One timer serves them all.
type clock struct {
	began time.Time

	mu      sync.Mutex // guards all below; goes after any Client.mu
	waiting appointments
	timer   *time.Timer
	wall    time.Time // when it began by the clock on the wall; looked up anew when that was set
}

func newClock() *clock { return &clock{began: time.Now().Add(-1)} }

func (k *clock) moment(t time.Time) moment { return moment(t.Sub(k.began)) }

// fromWall returns when a time by the clock on the wall will be, unless that is set before; never for the zero time.
func (k *clock) fromWall(t time.Time) moment {
	if t.IsZero() {
		return 0
	}
	return k.now().after(time.Until(t))
}

// time returns when a moment was by the clock on the wall: the same each time, unless that was set by more than a second.
func (k *clock) time(m moment) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	began := time.Now().Round(0).Add(-time.Duration(k.now()))
	if began.Sub(k.wall).Abs() > time.Second {
		k.wall = began
	}
	return k.wall.Add(time.Duration(m)).Round(time.Millisecond)
}

func (k *clock) now() moment { return moment(time.Since(k.began)) }

// set makes a client's next appointment, in the place of any it had; at the zero moment it has none.
func (k *clock) set(c *Client, at moment) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.appointment != 0 {
		heap.Remove(&k.waiting, c.slot)
	}
	if c.appointment = at; at == 0 {
		return
	}
	heap.Push(&k.waiting, c)
	if c.slot == 0 {
		k.windLocked()
	}
}

// windLocked sets the timer to the first appointment.
func (k *clock) windLocked() {
	if len(k.waiting) == 0 {
		return
	}
	left := k.waiting[0].appointment.since(k.now())
	if k.timer == nil {
		k.timer = time.AfterFunc(left, k.ring)
	} else {
		k.timer.Reset(left)
	}
}

// ring runs when the first appointment may have come.
func (k *clock) ring() {
	k.mu.Lock()
	var due []*Client
	for now := k.now(); len(k.waiting) > 0 && k.waiting[0].appointment.due(now); {
		c := heap.Pop(&k.waiting).(*Client)
		c.appointment = 0
		due = append(due, c)
	}
	k.windLocked()
	k.mu.Unlock()
	for _, c := range due {
		c.watch()
	}
}

// appointments is a heap of clients, the earliest first.
type appointments []*Client

func (a appointments) Len() int           { return len(a) }
func (a appointments) Less(i, j int) bool { return a[i].appointment < a[j].appointment }

func (a appointments) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].slot, a[j].slot = i, j
}

func (a *appointments) Push(c any) {
	c.(*Client).slot = len(*a)
	*a = append(*a, c.(*Client))
}

func (a *appointments) Pop() any {
	last := len(*a) - 1
	c := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	return c
}

// watch runs when the first of the client's times may have come: it ends the client, or sends a
// heartbeat if it was silent, and sleeps until the next.
func (c *Client) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clock := c.hub.clock
	now := clock.now()
	switch {
	case c.cause != nil || c.left:
		return
	case c.expires.due(now):
		c.finishLocked(ErrExpired, farewell("expired"))
		return
	case c.ends.due(now):
		c.finishLocked(ErrMaxAge)
		return
	case c.IdleTimeout > 0 && now.since(c.lastMessage) >= c.IdleTimeout:
		c.finishLocked(ErrIdle)
		return
	}
	if c.Heartbeat > 0 && c.phase == asleep && now.since(c.lastTurn) >= c.Heartbeat {
		c.appendLocked(heartbeat)
	}
	clock.set(c, c.nextWatchLocked(now))
}

// nextWatchLocked returns when watch should look again, if ever.
func (c *Client) nextWatchLocked(now moment) (next moment) {
	earliest := func(m moment) {
		if m != 0 && (next == 0 || m < next) {
			next = m
		}
	}
	earliest(c.expires)
	earliest(c.ends)
	if c.IdleTimeout > 0 {
		earliest(c.lastMessage.after(c.IdleTimeout))
	}
	if c.Heartbeat > 0 {
		silent := c.lastTurn.after(c.Heartbeat)
		if silent <= now { // it has its heartbeat, or is at its turn
			silent = now.after(c.Heartbeat)
		}
		earliest(silent)
	}
	return next
}
