package hub

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/topic"
)

// Message is one message of a hub: what a publisher said, to whom, and where it stands in the log.
// It is shared by every client that gets it and never changes once it has been delivered.
type Message struct {
	// To holds whom the message is for: one or several topics, or exactly one client, user or
	// everybody. A client that several of them name gets the message once.
	To []Address
	// Event is the event name; empty means none, which browsers call "message". It is given up once the
	// message is encoded.
	Event string
	// Data is the payload, UTF-8. It is given up as Event is.
	Data []byte
	// Retry is the reconnect delay to tell with the message, in milliseconds; it counts if HasRetry.
	Retry    int64
	HasRetry bool
	// Ephemeral messages have no ID and are not kept: who is not there misses them.
	Ephemeral bool

	// Position is the message's place in the log. An ephemeral message has that of the message
	// before it.
	Position Position
	// Time is when the log took the message; history ages by it. The zero time means now.
	Time time.Time

	arrived  moment   // when the hub got it
	previous Position // the log's position before this message
	frame    []byte   // the encoded block, as every client gets it
	chunk    []byte   // frame as a chunk of HTTP/1.1, around the same bytes
	kept     int      // how many address logs hold it; guarded by Hub.mu
}

// encode makes the frame that all clients share and gives up what it was made from.
func (m *Message) encode(epoch string) {
	e := eventstream.Event{Name: m.Event, Data: m.Data, HasData: true, Retry: m.Retry, HasRetry: m.HasRetry}
	if !m.Ephemeral {
		e.ID = ID{epoch, m.Position}.String()
	}
	m.seal(e.Append(make([]byte, chunkHead, chunkHead+len(m.Data)+len(m.Event)+len(e.ID)+48)))
	m.Event, m.Data = "", nil
}

// seal makes the frame, and the chunk around it, of a block behind chunkHead free bytes.
func (m *Message) seal(block []byte) { m.chunk, m.frame = chunked(block) }

// Frame returns the block of the event stream that every client gets. Nobody changes it.
func (m *Message) Frame() []byte { return m.frame }

// Chunk returns the frame as a chunk of HTTP/1.1 (RFC 9112, section 7.1). Nobody changes it.
func (m *Message) Chunk() []byte { return m.chunk }

// size is what the message costs a queue or the history, in bytes.
func (m *Message) size() int { return len(m.frame) }

// published reports whether somebody published the message, rather than the hub saying something.
func (m *Message) published() bool { return len(m.To) > 0 }

// Check says what a publisher must change before the message can be published.
func (m *Message) Check() error {
	if len(m.To) == 0 {
		return errors.New("the message has no target; name a topic, client_id, user or broadcast")
	}
	for _, to := range m.To {
		var err error
		switch to.Kind {
		case ToTopic:
			err = topic.Check(to.Name)
		case ToClient:
			err = CheckClientID(to.Name)
		case ToUser:
			err = CheckUser(to.Name)
		case ToBroadcast:
		}
		if err != nil {
			return err
		}
	}
	switch {
	case !eventstream.ValidField(m.Event) || !utf8.ValidString(m.Event) || len(m.Event) > 256:
		return errors.New("event must be at most 256 bytes of UTF-8 without line breaks or NUL")
	case m.Event == "connected" || m.Event == "gap" || m.Event == "expired" || m.Event == "closed":
		return fmt.Errorf("event name %q is reserved for the hub itself; choose another", m.Event)
	case m.HasRetry && m.Retry < 0:
		return errors.New("retry must be a whole number of milliseconds, 0 or more")
	case !utf8.Valid(m.Data):
		return errors.New("data is not valid UTF-8; encode binary data, as Base64 for example")
	}
	return nil
}
