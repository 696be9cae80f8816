package sse

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
	sent             atomic.Uint64 // messages that a client's socket took
	droppedSlow      atomic.Uint64 // messages dropped by DropOldest
	droppedMalformed atomic.Uint64 // messages of other programs that could not be read

	disconnects [len(causes) + 1]atomic.Uint64 // by index in causes; the last is any other
	delivery    latencies
}

// causes are the reasons why streams end, with their names in metrics.
var causes = [...]struct {
	err  error
	name string
}{
	{ErrGone, "left"},
	{ErrSlow, "slow_client"},
	{ErrStuck, "write_timeout"},
	{ErrIdle, "idle_timeout"},
	{ErrMaxAge, "max_age"},
	{ErrExpired, "expired"},
	{ErrKicked, "closed"},
	{ErrClaimed, "claimed"},
	{ErrDraining, "shutdown"},
	{ErrHubClosed, "hub_closed"},
}

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

// nameOf returns the name of why a stream has ended.
func nameOf(cause error) string {
	if i := indexOf(cause); i < len(causes) {
		return causes[i].name
	}
	return otherCause
}

// otherCause is the name of any cause that has none of its own.
const otherCause = "cut"

func indexOf(cause error) int {
	for i, c := range causes {
		if c.err == cause {
			return i
		}
	}
	return len(causes)
}

// latencyBounds are the upper bounds of the buckets of a latencies, in seconds.
var latencyBounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// latencies is a histogram of the time from the log's having a message to a socket's having taken it.
type latencies struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64
	micros  atomic.Uint64 // the sum
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
