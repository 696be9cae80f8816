package redislog

import (
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-sse/caddy-sse/hub"
)

// members is what this instance knows of who is where on the others. The goroutine that exchanges presence owns it.
type members struct {
	of     uint64              // the hub's PresenceID; 0 if it has no presence, and nothing is read
	readOf string              // the term of the totals that was read
	upTo   int64               // the last change that was read
	began  int64               // the last change when reading all began
	known  map[string]struct{} // who is there
	// stale are those that were there under another term, and have not been told under this one.
	stale map[string]struct{}
}

// follow begins anew if the hub has another presence. It reports whether it does.
func (m *members) follow(presenceID uint64) (anew bool) {
	if m.of == presenceID {
		return false
	}
	*m = members{of: presenceID, known: make(map[string]struct{}), stale: make(map[string]struct{})}
	return true
}

// noteMembers takes in who has come and gone on other instances. Who was there under another term stays until every
// living instance has had the time to tell.
func (l *Log) noteMembers(r told) {
	m := &l.presence.members
	if m.of == 0 {
		return
	}
	m.readOf, m.upTo, m.began = r.term, r.members.upTo, r.members.began
	if r.members.again {
		for name := range m.known {
			m.stale[name] = struct{}{}
		}
		clear(m.known)
	}
	changed := make(map[hub.Member]bool)
	for pair := range slices.Chunk(r.members.changed, 2) {
		name, _ := pair[0].(string)
		n, _ := pair[1].(int64)
		m.note(name, n > 0, changed)
	}
	if _, all := l.presence.known(); all && !r.members.more {
		for name := range m.stale {
			m.note(name, false, changed)
		}
	}
	if len(changed) > 0 {
		l.replica.Elsewhere(m.of, changed)
	}
}

// note notes that a member is there, or is not, and what the hub has to know of that.
func (m *members) note(name string, there bool, changed map[hub.Member]bool) {
	member, ok := memberOf(name)
	if !ok {
		return
	}
	_, known := m.known[name]
	_, stale := m.stale[name]
	delete(m.stale, name)
	if there {
		m.known[name] = struct{}{}
	} else {
		delete(m.known, name)
	}
	if there != (known || stale) {
		changed[member] = there
	}
}

// forgetMembers has the hub forget who is on other instances.
func (l *Log) forgetMembers() {
	m := &l.presence.members
	changed := make(map[hub.Member]bool)
	for _, names := range []map[string]struct{}{m.known, m.stale} {
		for name := range names {
			if member, ok := memberOf(name); ok {
				changed[member] = false
			}
		}
	}
	l.replica.Elsewhere(m.of, changed)
}

// memberField returns the field of a member in the totals and in an instance's hash. Only the info, which is last, may
// have any characters.
func memberField(m hub.Member) string {
	return "m:" + strings.Join([]string{m.At, m.ClientID, m.User, strconv.FormatInt(m.Since, 10), m.Info}, "\x00")
}

// memberOf reads what stands behind the m: of a field.
func memberOf(name string) (m hub.Member, ok bool) {
	parts := strings.SplitN(name, "\x00", 5)
	if len(parts) != 5 {
		return m, false
	}
	since, err := strconv.ParseInt(parts[3], 10, 64)
	return hub.Member{At: parts[0], ClientID: parts[1], User: parts[2], Since: since, Info: parts[4]}, err == nil
}
