package mercure

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

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

// roster is who subscribes to what on a hub, over all instances of its log. It tells each change as a private update. A
// change is listed before its update is in the log: whoever takes a place in the log first and the list then, and reads
// on from there, misses none.
type roster struct {
	hub     *live.Hub
	ctx     context.Context // ends when no route has the hub any more
	cancel  context.CancelFunc
	running sync.WaitGroup
	opened  sync.Once

	mu        sync.Mutex          // guards all below
	present   map[string][]*guest // of this instance, by client_id
	own       map[string]*guest   // the same, and those who have left and may be listed yet, by their texts
	elsewhere map[string]*guest   // of other instances
	taken     map[string]struct{} // those of dead instances that this one is to tell of
	untold    []change            // in order
	telling   bool
}

// guest is a subscriber with subscriptions of its connection. Instances know it by its text, which is this as JSON.
type guest struct {
	Subscriber string          `json:"subscriber"` // urn:uuid:...
	Topics     []string        `json:"topics"`
	Payload    json.RawMessage `json:"payload,omitempty"`

	text string
	told bool // its coming is in the log, or about to be
	gone bool
}

// maxGuestBytes is about how many bytes of topics one guest has. A connection with more is several.
const maxGuestBytes = 32 << 10

// change is a guest who has come or gone.
type change struct {
	*guest
	active bool
	silent bool // nobody has heard of the guest, so there is nothing to tell
	settle bool // the other instances wait for this one to tell
}

func newRoster(h *live.Hub) *roster {
	r := &roster{
		hub: h, present: make(map[string][]*guest), own: make(map[string]*guest),
		elsewhere: make(map[string]*guest), taken: make(map[string]struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// open has the roster learn of those who leave, and of those on other instances.
func (r *roster) open() {
	r.opened.Do(func() {
		r.hub.OnLeave(func(c *hub.Client) { r.remove(c.ClientID) })
		r.hub.Core.KeepGuests(r)
	})
}

// end stops telling. Nobody calls add any more, but the last clients may be leaving yet.
func (r *roster) end() {
	r.opened.Do(func() {}) // nobody opens it from here on
	r.mu.Lock()
	r.cancel() // from here on tellLocked starts nothing
	r.mu.Unlock()
	r.running.Wait()
	r.hub.Core.KeepGuests(nil)
}

// subscriberOf returns what others know a client by.
func subscriberOf(clientID string) string { return "urn:uuid:" + clientID }

// guestsOf returns the guests that a connection makes.
func guestsOf(subscriber string, topics []string, payload json.RawMessage) (guests []*guest) {
	for len(topics) > 0 {
		n, bytes := 0, 0
		for ; n < len(topics) && bytes < maxGuestBytes; n++ {
			bytes += len(topics[n])
		}
		g := &guest{Subscriber: subscriber, Topics: topics[:n:n], Payload: payload}
		g.text = string(toJSON(g))
		guests, topics = append(guests, g), topics[n:]
	}
	return guests
}

// readGuest reads the text of another instance.
func readGuest(text string) (*guest, error) {
	g := &guest{text: text}
	return g, json.Unmarshal([]byte(text), g)
}

// add notes a client that has joined.
func (r *roster) add(c *hub.Client) {
	guests := guestsOf(subscriberOf(c.ClientID), c.Selectors.Names(), json.RawMessage(c.Info))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLocked(c.ClientID, guests)
}

func (r *roster) addLocked(clientID string, guests []*guest) {
	r.present[clientID] = guests
	for _, g := range guests {
		r.own[g.text] = g
		if r.hub.Core.GuestCame(g.text) {
			r.tellLocked(change{guest: g, active: true})
		}
	}
}

// remove notes that a client has left. One that is not there changes nothing.
func (r *roster) remove(clientID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	guests := r.present[clientID]
	delete(r.present, clientID)
	for _, g := range guests {
		g.gone = true
		if !r.hub.Core.GuestWent(g.text) {
			continue // Listed tells
		}
		if delete(r.own, g.text); g.told {
			r.tellLocked(change{guest: g})
		}
	}
}

// Listed implements hub.GuestHost.
func (r *roster) Listed(guests map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for text, came := range guests {
		g := r.own[text]
		switch {
		case g == nil:
		case came:
			r.tellLocked(change{guest: g, active: true})
		default: // it was listed, so it is told to have gone, even if it was not told to have come
			delete(r.own, text)
			r.tellLocked(change{guest: g, settle: true})
		}
	}
}

// Elsewhere implements hub.GuestHost.
func (r *roster) Elsewhere(guests map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for text, there := range guests {
		if !there {
			delete(r.elsewhere, text)
		} else if g, err := readGuest(text); err == nil {
			r.elsewhere[text] = g
		}
	}
}

// Left implements hub.GuestHost.
func (r *roster) Left(guests []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range guests {
		if _, ok := r.taken[text]; ok {
			continue
		}
		g, err := readGuest(text)
		r.taken[text] = struct{}{}
		r.tellLocked(change{guest: g, settle: true, silent: err != nil})
	}
}

// Forgotten implements hub.GuestHost. Others have been told, or will be, that the guests of this instance have gone. So
// they come again under other names: what is told of the old ones, by whomever and whenever, stays true.
func (r *roster) Forgotten() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.own {
		g.gone = true
		r.tellLocked(change{guest: g})
	}
	clear(r.own)
	for clientID, guests := range r.present {
		var topics []string
		for _, g := range guests {
			topics = append(topics, g.Topics...)
		}
		r.addLocked(clientID, guestsOf(subscriberOf(uuid.NewString()), topics, guests[0].Payload))
	}
}

// subscription returns one of a guest.
func (g *guest) subscription(topic string, active bool) subscription {
	return subscription{
		ID: pathOf(topic, g.Subscriber), Type: subscriptionType, Topic: topic, Subscriber: g.Subscriber,
		Active: active, Payload: g.Payload,
	}
}

// listTimeout is how long a list waits for what other instances have told.
const listTimeout = 3 * time.Second

// list returns the subscriptions that are chosen, by topic and subscriber, and an ID that stands in the log before
// every change that they may lack. The error says that other instances can't be asked.
func (r *roster) list(
	ctx context.Context, chosen func(topic, subscriber string) bool,
) (all []subscription, lastEventID string, err error) {
	lastEventID = r.hub.Core.Position().URN()
	ctx, closed := r.hub.WhileOpen(ctx)
	defer closed()
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	if err = r.hub.Core.FreshGuests(ctx); err != nil {
		return nil, "", err
	}
	r.mu.Lock()
	guests := make([]*guest, 0, len(r.present)+len(r.elsewhere))
	for _, some := range r.present {
		for _, g := range some {
			if g.told { // who has not been may go without a word
				guests = append(guests, g)
			}
		}
	}
	for _, g := range r.elsewhere {
		guests = append(guests, g)
	}
	r.mu.Unlock()
	all = []subscription{}
	for _, g := range guests { // what is read of them does not change
		for _, topic := range g.Topics {
			if chosen(topic, g.Subscriber) {
				all = append(all, g.subscription(topic, true))
			}
		}
	}
	slices.SortFunc(all, func(a, b subscription) int { return strings.Compare(a.ID, b.ID) })
	return all, lastEventID, nil
}
