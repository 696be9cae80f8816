package hub

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/topic"
)

// Message is one message as its publisher says it: what, to whom, and where it stands in the log.
type Message struct {
	// To holds whom the message is for: one or several topics, or exactly one client, user or
	// everybody. A client that several of them name gets the message once.
	To []Address
	// Event is the event name; empty means none, which browsers call "message".
	Event string
	// Key names what the message is the value of within its topic; empty means the topic itself. A policy may keep
	// the newest message of each key, or let it take the place of an older one that waits.
	Key string
	// Data is the payload, UTF-8.
	Data []byte
	// Retry is the reconnect delay to tell with the message, in milliseconds; it counts if HasRetry.
	Retry    int64
	HasRetry bool
	// Ephemeral messages have no ID and are not kept: who is not there misses them.
	Ephemeral bool

	// Position is the message's place in the log. An ephemeral message has that of the message
	// before it.
	Position Position
	// Had is set by Hub.Dropped: who has come so far in the log has had the message. Others have lost it. It is Position,
	// unless the message has left the hub later than it was published.
	Had Position
	// Time is when the log took the message; history ages by it. The zero time means now.
	Time time.Time

	draft draft // set by Hub.Encode
}

// MaxKeyBytes is the size limit of a message's key.
const MaxKeyBytes = 128

// Check says what a publisher must change before the message can be published.
func (m *Message) Check() error {
	if len(m.To) == 0 {
		return errors.New("the message has no target; name a topic, client_id, user or broadcast")
	}
	for _, to := range m.To {
		if err := to.check(); err != nil {
			return err
		}
	}
	switch {
	case !eventstream.ValidField(m.Event) || !utf8.ValidString(m.Event) || len(m.Event) > 256:
		return errors.New("event must be at most 256 bytes of UTF-8 without line breaks or NUL")
	case m.Event == "connected" || m.Event == "gap" || m.Event == "expired" || m.Event == "closed":
		return fmt.Errorf("event name %q is reserved for the hub itself; choose another", m.Event)
	case len(m.Key) > MaxKeyBytes || !utf8.ValidString(m.Key) || strings.ContainsFunc(m.Key, unicode.IsControl):
		return fmt.Errorf("key must be at most %d bytes of UTF-8 without control characters", MaxKeyBytes)
	case m.HasRetry && m.Retry < 0:
		return errors.New("retry must be a whole number of milliseconds, 0 or more")
	case !utf8.Valid(m.Data):
		return errors.New("data is not valid UTF-8; encode binary data, as Base64 for example")
	}
	return nil
}

// CheckMessage is Message.Check for a message to this hub, where some topics may have presence.
func (h *Hub) CheckMessage(m *Message) error {
	if err := m.Check(); err != nil || m.Event != presenceEvent {
		return err
	}
	for _, to := range m.To {
		if policy := h.Policy(to.Name); to.Kind == ToTopic && policy != nil && policy.Presence {
			return fmt.Errorf("event name %q is reserved on %s, which has presence; choose another", m.Event, to)
		}
	}
	return nil
}

// check says what is wrong with an address that a message is to be published to.
func (a Address) check() error {
	switch a.Kind {
	case ToTopic:
		return topic.Check(a.Name)
	case ToClient:
		return CheckClientID(a.Name)
	case ToUser:
		return CheckUser(a.Name)
	}
	return nil
}
