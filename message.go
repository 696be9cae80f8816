package sse

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
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

// control returns a message that only carries a frame: a heartbeat, a gap, a farewell.
func control(frame []byte) *Message {
	m := &Message{Ephemeral: true}
	m.seal(append(make([]byte, chunkHead, chunkHead+len(frame)+len(chunkEnd)), frame...))
	return m
}

// Kind tells what an Address names.
type Kind uint8

// The kinds of address. Each is a plain key of the same index, so targeted messages have history
// and resume like any other.
const (
	ToTopic     Kind = iota // a topic, or in a subscription a pattern
	ToClient                // all connections of one client_id
	ToUser                  // all clients of one authenticated user
	ToBroadcast             // every client of the hub; Name is empty
)

// Address is one place that messages are sent to and clients listen at.
type Address struct {
	Kind Kind
	Name string
}

// String returns the address as people write it.
func (a Address) String() string {
	switch a.Kind {
	case ToClient:
		return "client_id " + a.Name
	case ToUser:
		return "user " + a.Name
	case ToBroadcast:
		return "everybody"
	}
	return "topic " + a.Name
}

// Topics returns the addresses of the named topics.
func Topics(names ...string) []Address {
	to := make([]Address, len(names))
	for i, name := range names {
		to[i] = Address{ToTopic, name}
	}
	return to
}

// Position is a place in a hub's log. Positions grow along the log and need not be dense. The zero
// Position is the log's beginning, before its first message.
type Position struct{ Major, Minor uint64 }

// Compare returns -1, 0 or +1 as p stands before, at or after q.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Major, q.Major), cmp.Compare(p.Minor, q.Minor))
}

// After reports whether p stands behind q.
func (p Position) After(q Position) bool { return p.Compare(q) > 0 }

// String returns the position as it stands in IDs: "7", or "1700000000000-3".
func (p Position) String() string { return string(p.append(nil)) }

func (p Position) append(b []byte) []byte {
	b = strconv.AppendUint(b, p.Major, 10)
	if p.Minor != 0 {
		b = strconv.AppendUint(append(b, '-'), p.Minor, 10)
	}
	return b
}

// ID is what clients know a position by: "<epoch>-<position>". The epoch names the origin of the
// log's order and changes whenever that was lost.
type ID struct {
	Epoch    string
	Position Position
}

// String returns the ID as clients get it.
func (id ID) String() string {
	b := append(make([]byte, 0, 64), id.Epoch...) // as long as IDs are
	return string(id.Position.append(append(b, '-')))
}

// ParseID reads an ID as String wrote it. Anything else is not ok; it is never an error, since
// clients bring back whatever they were told by whomever.
func ParseID(s string) (id ID, ok bool) {
	epoch, position, found := strings.Cut(s, "-")
	if !found || epoch == "" {
		return ID{}, false
	}
	major, minor, hasMinor := strings.Cut(position, "-")
	id.Epoch = epoch
	var err error
	if id.Position.Major, err = strconv.ParseUint(major, 10, 64); err != nil {
		return ID{}, false
	}
	if hasMinor {
		if id.Position.Minor, err = strconv.ParseUint(minor, 10, 64); err != nil {
			return ID{}, false
		}
	}
	return id, id.String() == s
}

// CheckClientID says what is wrong with a client_id: 1 to 128 of A-Za-z0-9._~-
func CheckClientID(id string) error {
	if id == "" || len(id) > 128 || strings.ContainsFunc(id, notClientIDRune) {
		return errors.New("client_id must be 1 to 128 characters of A-Za-z0-9._~-")
	}
	return nil
}

func notClientIDRune(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._~-", r))
}

// CheckUser says what is wrong with a user that messages are to be published to.
func CheckUser(user string) error {
	if user == "" || len(user) > 256 || !utf8.ValidString(user) || strings.ContainsFunc(user, unicode.IsControl) {
		return errors.New("user must be 1 to 256 bytes of UTF-8 without control characters")
	}
	return nil
}

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
