package hub

import (
	"net/netip"
	"time"
)

// Place is held for a client that has to wait before it joins. It counts as a client for MaxClients and
// MaxPerSource, so no more can wait than may join.
type Place struct {
	hub    *Hub
	source netip.Prefix
	held   bool // guarded by Hub.mu
}

// Hold holds a place for a client, or says why the client is not admitted. Join uses the place up if it is in
// the Subscription. GiveUp must be called for a client that may not have joined.
func (h *Hub) Hold(s Subscription) (*Place, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.admitLocked(&s, time.Now()); err != nil {
		h.stats.refuse(err)
		return nil, err
	}
	h.held++
	h.countSourceLocked(s.Source, 1)
	return &Place{hub: h, source: s.Source, held: true}, nil
}

// GiveUp gives a place to others. It does nothing once the place is used up.
func (p *Place) GiveUp() {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	p.giveUpLocked()
}

func (p *Place) giveUpLocked() {
	if p.isHeldLocked() {
		p.held = false
		p.hub.held--
		p.hub.countSourceLocked(p.source, -1)
	}
}

func (p *Place) isHeldLocked() bool { return p != nil && p.held }

// countSourceLocked counts clients and places of a source.
func (h *Hub) countSourceLocked(source netip.Prefix, n int) {
	if !source.IsValid() {
		return
	}
	if h.sources[source] += n; h.sources[source] == 0 {
		delete(h.sources, source)
	}
}
