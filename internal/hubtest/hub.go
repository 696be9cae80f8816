package hubtest

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

// Plenty is a history that nothing in a test outgrows.
var Plenty = hub.Limits{History: hub.HistoryLimits{Count: 1 << 30}}

// Hub is a hub with the log it follows, which the test writes. When the test is over its clients
// Leave, and the accounts of what waited for them must be even.
type Hub struct {
	*hub.Hub
	TB testing.TB

	Mu     sync.Mutex // guards joined
	Joined []*Client
	order  sync.Mutex // held while post delivers
}

func New(t testing.TB, limits hub.Limits) *Hub {
	h := &Hub{Hub: hub.NewHub(limits), TB: t}
	t.Cleanup(func() {
		for _, l := range h.Joined {
			l.Leave()
		}
		h.Close()
		if clients, _ := h.Size(); clients != 0 {
			t.Errorf("with all clients gone the hub counts %d", clients)
		}
	})
	return h
}

// Publish delivers a message as the log's next and returns its ID and its receivers.
func (h *Hub) Publish(to []hub.Address, text string) (id string, receivers int) {
	p := h.Position()
	p.Position.Major++
	receivers = h.Deliver(&hub.Message{To: to, Data: []byte(text), Position: p.Position})
	return p.String(), receivers
}

// Post delivers a message as the log's next, as one of several publishers, and waits as they do.
func (h *Hub) Post(ctx context.Context, m *hub.Message) {
	h.order.Lock()
	if !m.Ephemeral {
		m.Position = h.Position().Position
		m.Position.Major++
	}
	receivers := h.Deliver(m)
	h.order.Unlock()
	h.Wait(ctx, receivers)
}

// PublishAll delivers messages to a topic, numbered from first to last.
func (h *Hub) PublishAll(topic string, first, last int) {
	for i := first; i <= last; i++ {
		h.Publish(hub.Topics(topic), strconv.Itoa(i))
	}
}

func (h *Hub) PublishEphemeral(to []hub.Address, text string) {
	h.Deliver(&hub.Message{To: to, Data: []byte(text), Ephemeral: true})
}

// Switch makes the hub follow another log.
func (h *Hub) Switch(o hub.Origin, reason string) {
	h.Follow(o)
	h.Announce(reason)
}

// With returns a subscription to topics and patterns with roomy limits.
func With(topics ...string) hub.Subscription {
	s := hub.Subscription{Subscriber: hub.Subscriber{ClientID: hub.NewEpoch(), ClientOptions: &hub.ClientOptions{Queue: 256, QueueBytes: 1 << 20}}}
	for _, name := range topics {
		if topic.IsPattern(name) {
			s.Patterns = append(s.Patterns, name)
		} else {
			s.Topics = append(s.Topics, name)
		}
	}
	return s
}

// Returning returns the subscription of a client that comes back with an ID.
func Returning(s hub.Subscription, lastEventID string) hub.Subscription {
	s.LastEventID = lastEventID
	return s
}

// Listen enters a client that is asleep: it has taken all there was, which is not to be much.
func (h *Hub) Listen(s hub.Subscription) *Client {
	h.TB.Helper()
	l := h.Enter(s)
	Want(h.TB, l.Texts())
	return l
}

// Enter enters a client that has not taken anything yet.
func (h *Hub) Enter(s hub.Subscription) *Client {
	h.TB.Helper()
	l, err := h.TryEnter(s)
	if err != nil {
		h.TB.Fatalf("the hub refused a client: %v", err)
	}
	return l
}

func (h *Hub) TryEnter(s hub.Subscription) (*Client, error) {
	l := &Client{On: h, LastEventID: s.LastEventID}
	options := *s.ClientOptions // the test may go on with its own
	s.ClientOptions = &options
	var err error
	if l.Client, l.Welcome, err = h.Join(s, l); err != nil {
		return nil, err
	}
	h.Mu.Lock()
	defer h.Mu.Unlock()
	h.Joined = append(h.Joined, l)
	return l, nil
}
