package hub

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// shard is one goroutine that reads the log for its part of the clients, and calls their streams. It owns these
// clients and their index: nothing of that has a lock.
type shard struct {
	hub    *Hub
	number int
	wake   chan struct{}
	// sleeping tells that the goroutine waits for wake, or is about to.
	sleeping atomic.Bool
	// floor is the place of the first frame that the shard, or a late client of it that could be written to, has
	// yet to read in the ring; the last there is while it is idle or resting.
	floor atomic.Uint64

	// open is how many expressions of its clients' templates are open.
	open atomic.Int64

	// What follows is guarded by Hub.mu.
	notes   []func(*shard) // to be done before the next messages
	working bool           // the goroutine runs
	idle    bool           // there are no clients, and the log is not read
	resting bool           // it has read all, and what nobody is to get since need not be read
	restart uint64         // where to read on after either; 0 if it was not
	pin     uint64         // from this place on history is needed by clients that could be written to
	newPin  uint64         // the same, by clients whose streams have not begun yet
	joinPin uint64         // the same, by clients that have joined since notes were taken

	postedMu sync.Mutex // guards posted
	posted   []*Client  // whose stream has news

	// All below belong to the goroutine.
	at           uint64 // the place of the next frame to read
	index        index
	now          moment
	sends        int // since now was looked up
	appointments appointments
	timer        *time.Timer
	timerAt      moment
	line         []*Client // late clients whose streams are ready
	greeted      []*Client // late clients whose streams have not been ready yet
	pinned       uint64    // pin, as it was set last
	reached      Position  // where what readLate returns ends
	ending       []*Client // that are to be told farewell
	batch        []*Frame
	batchEnd     uint64         // the place behind batch
	taken        []func(*shard) // notes
	noticed      []*Client
	touched      []*clientSet // that the batch has something for
	receivers    []*Client
	current      *Frame
	touch        func(*clientSet)
	stamp        uint64
	scratch      []*Frame
	spare        [][]*Frame // for pending
	counted      counted
	renderings   renderings
	formed       []*Frame // what a stream is given of them
	pieces       pieces
}

// nowFor is for how many sends a look at the clock counts.
const nowFor = 16

func newShard(h *Hub, number int) *shard {
	s := &shard{hub: h, number: number, wake: make(chan struct{}, 1), index: newIndex()}
	s.pin, s.newPin, s.joinPin, s.pinned = unpinned, unpinned, unpinned, unpinned
	s.touch = s.touchSet
	s.floor.Store(math.MaxUint64)
	return s
}

// Shards is how many goroutines call streams.
func (h *Hub) Shards() int { return len(h.shards) }

// enterLocked takes a client that joins. Called with Hub.mu held.
func (s *shard) enterLocked(c *Client) {
	next := s.hub.frames.next
	switch {
	case !s.working:
		s.working, s.at = true, next
		s.floor.Store(next)
		s.hub.running.Go(s.run)
	case s.idle:
		s.idle, s.restart = false, next
		s.floor.Store(next)
	}
	s.noteLocked(func(s *shard) { s.add(c) })
}

// heardLocked has the shards read on that rest, at a frame that somebody is to get. Called with Hub.mu held.
func (h *Hub) heardLocked(seq uint64) {
	for _, s := range h.shards {
		if s.resting {
			s.resting, s.restart = false, seq
			s.floor.Store(seq)
		}
	}
}

// noteLocked has something done before the next messages. Called with Hub.mu held.
func (s *shard) noteLocked(do func(*shard)) {
	if s.working {
		s.notes = append(s.notes, do)
		s.poke()
	}
}

// post notes that a client's stream has news.
func (s *shard) post(c *Client) {
	s.postedMu.Lock()
	s.posted = append(s.posted, c)
	s.postedMu.Unlock()
	s.poke()
}

// poke wakes the goroutine if it sleeps.
func (s *shard) poke() {
	if s.sleeping.Load() && s.sleeping.CompareAndSwap(true, false) {
		s.wake <- struct{}{}
	}
}

