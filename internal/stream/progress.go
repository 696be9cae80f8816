package stream

import (
	"time"
)

// progress tells whether a write gets anywhere. A thin line takes some bytes all the same, and then the write
// goes on; one that has taken none for as long as its timeout is stuck.
type progress struct {
	seen  time.Time // when the write began, or was last seen to have got further
	acked uint64    // what the peer had acknowledged by then
}

func (p *progress) begin() { p.seen = time.Now() }

// stuck reports whether a write has got nowhere for that long. It is asked now and then, with what the peer has
// acknowledged by now.
func (p *progress) stuck(acked uint64, timeout time.Duration) bool {
	if acked != p.acked {
		p.acked, p.seen = acked, time.Now()
	}
	return time.Since(p.seen) >= timeout
}
