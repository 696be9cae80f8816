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
	// ChosenID is what clients with Selectors know the message by. Empty means that they know it by its position.
	ChosenID string
	// AnyTopic lets topics be any text, as Selectors find them, and the event have a name that the hub uses itself.
	// Private messages may always.
	AnyTopic bool
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
	anyTopic := m.AnyTopic || m.Private()
	if anyTopic {
		if err := m.checkTopics(); err != nil {
			return err
		}
	} else {
		for _, to := range m.To {
			if err := to.check(); err != nil {
				return err
			}
		}
	}
	switch {
	case !eventstream.ValidField(m.Event) || !utf8.ValidString(m.Event) || len(m.Event) > 256:
		return errors.New("event must be at most 256 bytes of UTF-8 without line breaks or NUL")
	case !anyTopic && IsReservedEvent(m.Event):
		return fmt.Errorf("event name %q is reserved for the hub itself; choose another", m.Event)
	case len(m.Key) > MaxKeyBytes || !utf8.ValidString(m.Key) || strings.ContainsFunc(m.Key, unicode.IsControl):
		return fmt.Errorf("key must be at most %d bytes of UTF-8 without control characters", MaxKeyBytes)
	case m.HasRetry && m.Retry < 0:
		return errors.New("retry must be a whole number of milliseconds, 0 or more")
	case !utf8.Valid(m.Data):
		return errors.New("data is not valid UTF-8; encode binary data, as Base64 for example")
	}
	return CheckChosenID(m.ChosenID)
}

// IsReservedEvent reports whether an event has a name by which clients know what the hub itself tells them.
func IsReservedEvent(name string) bool {
	return name == "connected" || name == "gap" || name == "expired" || name == "closed"
}

// Private reports whether only those get the message who are granted one of its topics.
func (m *Message) Private() bool { return len(m.To) > 0 && m.To[0].Kind == ToPrivate }

// MaxAnyTopics is how many topics a message may have whose topics may be any text.
const MaxAnyTopics = 1000

// checkTopics says what is wrong with the addresses of a message whose topics may be any text.
func (m *Message) checkTopics() error {
	if len(m.To) > MaxAnyTopics {
		return fmt.Errorf("%d topics are too many for one message; the limit is %d", len(m.To), MaxAnyTopics)
	}
	if m.Ephemeral {
		return errors.New("an ephemeral message goes to topics without wildcards, and is not private")
	}
	for _, to := range m.To {
		if !to.isTopic() || to.Kind != m.To[0].Kind {
			return errors.New("the message goes to topics alone, and is private or not")
		}
		if err := checkSelector(to.Name); err != nil {
			return err
		}
	}
	return nil
}

// MaxChosenIDBytes is the size limit of an ID that a publisher chooses.
const MaxChosenIDBytes = 255

// CheckChosenID says what is wrong with an ID that a publisher chooses. It may be empty.
func CheckChosenID(id string) error {
	switch {
	case len(id) > MaxChosenIDBytes || !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl):
		return fmt.Errorf("id must be at most %d bytes of UTF-8 without control characters", MaxChosenIDBytes)
	case strings.HasPrefix(id, "#"):
		return errors.New("id must not begin with #; choose another")
	case strings.TrimSpace(id) != id:
		return errors.New("id must not begin or end with spaces")
	case id == earliest:
		return fmt.Errorf("id %q is reserved for the beginning of the log; choose another", id)
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
