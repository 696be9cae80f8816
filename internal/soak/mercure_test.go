package soak

import (
	"fmt"
	"strings"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/hub"
)

// Readers of the Mercure protocol are told a gap by the header of the answer, and know messages by URNs.
const (
	mercurePath = "/.well-known/mercure"
	earliest    = "earliest" // before all that is kept
)

// arrive notes what the answer's header says to a reader who came with this cursor.
func (r *reader) arrive(with, told string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.from == "":
		r.from = r.w.from // it begins with all that was published since
	case with == earliest || told != with:
		r.keep(eventstream.Event{Name: "gap"})
	}
}

// idsOf gives the events of a reader of the Mercure protocol the IDs that publishers were told. What no publisher was
// told of has none, as nobody knows where it belongs.
func (w *world) idsOf(events []eventstream.Event) (findings []string) {
	ids, doubtful := w.ledger.IDs()
	byURN := make(map[string]string, len(ids))
	for _, id := range ids {
		if parsed, ok := hub.ParseID(id); ok {
			byURN[parsed.URN()] = id
		}
	}
	for i, e := range events {
		id := byURN[e.ID]
		told := ids[string(e.Data)]
		if e.Name != "gap" && id == "" && told != "" && !doubtful[string(e.Data)] && !samePlace(told, e.ID) {
			findings = append(findings, fmt.Sprintf("%q came as %s, but was acknowledged as %s", e.Data, e.ID, told))
		}
		events[i].ID = id
	}
	return findings
}

// samePlace tells whether an ID and a URN name the same place, be it of two logs: when Redis forgets its log, a message
// may be acknowledged with the name of the old one.
func samePlace(id, urn string) bool {
	const epoch = len("urn:uuid:01234567-89ab") // the place is behind it
	parsed, ok := hub.ParseID(id)
	return ok && len(urn) > epoch && strings.HasSuffix(parsed.URN(), urn[epoch:])
}
