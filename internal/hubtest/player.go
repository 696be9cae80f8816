package hubtest

import (
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// player is a stream of its own goroutine, as the handler stream is. It is cut after so many messages.
type player struct {
	Stalled  bool // what it says of its socket
	CutAfter int
	Woken    chan struct{}
	Aborted  chan struct{}
}

func NewPlayer() *player {
	return &player{Woken: make(chan struct{}, 1), Aborted: make(chan struct{}, 10)}
}

func (p *player) Wake() { p.Woken <- struct{}{} }

func (p *player) Abort() { p.Aborted <- struct{}{} }

func (p *player) Blocked() bool { return p.Stalled }

// Run takes until the stream ends, and returns why.
func (p *player) Run(c *hub.Client) error {
	for taken := 0; ; {
		batch, err := c.Take(nil)
		if taken += len(batch); taken > p.CutAfter {
			return hub.ErrGone
		}
		switch {
		case err != nil:
			return err
		case len(batch) > 0:
			continue
		}
		select {
		case <-p.Woken:
		case <-p.Aborted:
			return hub.ErrGone
		case <-time.After(5 * time.Millisecond): // its peer left
			return hub.ErrGone
		}
	}
}
