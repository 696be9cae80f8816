package hub

import (
	"time"

	"github.com/caddy-sse/caddy-sse/topic"
)

// presence knows who is at each topic whose policy has Presence: who listens to the topic itself, and who listens to
// a pattern that covers it. A hub without such a policy has none. It is guarded by Hub.mu.
type presence struct {
	id       uint64    // grows with each presence of the hub
	policies *policies // that say which topics have presence
	places   []string  // the patterns of those policies
	topics   map[string]*roster
	patterns topic.Tree[*roster]
	all      chunked[*roster] // in no order, for walks in pieces

	window uint64    // counts the times that changes were told
	dirty  []*roster // that have changed in the present window
	next   time.Time // when changes may be told again
	timer  *time.Timer
	busy   bool // changes are being told

	news *memberNews // what a log is to be told; nil if none asks
}

// roster is who listens to one topic, or to one pattern, here and on other instances.
type roster struct {
	name    string
	pattern bool
	seats   map[seatKey]*seat
	persons map[personKey]*person // those that are shown
	slot    int                   // in presence.all

	window  uint64               // that changed is of
	changed map[personKey]change // since then
	telling map[personKey]change // in the window before
	queued  uint64               // the last window in which it was in presence.dirty
	clients int                  // how many were told last; -1 for none yet
}

// seatKey is a client, whatever the number of its connections.
type seatKey struct{ clientID, user string }

// seat is a client at a place.
type seat struct {
	here  int    // connections to this instance
	there int    // instances that have told of it
	info  string // the first of the connections here
	since int64  // when the log was told of those, in milliseconds since 1970; 0 if it was not
}

// personKey is whom others see: a user, whatever the number of clients, or an anonymous client that has an info.
type personKey struct{ user, clientID string }

// person is somebody whom others see.
type person struct {
	seats int    // clients of a user
	info  string // the first
	since int64  // when the log was told of it; 0 if it was not
}

// change says of a person who came or went whether it was there before, and its info.
type change struct {
	was  bool
	info string
}

func newPresence(id uint64, p *policies) *presence {
	places := p.presencePatterns()
	if len(places) == 0 {
		return nil
	}
	return &presence{id: id, policies: p, places: places, window: 1, topics: make(map[string]*roster)}
}

// presencePatterns returns the patterns of the policies that have Presence.
func (p *policies) presencePatterns() (patterns []string) {
	for _, policy := range p.list {
		if policy.Presence {
			patterns = append(patterns, policy.Pattern)
		}
	}
	return patterns
}

// samePresence reports whether two lists of policies give the same topics presence.
func samePresence(a, b []Policy) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Pattern != b[i].Pattern || a[i].Presence != b[i].Presence {
			return false
		}
	}
	return true
}

// has reports whether a topic has presence.
func (p *presence) has(name string) bool {
	if p == nil {
		return false
	}
	policy := p.policies.of(name)
	return policy != nil && policy.Presence
}

// roster returns the roster of a topic or pattern, made unless it is there; nil for one that has nothing to do with
// presence.
func (p *presence) roster(name string) *roster {
	isPattern := topic.IsPattern(name)
	if r := p.find(name, isPattern); r != nil {
		return r
	}
	if isPattern && !p.mayCover(name) || !isPattern && !p.has(name) {
		return nil
	}
	r := &roster{
		name: name, pattern: isPattern, window: p.window, slot: p.all.n, clients: -1,
		seats: make(map[seatKey]*seat), persons: make(map[personKey]*person),
	}
	p.all.push(r)
	if isPattern {
		*p.patterns.Add(name) = r
	} else {
		p.topics[name] = r
	}
	return r
}

func (p *presence) find(name string, isPattern bool) *roster {
	if !isPattern {
		return p.topics[name]
	}
	if at := p.patterns.Get(name); at != nil {
		return *at
	}
	return nil
}

// mayCover reports whether a pattern may cover a topic that has presence.
func (p *presence) mayCover(pattern string) bool {
	for _, place := range p.places {
		if topic.Overlap(pattern, place) {
			return true
		}
	}
	return false
}

// drop forgets a roster that is empty.
func (p *presence) drop(r *roster) {
	if r.pattern {
		p.patterns.Remove(r.name)
	} else {
		delete(p.topics, r.name)
	}
	moved := *p.all.at(p.all.n - 1)
	*p.all.at(r.slot), moved.slot = moved, r.slot
	p.all.popLast()
}

// standing is where a client is counted.
type standing struct {
	presence *presence
	rosters  []*roster
}

// arrive counts a client that listens from now on.
func (p *presence) arrive(h *Hub, c *Client) {
	if p == nil || c.Unseen || c.standing != nil && c.standing.presence == p {
		return
	}
	c.standing = nil
	key := seatKey{c.ClientID, c.User}
	for _, names := range [2][]string{c.Topics, c.patterns} {
		for _, name := range names {
			r := p.roster(name)
			if r == nil {
				continue
			}
			if c.standing == nil {
				c.standing = &standing{presence: p}
			}
			c.standing.rosters = append(c.standing.rosters, r)
			p.sit(h, r, key, c.Info)
		}
	}
}

