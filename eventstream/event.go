package eventstream

import (
	"bytes"
	"strings"
)

// Event is one block of an event stream, as it stands on the wire. The zero
// value is a block without fields, which means nothing to a receiver.
type Event struct {
	ID       string // "" = no id line, unless ClearsID
	ClearsID bool   // an empty id line: receivers forget the ID they had; of meaning only without ID
	Name     string // "" = no event line; receivers then see "message"
	Data     []byte // without the line end that closes its last line
	HasData  bool   // false = no data line: receivers dispatch nothing
	Retry    int64  // milliseconds; of meaning only with HasRetry, as 0 is a delay too
	HasRetry bool   // false = no retry line
}

// empty reports whether e says nothing at all.
func (e *Event) empty() bool {
	return e.ID == "" && !e.ClearsID && e.Name == "" && !e.HasData && !e.HasRetry
}

// unsafeInField are the bytes an id or a name must not hold: the line ends,
// and NUL, which makes receivers ignore an id.
const unsafeInField = "\r\n\x00"

// ValidField reports whether s survives as [Event.ID] or [Event.Name].
func ValidField(s string) bool {
	return !strings.ContainsAny(s, unsafeInField)
}

// lineEnd returns the index of the first CR or LF in b, or -1. It searches
// window by window, so that splitting a text stays linear even where one of
// the two ends every line and the other never comes.
func lineEnd(b []byte) int {
	const window = 512
	for start := 0; start < len(b); start += window {
		w := b[start:min(start+window, len(b))]
		lf := bytes.IndexByte(w, '\n')
		if lf >= 0 {
			w = w[:lf]
		}
		if cr := bytes.IndexByte(w, '\r'); cr >= 0 {
			return start + cr
		}
		if lf >= 0 {
			return start + lf
		}
	}
	return -1
}
