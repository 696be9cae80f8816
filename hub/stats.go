package hub

import (
	"sync/atomic"
)

// stats counts what happens in a hub. It lives as long as the hub, so that its numbers are exact
// across reloads.
type stats struct {
	accepted atomic.Uint64 // clients that joined
	limited  atomic.Uint64 // that were one too many
	refused  atomic.Uint64 // that asked for what they may not have

	resumedComplete atomic.Uint64
	resumedGap      atomic.Uint64

	published        atomic.Uint64 // messages that were published through this instance
	sent             atomic.Uint64 // messages that a client's socket took
	droppedSlow      atomic.Uint64 // messages dropped by DropOldest
	droppedMalformed atomic.Uint64 // messages of other programs that could not be read

	disconnects [len(causes) + 1]atomic.Uint64 // by index in causes; the last is any other
	delivery    latencies
}

// Stats are a hub's numbers at one moment. They count from the hub's beginning, whatever configs came and went.
type Stats struct {
	Clients      int   // connected now
	HistoryBytes int64 // of the messages that are kept

	Accepted uint64 // clients that joined
	Limited  uint64 // requests to subscribe that were one too many
	Refused  uint64 // requests to subscribe for what may not be had

	ResumedComplete uint64 // clients that were told "complete"
	ResumedGap      uint64 // clients that were told "gap"

	Published        uint64 // messages published through this instance
	Sent             uint64 // messages that a client's socket has taken
	DroppedSlow      uint64 // messages dropped for slow clients
	DroppedMalformed uint64 // messages of other programs that could not be read

	Disconnects map[string]uint64 // streams that have ended, by NameOf their cause
	Delivery    Histogram         // seconds from the log's having a message to a socket's having taken it
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
	clients, historyBytes := h.Size()
	all := Stats{
		Clients:          clients,
		HistoryBytes:     historyBytes,
		Accepted:         s.accepted.Load(),
		Limited:          s.limited.Load(),
		Refused:          s.refused.Load(),
		ResumedComplete:  s.resumedComplete.Load(),
		ResumedGap:       s.resumedGap.Load(),
		Published:        s.published.Load(),
		Sent:             s.sent.Load(),
		DroppedSlow:      s.droppedSlow.Load(),
		DroppedMalformed: s.droppedMalformed.Load(),
		Disconnects:      map[string]uint64{otherCause: s.disconnects[len(causes)].Load()},
		Delivery:         s.delivery.histogram(),
	}
	for i, cause := range causes {
		all.Disconnects[cause.name] = s.disconnects[i].Load()
	}
	return all
}

// CountPublished counts a message that was published through this instance.
func (h *Hub) CountPublished() { h.stats.published.Add(1) }

// CountMalformed counts a message of another program that could not be read.
func (h *Hub) CountMalformed() { h.stats.droppedMalformed.Add(1) }

// CountRefused counts a request to subscribe that was refused before it came to the hub.
func (h *Hub) CountRefused() { h.stats.refused.Add(1) }

func (s *stats) accept(resume Resume) {
	s.accepted.Add(1)
	switch resume {
	case ResumeComplete:
		s.resumedComplete.Add(1)
	case ResumeGap:
		s.resumedGap.Add(1)
	case ResumeNone:
	}
}

func (s *stats) refuse(err error) {
	switch err {
	case ErrHubFull, ErrTooManyFromHere:
		s.limited.Add(1)
	case ErrClientIDOwned, ErrClientIDBarred:
		s.refused.Add(1)
	}
}

func (s *stats) disconnected(cause error) { s.disconnects[indexOf(cause)].Add(1) }

// latencyBounds are the upper bounds of the buckets of a latencies, in seconds.
var latencyBounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// latencies is a histogram of the time from the log's having a message to a socket's having taken it.
type latencies struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64
	micros  atomic.Uint64 // the sum
}

func (l *latencies) histogram() Histogram {
	all := Histogram{Seconds: float64(l.micros.Load()) / 1e6}
	for i, bound := range latencyBounds {
		all.Count += l.buckets[i].Load()
		all.Buckets = append(all.Buckets, Bucket{bound, all.Count})
	}
	all.Count += l.buckets[len(latencyBounds)].Load()
	return all
}

// wrote counts the messages of a batch that a client's socket has taken. Those from before the client
// joined were kept for it; how long is not the delivery's doing.
func (s *stats) wrote(batch []*Message, joined, now moment) (sent, bytes uint64) {
	var buckets [len(latencyBounds) + 1]uint64
	var micros uint64
	for _, m := range batch {
		if !m.published() {
			continue
		}
		sent++
		bytes += uint64(m.size())
		if m.arrived < joined {
			continue
		}
		delay := now.since(m.arrived)
		micros += uint64(max(0, delay).Microseconds())
		buckets[bucketOf(delay.Seconds())]++
	}
	for i, n := range buckets {
		if n > 0 {
			s.delivery.buckets[i].Add(n)
		}
	}
	s.sent.Add(sent)
	s.delivery.micros.Add(micros)
	return sent, bytes
}

func bucketOf(seconds float64) int {
	i := 0
	for i < len(latencyBounds) && seconds > latencyBounds[i] {
		i++
	}
	return i
}
