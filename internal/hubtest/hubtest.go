package hubtest

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

// Plenty is a history that nothing in a test outgrows.
var Plenty = hub.Limits{History: hub.HistoryLimits{Count: 1 << 30}}

// Hub is a hub with the log it follows, which the test writes.
type Hub struct {
	*hub.Hub
	T testing.TB

	meanwhile atomic.Pointer[func()] // see Meanwhile

	mu      sync.Mutex // guards clients
	clients []*Client
}

// New returns a hub whose clients leave when the test is over.
func New(t testing.TB, limits hub.Limits) *Hub {
	h := &Hub{Hub: hub.NewHub(limits), T: t}
	t.Cleanup(h.Shut)
	return h
}

// Shut has all clients leave and closes the hub. Nothing may be left of them.
func (h *Hub) Shut() {
	for _, c := range h.clients {
		_ = c.Leave()
	}
	h.clients = nil
	h.Close()
	h.WaitEmpty(time.Minute)
	if n, _ := h.Size(); n != 0 {
		h.T.Errorf("with all clients gone the hub counts %d", n)
	}
	for a, n := range h.Listening(true) {
		if n != 0 {
			h.T.Errorf("with all clients gone the hub counts %d at %v", n, a)
		}
	}
}

// settle returns when everybody has done all there is to do: in a bubble of testing/synctest exactly then, elsewhere
// when the hub has nothing more for its clients.
func (h *Hub) settle() {
	if inBubble() {
		synctest.Wait()
		return
	}
	for quiet := 0; quiet < 2; { // a stream that took something may have asked for more
		if quiet++; !h.Quiet() {
			quiet = 0
		}
		time.Sleep(20 * time.Microsecond)
	}
}

// inBubble reports whether this goroutine is in a bubble.
func inBubble() (is bool) {
	defer func() { is = recover() == nil }()
	synctest.Wait()
	return true
}

// Meanwhile has something done when a client's stream is next given frames, before it takes them; nil nothing.
func (h *Hub) Meanwhile(do func()) { h.meanwhile.Store(&do) }

// Publish delivers a message as the log's next and returns its ID and its receivers.
func (h *Hub) Publish(to []hub.Address, text string) (id string, receivers int) {
	p := h.Position()
	p.Position.Major++
	receivers = h.Deliver(&hub.Message{To: to, Data: []byte(text), Position: p.Position})
	return p.String(), receivers
}

// PublishAll delivers messages to a topic, numbered from first to last.
func (h *Hub) PublishAll(topic string, first, last int) {
	for i := first; i <= last; i++ {
		h.Publish(hub.Topics(topic), strconv.Itoa(i))
	}
}

// PublishEphemeral delivers a message that is not kept.
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
	s := hub.Subscription{Subscriber: hub.Subscriber{
		ClientID:      hub.NewEpoch(),
		ClientOptions: &hub.ClientOptions{Queue: 256, QueueBytes: 1 << 20, WriteTimeout: time.Minute},
	}}
	for _, name := range topics {
		if topic.IsPattern(name) {
			s.Patterns = append(s.Patterns, name)
		} else {
			s.Topics = append(s.Topics, name)
		}
	}
	return s
}

// As returns the subscription of a user, or of nobody, under a client_id.
func As(clientID, user string) hub.Subscription {
	s := With()
	s.ClientID, s.User = clientID, user
	return s
}

// Returning returns the subscription of a client that comes back with an ID.
func Returning(s hub.Subscription, lastEventID string) hub.Subscription {
	s.LastEventID = lastEventID
	return s
}

// Gap is how a told gap reads.
func Gap(reason string) string { return `gap {"reason":"` + reason + `"}` }

// Numbers returns the texts of messages numbered from first to last.
func Numbers(first, last int) (texts []string) {
	for i := first; i <= last; i++ {
		texts = append(texts, strconv.Itoa(i))
	}
	return texts
}

// Want compares lists.
func Want[T comparable](t testing.TB, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", Brief(got), Brief(want))
	}
}

// Brief leaves out the middle of long lists.
func Brief[T any](all []T) any {
	if len(all) <= 40 {
		return all
	}
	return []any{len(all), "items", all[:15], "...", all[len(all)-15:]}
}

// Pause lets time pass in a bubble, and all happen that was to happen by then.
func Pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
