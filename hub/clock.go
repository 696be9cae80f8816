package hub

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"time"
)

// This file is what happens to clients in time, and how their streams end. Each client has one appointment at a
// time, for whatever comes first of heartbeat, idle_timeout, max_age, expiry, and the end of a poll's wait. One timer
// a shard serves them all.

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

// appoint makes a client's next appointment, in the place of any it had; at the zero moment it has none.
func (s *shard) appoint(c *Client, at moment) {
	if c.appointment != 0 {
		heap.Remove(&s.appointments, c.slot)
	}
	if c.appointment = at; at != 0 {
		heap.Push(&s.appointments, c)
	}
}

// watch looks at all clients whose appointment has come.
func (s *shard) watch() {
	for len(s.appointments) > 0 && s.appointments[0].appointment.due(s.now) {
		s.attend(s.appointments[0])
	}
}

// attend ends a client whose time has come, or sends it a heartbeat if it was silent.
func (s *shard) attend(c *Client) {
	switch {
	case c.over || c.ending.Load() != nil:
		s.appoint(c, 0)
		return
	case c.expires.due(s.now):
		s.endNow(c, ErrExpired, farewell("expired"))
		return
	case c.answer != nil && c.answer.waits.due(s.now):
		s.conclude(c)
		return
	case c.ends.due(s.now):
		s.endNow(c, ErrMaxAge)
		return
	case c.IdleTimeout > 0 && s.now.since(c.lastMessage) >= c.IdleTimeout:
		s.endNow(c, ErrIdle)
		return
	}
	if c.Heartbeat > 0 && c.ready && c.late == nil && s.now.since(c.lastTurn) >= c.Heartbeat {
		_, c.ready = s.send(c, []*Frame{heartbeat}, nil)
	}
	s.appoint(c, c.nextWatch(s.now))
}

// nextWatch returns when the client should be looked at again, if ever.
func (c *Client) nextWatch(now moment) (next moment) {
	earliest := func(m moment) {
		if m != 0 && (next == 0 || m < next) {
			next = m
		}
	}
	earliest(c.expires)
	earliest(c.ends)
	if c.answer != nil {
		earliest(c.answer.waits)
	}
	if c.IdleTimeout > 0 {
		earliest(c.lastMessage.after(c.IdleTimeout))
	}
	if c.Heartbeat > 0 {
		silent := c.lastTurn.after(c.Heartbeat)
		if silent <= now { // its stream is at work
			silent = now.after(c.Heartbeat)
		}
		earliest(silent)
	}
	return next
}

// endNow ends a client behind what has been published by now.
func (s *shard) endNow(c *Client, cause error, last ...*Frame) {
	s.appoint(c, 0)
	s.end(c, &ending{cause: cause, until: s.hub.head.Load(), frames: last})
}

// end begins the end of a client, unless it has begun.
func (s *shard) end(c *Client, e *ending) {
	if c.over || !c.ending.CompareAndSwap(nil, e) {
		return
	}
	switch {
	case c.late == nil:
		s.ending = append(s.ending, c)
	case c.ready:
		s.enqueue(c)
	}
}

// endAt ends the clients of an address that one user, if there is one, does not share.
func (s *shard) endAt(a Address, user string, e ending) {
	set := s.index.get(a)
	if set == nil {
		return
	}
	for _, m := range set.members {
		if user == "" || m.client.User != user {
			own := e
			s.end(m.client, &own)
		}
	}
}

// endAll ends every client behind what was published before a place of the log.
func (s *shard) endAll(cause error, until uint64, spread time.Duration) {
	for _, m := range s.index.everybody.members {
		c, e := m.client, &ending{cause: cause, until: until}
		if cause != ErrDraining {
			s.end(c, e)
			continue
		}
		e.retry = retryFrame(c.Retry + rand.N(spread))
		if s.end(c, e); c.over || c.ending.Load() != e {
			continue
		}
		c.retryPending = true
		if c.ready { // first of all: who takes no more has at least that
			if taken, ready := s.send(c, []*Frame{e.retry}, nil); taken > 0 {
				c.ready, c.retryPending = ready, false
			} else {
				c.ready = ready
			}
		}
	}
}

// finishAll tells farewell to those that have all that they were to get.
func (s *shard) finishAll() {
	left := s.ending[:0]
	for _, c := range s.ending {
		switch {
		case c.over || c.late != nil || !c.ready: // its turn, or its stream's news, ends it
		case c.until() > s.at && c.from < c.until():
			left = append(left, c)
		default:
			s.finish(c)
		}
	}
	clear(s.ending[len(left):])
	if s.ending = left; len(left) == 0 {
		s.ending = nil
	}
}

// finish tells farewell to a live client whose stream is ready, and ends the stream.
func (s *shard) finish(c *Client) {
	e := c.ending.Load()
	if c.retryPending && e.retry != nil {
		e.frames, c.retryPending = slices.Concat([]*Frame{e.retry}, e.frames), false
	}
	taken, ready := s.send(c, e.frames, e.cause)
	c.ready = ready
	if e.frames = e.frames[taken:]; len(e.frames) == 0 && !c.answer.isOpen() && !c.coding.lacksTrailer(e.cause) {
		c.over = true
	}
}

// abort cuts the clients for which that is asked.
func (s *shard) abort(whom func(*Client) bool) {
	for _, m := range s.index.everybody.members {
		if c := m.client; whom(c) {
			s.cut(c)
		}
	}
}

func (s *shard) cut(c *Client) {
	defer s.survive(c)
	c.stream.Abort()
}
