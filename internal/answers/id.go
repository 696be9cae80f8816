package answers

import (
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
)

// An event's ID names its answer and its number: sse, 26 random characters of A-Z and 0-9, a dot, digits.
const (
	idPrefix = "sse"
	idLength = len(idPrefix) + 26
)

// ErrMalformed is the error for an ID that begins like ours and goes on otherwise.
var ErrMalformed = errors.New("the ID is malformed")

func newID() string { return idPrefix + rand.Text() }

// IsID reports whether a text is the ID of an answer.
func IsID(text string) bool { return len(text) == idLength && beginsWithID(text) }

func beginsWithID(text string) bool {
	if len(text) < idLength || text[:len(idPrefix)] != idPrefix {
		return false
	}
	for _, c := range []byte(text[len(idPrefix):idLength]) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// ParseEventID takes the ID of an event apart. The answer is empty for an ID that is none of ours; the error
// is [ErrMalformed] for one that should be.
func ParseEventID(text string) (answer string, number uint64, err error) {
	if !beginsWithID(text) || (len(text) > idLength && text[idLength] != '.') {
		return "", 0, nil
	}
	digits, dotted := strings.CutPrefix(text[idLength:], ".")
	number, err = strconv.ParseUint(digits, 10, 64)
	if !dotted || err != nil || strconv.FormatUint(number, 10) != digits {
		return text[:idLength], 0, ErrMalformed
	}
	return text[:idLength], number, nil
}