// run reads the log until the hub has ended and the last client has left.
func (s *shard) run() {
	for {
		if s.cycle() {
			continue
		}
		if s.rest() {
			return
		}
		s.sleep()
	}
}

// rest ends the reading of the log if there are no clients. It reports whether there will be none any more.
func (s *shard) rest() (over bool) {
	if len(s.index.everybody.members) > 0 {
		return false
	}
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(s.notes) > 0 {
		return false
	}
	s.idle = true
	s.floor.Store(math.MaxUint64)
	if h.ended == nil {
		return false
	}
	s.working = false
	if s.timer != nil {
		s.timer.Stop()
	}
	return true
}

// sleep returns when there is something to do.
func (s *shard) sleep() {
	clear(s.scratch[:cap(s.scratch)])
	clear(s.batch[:cap(s.batch)])
	clear(s.formed[:cap(s.formed)])
	s.renderings.forget()
	s.pieces.forget()
	s.sleeping.Store(true)
	if !s.lieDown() {
		if s.sleeping.CompareAndSwap(true, false) {
			return
		}
		<-s.wake // somebody has just sent it
		return
	}
	if len(s.appointments) == 0 {
		<-s.wake
		return
	}
	if next := s.appointments[0].appointment; s.timer == nil {
		s.timer = time.NewTimer(next.since(s.hub.times.now()))
		s.timerAt = next
	} else if next != s.timerAt {
		s.timer.Reset(next.since(s.hub.times.now()))
		s.timerAt = next
	}
	select {
	case <-s.wake:
	case <-s.timer.C:
		s.timerAt = 0
		if !s.sleeping.CompareAndSwap(true, false) {
			<-s.wake
		}
	}
}

// lieDown lets the shard rest, unless anything has come since the last cycle. It reports whether it does.
func (s *shard) lieDown() bool {
	if s.hasPosts() {
		return false
	}
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.hasWorkLocked() {
		return false
	}
	if !s.idle {
		s.resting = true
		s.floor.Store(math.MaxUint64)
	}
	return true
}

func (s *shard) hasPosts() bool {
	s.postedMu.Lock()
	defer s.postedMu.Unlock()
	return len(s.posted) > 0
}

// hasWorkLocked reports whether there are notes, or frames to read. Called with Hub.mu held.
func (s *shard) hasWorkLocked() bool {
	return len(s.notes) > 0 || s.restart > 0 || !s.idle && !s.resting && s.hub.frames.next > s.at
}

// Quiet reports whether all that has happened to the hub has reached its clients' streams, as far as they take it. It is
// for tests: others have no use for a moment that may be over.
func (h *Hub) Quiet() bool {
	for _, s := range h.shards {
		h.mu.Lock()
		busy := s.working && (!s.sleeping.Load() || s.hasWorkLocked())
		h.mu.Unlock()
		if busy || s.hasPosts() {
			return false
		}
	}
	return true
}

// cycle looks at what has happened to clients, then delivers some messages, then gives late clients a turn each. It
// reports whether there is more to do.
func (s *shard) cycle() (more bool) {
	head := s.read()
	s.now, s.sends = s.hub.times.now(), 0
	for i, note := range s.taken {
		note(s)
		s.taken[i] = nil
	}
	s.noticeAll()
	s.watch()
	end := s.batchEnd
	s.deliver()
	s.at = end
	s.finishAll()
	s.giveTurns()
	s.settle()
	return head > end || len(s.line) > 0
}

// read takes the next frames from the log, and then the notes: so whatever was noted before one of these frames was
// published is done before it is delivered. It returns the place that the log has reached.
func (s *shard) read() (head uint64) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case s.restart > 0:
		s.at, s.restart = s.restart, 0
	case s.resting:
		s.at, s.resting = h.frames.next, false
		s.floor.Store(s.at)
	}
	head, s.batchEnd = s.at, s.at
	if !s.idle {
		head = h.frames.next
		s.batch, s.batchEnd = h.frames.collect(s.batch[:0], s.at, head, h.most.batch)
	}
	s.notes, s.taken = s.taken[:0], s.notes
	s.newPin = min(s.newPin, s.joinPin)
	s.joinPin = unpinned
	return head
}