// depart ends that.
func (p *presence) depart(h *Hub, c *Client) {
	if p == nil || c.standing == nil || c.standing.presence != p {
		return
	}
	for _, r := range c.standing.rosters {
		p.rise(h, r, seatKey{c.ClientID, c.User})
	}
	c.standing = nil
}

// sit counts a connection to this instance.
func (p *presence) sit(h *Hub, r *roster, key seatKey, info string) {
	s := r.seats[key]
	switch {
	case s == nil:
		s = p.take(h, r, key)
		s.info = info
	case s.info == "" && info != "": // the log was told that there is none
		p.unsay(r, key, s)
		s.info = info
	}
	if s.here++; s.since == 0 {
		p.say(r, key)
	}
	p.show(h, r, key, info, 0)
}

// rise ends that.
func (p *presence) rise(h *Hub, r *roster, key seatKey) {
	s := r.seats[key]
	if s.here--; s.here > 0 {
		return
	}
	p.unsay(r, key, s)
	s.info = ""
	p.vacate(h, r, key, s)
}

// take makes room for a client that was not there.
func (p *presence) take(h *Hub, r *roster, key seatKey) *seat {
	s := new(seat)
	r.seats[key] = s
	p.touch(h, r)
	if key.user != "" {
		r.person(personKey{user: key.user}).seats++
	}
	return s
}

// vacate takes a client out that is not there any more, here or elsewhere.
func (p *presence) vacate(h *Hub, r *roster, key seatKey, s *seat) {
	if s.here+s.there > 0 {
		return
	}
	delete(r.seats, key)
	p.touch(h, r)
	who := key.person()
	shown := r.persons[who]
	if shown == nil {
		return
	}
	if shown.seats--; shown.seats <= 0 {
		r.note(who, change{true, shown.info})
		delete(r.persons, who)
	}
}

// person returns whom others see of a client, if it is shown.
func (k seatKey) person() personKey {
	if k.user != "" {
		return personKey{user: k.user}
	}
	return personKey{clientID: k.clientID}
}

// person returns somebody who is shown from now on.
func (r *roster) person(who personKey) *person {
	shown := r.persons[who]
	if shown == nil {
		shown = new(person)
		r.persons[who] = shown
		r.note(who, change{})
	}
	return shown
}

// show takes in the info of a client: the first counts. since is when the log was told of it; 0 if it was not.
func (p *presence) show(h *Hub, r *roster, key seatKey, info string, since int64) {
	if info == "" {
		return
	}
	if r.persons[key.person()] == nil {
		p.touch(h, r)
	}
	r.person(key.person()).hear(info, since)
}

// hear takes in an info. The first counts.
func (p *person) hear(info string, since int64) {
	if p.info == "" || info != "" && since > 0 && (p.since == 0 || since < p.since) {
		p.info, p.since = info, since
	}
}

// note remembers what a person was before it came or went, unless that is known.
func (r *roster) note(who personKey, before change) {
	if known, ok := r.changed[who]; ok {
		before.was = known.was
	}
	if r.changed == nil {
		r.changed = make(map[personKey]change)
	}
	r.changed[who] = before
}

// settle brings a roster into the present window.
func (p *presence) settle(r *roster) {
	if r.window == p.window {
		return
	}
	r.telling = nil
	if r.window == p.window-1 {
		r.telling = r.changed
	}
	r.changed, r.window = nil, p.window
}

// touch has the changes of a roster told soon. It comes before they are noted.
func (p *presence) touch(h *Hub, r *roster) {
	p.settle(r)
	if r.queued < p.window {
		r.queued = p.window
		p.dirty = append(p.dirty, r)
		p.schedule(h)
	}
}

// covering returns the rosters that a topic's presence is made of: its own, if there is one, and those of patterns
// that cover it.
func (p *presence) covering(name string, pauses *pauses) (rosters []*roster) {
	if r := p.topics[name]; r != nil {
		rosters = append(rosters, r)
	}
	walk := p.patterns.Walk(name)
	for walk.Step(func(r **roster) { rosters = append(rosters, *r) }) {
		pauses.step()
	}
	return rosters
}

// countClients returns how many clients there are, each once.
func countClients(rosters []*roster, pauses *pauses) (clients int) {
	if len(rosters) == 0 {
		return 0
	}
	most := 0
	for i, r := range rosters {
		if len(r.seats) > len(rosters[most].seats) {
			most = i
		}
	}
	others := make(map[seatKey]struct{}) // who is not in the largest
	for i, r := range rosters {
		pauses.step()
		if i == most {
			continue
		}
		for key := range r.seats {
			if rosters[most].seats[key] == nil {
				others[key] = struct{}{}
			}
			pauses.step()
		}
	}
	return len(rosters[most].seats) + len(others)
}
