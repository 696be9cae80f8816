package hub

import "sync/atomic"

// stats counts what happens in a hub. It lives as long as the hub, so that its numbers are exact
// across reloads.
type stats struct {
	accepted atomic.Uint64 // clients that joined
	limited  atomic.Uint64 // that were one too many
	refused  atomic.Uint64 // that asked for what they may not have

	resumedComplete atomic.Uint64
	resumedGap      atomic.Uint64

	published        atomic.Uint64 // messages that were published through this instance
	sent             atomic.Uint64 // messages that a client's stream took
	conflated        atomic.Uint64 // messages that a client did not get because they had given way to newer ones
	droppedSlow      atomic.Uint64 // messages dropped by DropOldest
	droppedMalformed atomic.Uint64 // messages of other programs that could not be read

	gaps        [len(reasons) + 1]atomic.Uint64 // by index in reasons; the last is any other
	disconnects [len(causes) + 1]atomic.Uint64  // by index in causes; the last is any other

	buckets [len(LatencyBounds) + 1]atomic.Uint64 // of delivery times
	micros  atomic.Uint64                         // their sum
}

// reasons are why clients are told gaps.
var reasons = [...]string{reasonUnknownID, reasonTrimmed, reasonSlow, reasonLogLost, reasonBrokerChanged}

// LatencyBounds are the upper bounds of the buckets of delivery times, in seconds.
var LatencyBounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// Stats are a hub's numbers at a moment.
type Stats struct {
	Clients      int
	HistoryBytes int64
	Topics       int // that have clients or kept messages; patterns included

	Accepted, Limited, Refused  uint64 // connections
	ResumedComplete, ResumedGap uint64
	Published, Sent             uint64 // messages
	Conflated                   uint64 // messages that clients did not get because they had given way to newer ones
	DroppedSlow                 uint64
	DroppedMalformed            uint64
	Gaps                        map[string]uint64 // by reason
	Disconnects                 map[string]uint64 // by cause
	Delivery                    Histogram         // from the hub's having a message to a stream's having taken it
}

// Histogram counts durations as Prometheus does: each bucket counts all that is not above its bound.
type Histogram struct {
	Count   uint64   `json:"count"`
	Seconds float64  `json:"sum_seconds"`
	Buckets []Bucket `json:"buckets"`
}

// Bucket is one bucket of a Histogram.
type Bucket struct {
	Bound float64 `json:"le"` // in seconds
	Count uint64  `json:"count"`
}

// Stats returns the hub's numbers.
func (h *Hub) Stats() Stats {
	s := &h.stats
	now := Stats{
		Accepted: s.accepted.Load(), Limited: s.limited.Load(), Refused: s.refused.Load(),
		ResumedComplete: s.resumedComplete.Load(), ResumedGap: s.resumedGap.Load(),
		Published: s.published.Load(), Sent: s.sent.Load(),
		Conflated: s.conflated.Load(), DroppedSlow: s.droppedSlow.Load(), DroppedMalformed: s.droppedMalformed.Load(),
		Gaps:        make(map[string]uint64, len(reasons)),
		Disconnects: map[string]uint64{otherCause: s.disconnects[len(causes)].Load()},
	}
	for i, reason := range reasons {
		now.Gaps[reason] = s.gaps[i].Load()
	}
	for i, cause := range causes {
		now.Disconnects[cause.name] = s.disconnects[i].Load()
	}
	for i := range s.buckets {
		now.Delivery.Count += s.buckets[i].Load()
		if i < len(LatencyBounds) {
			now.Delivery.Buckets = append(now.Delivery.Buckets, Bucket{LatencyBounds[i], now.Delivery.Count})
		}
	}
	now.Delivery.Seconds = float64(s.micros.Load()) / 1e6
	h.mu.Lock()
	defer h.mu.Unlock()
	now.Clients, now.HistoryBytes = h.audience.everybody, h.history.bytes
	now.Topics = h.topicsLocked()
	return now
}

// CountPublished counts messages that were published through this instance.
func (h *Hub) CountPublished(n int) { h.stats.published.Add(uint64(n)) }

// CountRefused counts a connection that asked for what it may not have, and got no further than that.
func (h *Hub) CountRefused() { h.stats.refused.Add(1) }

// CountMalformed counts a message of another program that could not be read.
func (h *Hub) CountMalformed() { h.stats.droppedMalformed.Add(1) }

func (s *stats) accept(w Welcome) {
	s.accepted.Add(1)
	switch w.Resume {
	case ResumeComplete:
		s.resumedComplete.Add(1)
	case ResumeGap:
		s.resumedGap.Add(1)
		s.gap(w.Reason, 1)
	case ResumeNone:
	}
}

func (s *stats) refuse(err error) {
	switch err {
	case ErrHubFull, ErrTooManyFromHere, ErrTooManyOpen:
		s.limited.Add(1)
	case ErrClientIDOwned, ErrClientIDBarred:
		s.refused.Add(1)
	}
}

func (s *stats) gap(reason string, clients uint64) {
	i := 0
	for i < len(reasons) && reasons[i] != reason {
		i++
	}
	s.gaps[i].Add(clients)
}

func (s *stats) disconnected(cause error) { s.disconnects[indexOf(cause)].Add(1) }

// counted is what a shard has added last, for the next client that is given the same at the same moment.
type counted struct {
	frames          []*Frame
	now             moment
	messages, bytes uint64
	retry           bool
	buckets         [len(LatencyBounds) + 1]uint64
	micros          uint64
}

// add counts the frames that a client's stream has taken. Those from before it joined were kept for it; how long is
// not the delivery's doing.
func (k *counted) add(s *stats, frames []*Frame, joined, now moment) (messages, bytes uint64, retry bool) {
	known := k.now == now && len(frames) == len(k.frames) && &frames[0] == &k.frames[0]
	if !known || frames[0].arrived < joined {
		k.look(frames, joined, now)
	}
	for i, n := range k.buckets {
		if n > 0 {
			s.buckets[i].Add(n)
		}
	}
	s.sent.Add(k.messages)
	s.micros.Add(k.micros)
	return k.messages, k.bytes, k.retry
}

func (k *counted) look(frames []*Frame, joined, now moment) {
	*k = counted{frames: frames, now: now}
	for _, f := range frames {
		k.retry = k.retry || f.is(hasRetry)
		if !f.published() {
			continue
		}
		k.messages++
		k.bytes += uint64(f.size())
		if f.arrived < joined {
			k.now = 0 // another client may have been there
			continue
		}
		delay := now.since(f.arrived)
		k.micros += uint64(max(0, delay).Microseconds())
		k.buckets[bucketOf(delay.Seconds())]++
	}
}

func bucketOf(seconds float64) int {
	i := 0
	for i < len(LatencyBounds) && seconds > LatencyBounds[i] {
		i++
	}
	return i
}
