package hub

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind tells what an Address names.
type Kind uint8

// The kinds of address. Each is a plain key, so targeted messages have history and resume like any other.
const (
	ToTopic     Kind = iota // a topic, or in a subscription a pattern
	ToClient                // all connections of one client_id
	ToUser                  // all clients of one authenticated user
	ToBroadcast             // every client of the hub; Name is empty
	ToPrivate               // a topic, for clients that ask for it and are granted a topic of the message

	kinds // how many there are
)

// Address is one place that messages are sent to and clients listen at.
type Address struct {
	Kind Kind
	Name string
}

// everybody is where each client listens.
var everybody = Address{Kind: ToBroadcast}

// String returns the address as people write it.
func (a Address) String() string {
	switch a.Kind {
	case ToClient:
		return "client_id " + a.Name
	case ToUser:
		return "user " + a.Name
	case ToBroadcast:
		return "everybody"
	case ToPrivate:
		return "private topic " + a.Name
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

// PrivateTopics returns the addresses of the named topics for a message that is private. No client without Selectors
// gets it, whatever it listens to.
func PrivateTopics(names ...string) []Address {
	to := make([]Address, len(names))
	for i, name := range names {
		to[i] = Address{ToPrivate, name}
	}
	return to
}

// isTopic reports whether the address is a topic, of a message that is private or not.
func (a *Address) isTopic() bool { return a.Kind == ToTopic || a.Kind == ToPrivate }

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
