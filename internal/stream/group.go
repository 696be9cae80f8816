package stream

import (
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Group is the streams of one hub and what they share: writers for those that have left their request, turns for the
// others. The zero Group has none, and only needs Leave.
type Group struct {
	// Leave takes a client out whose stream has ended, and why. It reports whether the stream may end in good order.
	Leave func(c *hub.Client, cause error) bool

	writers writers
	turns   wakeQueue
}

// Retire says that no more streams will leave their requests. What the group runs ends with the last that has.
func (g *Group) Retire() { g.writers.retire() }

// Wait returns when the last stream that has left its request has ended after Retire, or after that long.
func (g *Group) Wait(atMost time.Duration) { g.writers.wait(atMost) }
