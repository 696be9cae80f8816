package hub

import (
	"time"

	"github.com/caddy-sse/caddy-sse/topic"
)

// This file is how a log that joins instances has them share who is where.

// Member is a client at a topic or pattern whose presence is told, as one instance has it.
type Member struct {
	At       string // the topic or pattern
	ClientID string
	User     string
	Info     string
	Since    int64 // when the instance has told of it, in milliseconds since 1970
}

// memberNews is what has changed since a log was told.
type memberNews struct {
	came map[memberAt]struct{}
	gone map[Member]struct{}
}

type memberAt struct {
	roster *roster
	key    seatKey
}

func newMemberNews() *memberNews {
	return &memberNews{came: make(map[memberAt]struct{}), gone: make(map[Member]struct{})}
}

// PresenceID names what the hub's policies say of presence; 0 if no topic has any. When it changes, a log tells all
// members again, and reads all.
func (h *Hub) PresenceID() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.presence == nil {
		return 0
	}
	return h.presence.id
}

// Members returns who has come to this instance since it was called last, and who has left; or all who are there. now is
// the time by the log. From then on changes are noted, until StopListening. One caller at a time.
func (h *Hub) Members(all bool, now time.Time) map[Member]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.presence
	if p == nil {
		return nil
	}
	news := p.news
	p.news = newMemberNews()
	members := make(map[Member]bool)
	pauses := h.pausesLocked()
	if all || news == nil {
		for at := p.all.n - 1; at >= 0; at = min(at, p.all.n) - 1 {
			r := *p.all.at(at)
			for key := range r.seats {
				r.tell(key, now, members)
				pauses.step()
			}
			pauses.step()
		}
		return members
	}
	for m := range news.gone {
		members[m] = false
		pauses.step()
	}
	for at := range news.came {
		at.roster.tell(at.key, now, members)
		pauses.step()
	}
	return members
}

// tell adds a client to what the log is told, if it is there.
func (r *roster) tell(key seatKey, now time.Time, members map[Member]bool) {
	s := r.seats[key]
	if s == nil || s.here == 0 {
		return
	}
	if s.since == 0 {
		s.since = now.UnixMilli()
		if shown := r.persons[key.person()]; shown != nil && shown.since == 0 && shown.info == s.info {
			shown.since = s.since
		}
	}
	members[r.member(key, s)] = true
}

func (r *roster) member(key seatKey, s *seat) Member {
	return Member{r.name, key.clientID, key.user, s.info, s.since}
}

// say has the log told that a client is here.
func (p *presence) say(r *roster, key seatKey) {
	if p.news != nil {
		p.news.came[memberAt{r, key}] = struct{}{}
	}
}

// unsay has the log told that what it was told is so no longer.
func (p *presence) unsay(r *roster, key seatKey, s *seat) {
	if p.news != nil && s.since > 0 {
		p.news.gone[r.member(key, s)] = struct{}{}
	}
	s.since = 0
}

// Elsewhere takes in that members of other instances are there, or are there no longer. Each is told once. Members of
// places that have no presence here are left out, and all if PresenceID has changed.
func (h *Hub) Elsewhere(presenceID uint64, members map[Member]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	pauses := h.pausesLocked()
	for m, there := range members {
		if p := h.presence; p != nil && p.id == presenceID {
			p.elsewhere(h, m, there)
		}
		pauses.step()
	}
}

func (p *presence) elsewhere(h *Hub, m Member, there bool) {
	r := p.find(m.At, topic.IsPattern(m.At))
	if r == nil && there {
		r = p.roster(m.At)
	}
	if r == nil {
		return
	}
	key := seatKey{m.ClientID, m.User}
	s := r.seats[key]
	switch {
	case there:
		if s == nil {
			s = p.take(h, r, key)
		}
		s.there++
		p.show(h, r, key, m.Info, m.Since)
	case s != nil && s.there > 0:
		s.there--
		p.vacate(h, r, key, s)
	}
}
