package redislog

import (
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-sse/caddy-sse/hub"
)

// roll is what this instance knows of the names of one kind that other instances have told: members, or guests. The
// goroutine that exchanges presence owns it.
type roll struct {
	of     uint64              // whose names: the hub's PresenceID or GuestsID; 0 for nobody's, and nothing is read
	readOf string              // the term of the totals that was read
	upTo   int64               // the last change that was read
	began  int64               // the last change when reading all began
	known  map[string]struct{} // who is there
	// stale are those that were there under another term, and have not been told under this one.
	stale map[string]struct{}
}

// follow begins anew if the hub has another presence, or other guests. It reports whether it does.
func (m *roll) follow(id uint64) (anew bool) {
	if m.of == id {
		return false
	}
	*m = roll{of: id, known: make(map[string]struct{}), stale: make(map[string]struct{})}
	return true
}

// take takes in what has changed on other instances. Who was there under another term stays until every living instance
// has had the time to tell, which is settled. It returns who has come and gone, and of those who were only stale.
func (m *roll) take(term string, c changes, settled bool) (changed map[string]bool, lost []string) {
	m.readOf, m.upTo, m.began = term, c.upTo, c.began
	if c.again {
		for name := range m.known {
			m.stale[name] = struct{}{}
		}
		clear(m.known)
	}
	changed = make(map[string]bool)
	for pair := range slices.Chunk(c.changed, 2) {
		name, _ := pair[0].(string)
		n, _ := pair[1].(int64)
		m.note(name, n > 0, changed)
	}
	if settled && !c.more {
		for name := range m.stale {
			m.note(name, false, changed)
			lost = append(lost, name)
		}
	}
	return changed, lost
}

// note notes that a name is there, or is not, if that is news.
func (m *roll) note(name string, there bool, changed map[string]bool) {
	_, known := m.known[name]
	_, stale := m.stale[name]
	delete(m.stale, name)
	if there {
		m.known[name] = struct{}{}
	} else {
		delete(m.known, name)
	}
	if there != (known || stale) {
		changed[name] = there
	}
}

// all returns everybody, to be told as gone.
func (m *roll) all() map[string]bool {
	gone := make(map[string]bool, len(m.known)+len(m.stale))
	for name := range m.known {
		gone[name] = false
	}
	for name := range m.stale {
		gone[name] = false
	}
	return gone
}

// noteMembers takes in who has come and gone on other instances.
func (l *Log) noteMembers(r told) {
	m := &l.presence.members
	if m.of == 0 {
		return
	}
	_, settled := l.presence.known()
	changed, _ := m.take(r.term, r.members, settled)
	l.tellMembers(changed)
}

// tellMembers tells the hub who has come and gone.
func (l *Log) tellMembers(changed map[string]bool) {
	members := make(map[hub.Member]bool)
	for name, there := range changed {
		if member, ok := memberOf(name); ok {
			members[member] = there
		}
	}
	if len(members) > 0 {
		l.replica.Elsewhere(l.presence.members.of, members)
	}
}

// forgetMembers has the hub forget who is on other instances.
func (l *Log) forgetMembers() { l.tellMembers(l.presence.members.all()) }

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
