package hub

import "slices"

// deliver hands each client what the batch has for it. What is published meanwhile joins the batch: who has yet to get
// its turn gets it in the same write, the others in the next cycle.
func (s *shard) deliver() {
	s.reach(s.batch)
	if len(s.touched) == 1 {
		for i, m := range s.touched[0].members {
			s.giveTurn(m.client, i)
		}
	} else {
		s.findReceivers()
		for i, c := range s.receivers {
			s.receivers[i] = nil
			s.giveTurn(c, i)
		}
		s.receivers = s.receivers[:0]
	}
	s.forgetBatch()
}

// giveTurn gives the nth client of a cycle what the batch has for it by now.
func (s *shard) giveTurn(c *Client, nth int) {
	if nth%s.hub.most.topUp == 0 && s.hub.head.Load() > s.batchEnd {
		s.topUp()
	}
	s.give(c, s.pendingOf(c))
	c.from = max(c.from, s.batchEnd)
}

// topUp adds to the batch what has been published since it was read, unless something is to be done before that.
func (s *shard) topUp() {
	h, had := s.hub, len(s.batch)
	h.mu.Lock()
	if len(s.notes) == 0 {
		s.batch, s.batchEnd = h.frames.collect(s.batch, s.batchEnd, h.frames.next, h.most.batch-had)
	}
	h.mu.Unlock()
	s.reach(s.batch[had:])
}

// reach notes for whom frames are.
func (s *shard) reach(frames []*Frame) {
	for _, f := range frames {
		if !f.is(restored | unheard) {
			s.current = f
			s.index.reached(f, s.touch)
		}
	}
	s.current = nil
}

// touchSet notes that the current frame goes to a set.
func (s *shard) touchSet(set *clientSet) {
	n := len(set.pending)
	switch {
	case len(set.members) == 0:
		return
	case n == 0:
		s.touched = append(s.touched, set)
		if last := len(s.spare) - 1; last >= 0 {
			set.pending, s.spare = s.spare[last], s.spare[:last]
		}
	case set.pending[n-1] == s.current: // a topic named twice
		return
	}
	set.pending = append(set.pending, s.current)
}

// findReceivers lists the clients of several sets, each once.
func (s *shard) findReceivers() {
	s.stamp++
	for _, set := range s.touched {
		for _, m := range set.members {
			if c := m.client; c.stamp != s.stamp {
				c.stamp = s.stamp
				s.receivers = append(s.receivers, c)
			}
		}
	}
}

// pendingOf returns what is pending for a client, each frame once. Mostly that is what is pending for one of its sets,
// and the same memory as for others.
func (s *shard) pendingOf(c *Client) []*Frame {
	if len(s.touched) == 1 {
		return s.touched[0].pending
	}
	var first []*Frame
	all := s.scratch[:0]
	for _, m := range c.memberships {
		switch pending := m.set.pending; {
		case len(pending) == 0:
		case first == nil:
			first = pending
		default:
			if len(all) == 0 {
				all = append(all, first...)
			}
			all = append(all, pending...)
		}
	}
	if len(all) == 0 {
		return first
	}
	slices.SortFunc(all, func(a, b *Frame) int { return int(int64(a.seq - b.seq)) })
	s.scratch = slices.Compact(all)
	s.counted.frames = nil // the same memory as of others
	return s.scratch
}

// forgetBatch lets go of a batch that all have had.
func (s *shard) forgetBatch() {
	for i, set := range s.touched {
		clear(set.pending)
		s.spare = append(s.spare, set.pending[:0])
		set.pending = nil
		s.touched[i] = nil
	}
	s.touched = s.touched[:0]
	if len(s.spare) > maxSpare {
		clear(s.spare[maxSpare:])
		s.spare = s.spare[:maxSpare]
	}
	clear(s.batch)
	s.batch = s.batch[:0]
}

// maxSpare is how many lists of pending frames a shard keeps for further use.
const maxSpare = 64

// give hands a client frames that the log has for it, but for those that it has had.
func (s *shard) give(c *Client, frames []*Frame) {
	frames = c.hears(frames)
	for len(frames) > 0 && frames[0].seq < c.from {
		frames = frames[1:]
	}
	for until := c.until(); len(frames) > 0 && frames[len(frames)-1].seq >= until; {
		frames = frames[:len(frames)-1]
	}
	switch {
	case c.over || len(frames) == 0:
		return
	case c.late != nil || !c.ready:
		s.fallBehind(c, frames)
		return
	}
	taken, ready := s.send(c, frames, nil)
	c.ready = ready
	if taken < len(frames) && !c.over {
		s.fallBehind(c, frames[taken:])
		if ready {
			s.enqueue(c)
		}
	}
}
