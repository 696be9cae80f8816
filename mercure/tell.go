package mercure

import (
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// This file is how a roster tells who comes and goes.

// tellLocked has a change told behind those before it. What waits is bounded by who was told to be there, and is there.
func (r *roster) tellLocked(c change) {
	r.untold = append(r.untold, c)
	if !r.telling && r.ctx.Err() == nil {
		r.telling = true
		r.running.Go(r.tell)
	}
}

const (
	retryTelling = time.Second // the pause before updates are published again that the log did not take
	maxTold      = 64          // how many changes are told at once
)

// tell publishes changes until all are told, or the hub ends.
func (r *roster) tell() {
	for {
		changes := r.next()
		if len(changes) == 0 {
			return
		}
		var batch []*broker.Publication
		for _, c := range changes {
			batch = append(batch, c.updates()...)
		}
		for len(batch) > 0 {
			n, err := r.hub.Publish(r.ctx, batch)
			if batch = batch[n:]; err == nil {
				continue
			}
			select {
			case <-time.After(retryTelling):
			case <-r.ctx.Done():
				return
			case <-r.hub.Core.Context().Done():
				return
			}
		}
		r.settle(changes)
	}
}

// next takes the next changes that are to be told. Of a guest who has gone before that was told, nothing is.
func (r *roster) next() (changes []change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.untold) > 0 && len(changes) < maxTold {
		c := r.untold[0]
		r.untold[0] = change{}
		r.untold = r.untold[1:]
		if c.active && c.gone {
			continue
		}
		c.told = true
		changes = append(changes, c)
	}
	if len(changes) == 0 {
		r.untold, r.telling = nil, false
	}
	return changes
}

// settle notes that changes are in the log.
func (r *roster) settle(changes []change) {
	var texts []string
	r.mu.Lock()
	for _, c := range changes {
		if c.settle {
			delete(r.taken, c.text)
			texts = append(texts, c.text)
		}
	}
	r.mu.Unlock()
	r.hub.Core.SettleGuests(texts...)
}

// updates are what tells a change. A selector that is too long for a topic of its own is told by the API alone.
func (c change) updates() (batch []*broker.Publication) {
	if c.silent {
		return nil
	}
	for _, topic := range c.Topics {
		s := c.subscription(topic, c.active)
		if len(s.ID) > hub.MaxSelectorBytes {
			continue
		}
		s.Context = ldContext
		batch = append(batch, &broker.Publication{Message: &hub.Message{
			To: hub.PrivateTopics(s.ID), AnyTopic: true, Data: toJSON(s),
		}})
	}
	return batch
}

var _ hub.GuestHost = (*roster)(nil)
