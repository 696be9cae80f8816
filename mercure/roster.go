package mercure

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/live"
)

// subscriptionsPath is where the subscription API and its events have their place.
const subscriptionsPath = Path + "/subscriptions"

// subscription is one topic selector of one subscriber, as the API and its events tell it. (Section 7)
type subscription struct {
	Context     string          `json:"@context,omitempty"`
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	Topic       string          `json:"topic"`
	Subscriber  string          `json:"subscriber"`
	Active      bool            `json:"active"`
	Payload     json.RawMessage `json:"payload,omitempty"`
	LastEventID string          `json:"lastEventID,omitempty"`
}

// What the JSON of a subscription says in each case.
const (
	ldContext        = "https://mercure.rocks/"
	subscriptionType = "Subscription"
	collectionType   = "Subscriptions"
)

// encode is percent-encoding of all that RFC 3986 does not leave alone, as templates expand.
func encode(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// pathOf returns the path of what has to do with a topic, or with one subscriber there.
func pathOf(names ...string) string {
	segments := []string{subscriptionsPath}
	for _, name := range names {
		segments = append(segments, encode(name))
	}
	return strings.Join(segments, "/")
}

// roster is who subscribes to what on a hub. It tells each change as a private update. A change is listed before its
// update is in the log: whoever takes a place in the log first and the list then, and reads on from there, misses none.
type roster struct {
	hub     *live.Hub
	ctx     context.Context // ends when no route has the hub any more
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex // guards all below
	present map[string]*guest
	untold  []change // in order
	telling bool
}

// guest is a subscriber with the subscriptions of its connection.
type guest struct {
	subscriber string // urn:uuid:...
	topics     []string
	payload    json.RawMessage
	told       bool // its coming is in the log, or about to be
	gone       bool
}

// change is a guest who has come or gone.
type change struct {
	*guest
	active bool
}

func newRoster(h *live.Hub) *roster {
	r := &roster{hub: h, present: make(map[string]*guest)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	h.OnLeave(func(c *hub.Client) { r.remove(c.ClientID) })
	return r
}

// end stops telling. Nobody calls add any more, but the last clients may be leaving yet.
func (r *roster) end() {
	r.mu.Lock()
	r.cancel() // from here on tellLocked starts nothing
	r.mu.Unlock()
	r.running.Wait()
}

// subscriberOf returns what others know a client by.
func subscriberOf(clientID string) string { return "urn:uuid:" + clientID }

// add notes a client that has joined.
func (r *roster) add(c *hub.Client) {
	g := &guest{subscriber: subscriberOf(c.ClientID), topics: c.Selectors.Names()}
	if c.Info != "" {
		g.payload = json.RawMessage(c.Info)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present[c.ClientID] = g
	r.tellLocked(change{g, true})
}

// remove notes that a client has left. One that is not there changes nothing.
func (r *roster) remove(clientID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.present[clientID]
	if g == nil {
		return
	}
	delete(r.present, clientID)
	if g.gone = true; g.told {
		r.tellLocked(change{g, false})
	}
}

// tellLocked has a change told behind those before it. What waits is bounded by who was told to be there, and is there.
func (r *roster) tellLocked(c change) {
	r.untold = append(r.untold, c)
	if !r.telling && r.ctx.Err() == nil {
		r.telling = true
		r.running.Go(r.tell)
	}
}

// retryTelling is the pause before an update is published again that the log did not take.
const retryTelling = time.Second

// tell publishes changes until all are told, or the hub ends.
func (r *roster) tell() {
	for {
		c, ok := r.next()
		if !ok {
			return
		}
		batch := c.updates()
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
	}
}

// next takes the next change that is to be told. Of a guest who has gone before that was told, nothing is.
func (r *roster) next() (change, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.untold) > 0 {
		c := r.untold[0]
		r.untold[0] = change{}
		r.untold = r.untold[1:]
		if c.active && c.gone {
			continue
		}
		c.told = true
		return c, true
	}
	r.untold, r.telling = nil, false
	return change{}, false
}

// updates are what tells a change. A selector that is too long for a topic of its own is told by the API alone.
func (c change) updates() (batch []*broker.Publication) {
	for _, s := range c.subscriptions(c.active) {
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

// subscriptions are those of a guest, in the order of their topics.
func (g *guest) subscriptions(active bool) []subscription {
	all := make([]subscription, len(g.topics))
	for i, topic := range g.topics {
		all[i] = subscription{
			ID: pathOf(topic, g.subscriber), Type: subscriptionType, Topic: topic, Subscriber: g.subscriber,
			Active: active, Payload: g.payload,
		}
	}
	return all
}

// list returns the subscriptions that are chosen, by topic and subscriber, and an ID that stands in the log before
// every change that they may lack.
func (r *roster) list(chosen func(topic, subscriber string) bool) (all []subscription, lastEventID string) {
	lastEventID = r.hub.Core.Position().URN()
	r.mu.Lock()
	guests := make([]*guest, 0, len(r.present))
	for _, g := range r.present {
		if g.told { // who has not been may go without a word
			guests = append(guests, g)
		}
	}
	r.mu.Unlock()
	all = []subscription{}
	for _, g := range guests { // what is read of them does not change
		for _, s := range g.subscriptions(true) {
			if chosen(s.Topic, s.Subscriber) {
				all = append(all, s)
			}
		}
	}
	slices.SortFunc(all, func(a, b subscription) int { return strings.Compare(a.ID, b.ID) })
	return all, lastEventID
}