// noticeAll tells streams their news.
func (s *shard) noticeAll() {
	s.postedMu.Lock()
	s.posted, s.noticed = s.noticed[:0], s.posted
	s.postedMu.Unlock()
	for i, c := range s.noticed {
		s.noticed[i] = nil
		news := News(c.news.Swap(0))
		if c.over && c.stream == nil {
			continue
		}
		if s.notice(c, news) {
			s.becameReady(c)
		}
	}
}

func (s *shard) becameReady(c *Client) {
	c.ready = true
	switch {
	case c.over:
	case c.late != nil:
		s.enqueue(c)
	case c.ending.Load() != nil:
		s.ending = append(s.ending, c)
	}
}

// enqueue puts a late client whose stream is ready in line for a turn.
func (s *shard) enqueue(c *Client) {
	if !c.inLine {
		c.inLine = true
		s.line = append(s.line, c)
	}
}

// add takes a client that has joined.
func (s *shard) add(c *Client) {
	s.index.add(c)
	s.open.Store(s.index.open())
	s.appoint(c, c.nextWatch(s.now))
	if c.late != nil {
		s.greeted = append(s.greeted, c)
	}
}

// remove lets go of a client that has left.
func (s *shard) remove(c *Client) {
	c.over, c.ready, c.late = true, false, nil
	s.index.remove(c)
	s.open.Store(s.index.open())
	s.appoint(c, 0)
}

// send calls the stream's Send, and counts what it took.
func (s *shard) send(c *Client, frames []*Frame, end error) (taken int, ready bool) {
	defer s.survive(c)
	if s.sends++; s.sends == nowFor {
		s.now, s.sends = s.hub.times.now(), 0
	}
	switch c.Form {
	case Events:
		taken, ready = s.hand(c, frames, end)
	case Answer:
		taken, ready = s.sendAnswer(c, frames, end)
	case Updates:
		taken, ready = s.sendUpdates(c, frames, end)
	default:
		s.formed = s.renderings.of(s.formed[:0], frames, c.Form, c)
		taken, ready = s.hand(c, s.formed, end)
	}
	if taken > 0 {
		s.took(c, frames[:taken])
	}
	return taken, ready
}

// hand calls the stream's Send, with frames in the client's form.
func (s *shard) hand(c *Client, frames []*Frame, end error) (taken int, ready bool) {
	if c.coding != nil {
		return s.sendCompressed(c, frames, end)
	}
	return c.stream.Send(frames, end)
}

// notice calls the stream's Notice.
func (s *shard) notice(c *Client, news News) (ready bool) {
	defer s.survive(c)
	return c.stream.Notice(news)
}

// blocked calls the stream's Blocked.
func (s *shard) blocked(c *Client) bool {
	defer s.survive(c)
	return c.stream.Blocked()
}

// took notes what a client's stream took.
func (s *shard) took(c *Client, frames []*Frame) {
	c.lastTurn = s.now
	messages, bytes, retry := s.counted.add(&s.hub.stats, frames, c.joined, s.now)
	if messages > 0 {
		c.lastMessage = s.now
		c.sentMessages.Store(c.sentMessages.Load() + messages)
		c.sentBytes.Store(c.sentBytes.Load() + bytes)
	}
	c.retryPending = c.retryPending || retry
}

// survive ends a client whose stream panics.
func (s *shard) survive(c *Client) {
	if recover() == nil {
		return
	}
	c.over, c.ready = true, false
	stream := c.stream
	go func() {
		defer func() { _ = recover() }()
		defer func() { _ = s.hub.Leave(c, ErrAborted) }()
		stream.Abort()
	}()
}
