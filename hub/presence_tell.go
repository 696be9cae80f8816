package hub

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"time"
)

// presenceEvent is the name of the events that tell who comes and goes.
const presenceEvent = "presence"

// presenceEvery is the least time between two presence events of a topic. Who comes first is told after
// presenceDelay: many may come at once.
const (
	presenceEvery = time.Second
	presenceDelay = 100 * time.Millisecond
)

const (
	mostUsers   = 1000    // of a Presence
	mostChanges = 100     // of each list of an event
	mostRosters = 64      // where an info is looked for
	mostLooks   = 1 << 18 // for who has changed at one topic, with very many patterns that cover it
)

// Presence is who is at a topic, over all instances.
type Presence struct {
	Topic   string   `json:"topic"`
	Clients int      `json:"clients"` // each client_id counts once
	Users   []Person `json:"users"`   // at most 1000
	More    bool     `json:"more,omitempty"`
}

// Person is somebody at a topic whom others see: a user, or an anonymous client with an info.
type Person struct {
	User string `json:"user,omitempty"`
	Info string `json:"info,omitempty"`
}

// presenceChange is the data of a presence event.
type presenceChange struct {
	Topic   string   `json:"topic"`
	Clients int      `json:"clients"`
	Joined  []Person `json:"joined"`
	Left    []Person `json:"left"`
	More    bool     `json:"more,omitempty"` // others came or went as well
}

// PresenceOf returns who is at a topic. It reports whether the topic has presence.
func (h *Hub) PresenceOf(topic string) (now Presence, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.presence
	if !p.has(topic) {
		return now, false
	}
	pauses := h.pausesLocked()
	rosters := p.covering(topic, pauses)
	now = Presence{Topic: topic, Clients: countClients(rosters, pauses), Users: []Person{}}
	listed := make(map[personKey]bool)
	for _, r := range rosters {
		for who := range r.persons {
			pauses.step()
			if listed[who] {
				continue
			}
			if now.More = len(now.Users) == mostUsers; now.More {
				break
			}
			listed[who] = true
			now.Users = append(now.Users, Person{who.user, firstInfo(rosters, who)})
		}
	}
	sortPersons(now.Users)
	return now, true
}

// firstInfo returns the first info of somebody who is there; empty for none. Of very many rosters it looks at some.
func firstInfo(rosters []*roster, who personKey) string {
	var first person
	for _, r := range rosters[:min(len(rosters), mostRosters)] {
		if shown := r.persons[who]; shown != nil {
			first.hear(shown.info, shown.since)
		}
	}
	return first.info
}

func sortPersons(persons []Person) {
	slices.SortFunc(persons, func(a, b Person) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Info, b.Info))
	})
}

// schedule has changes told as soon as that may be.
func (p *presence) schedule(h *Hub) {
	if p.busy || p.timer != nil || h.ended != nil {
		return
	}
	p.timer = time.AfterFunc(max(presenceDelay, time.Until(p.next)), func() { h.tellPresence(p) })
}

// tellPresence tells subscribers who has come and gone since it did so last. It goes from topic to topic: what changes
// meanwhile is told the next time.
func (h *Hub) tellPresence(p *presence) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.presence != p || h.ended != nil {
		return
	}
	p.timer, p.busy = nil, true
	p.window++
	touched := p.dirty
	p.dirty = nil
	pauses := h.pausesLocked()
	for _, r := range p.affected(touched, pauses) {
		h.tellChangeLocked(p, r, pauses)
		if h.presence != p || h.ended != nil {
			return
		}
	}
	for _, r := range touched {
		p.settle(r)
		r.telling = nil
		if len(r.seats) == 0 && r.queued < p.window && p.find(r.name, r.pattern) == r {
			p.drop(r)
		}
		pauses.step()
	}
	p.busy, p.next = false, time.Now().Add(presenceEvery) // it may have taken long
	if len(p.dirty) > 0 {
		p.schedule(h)
	}
}

// affected returns the topics whose presence has changed with these rosters.
func (p *presence) affected(touched []*roster, pauses *pauses) (topics []*roster) {
	wide, own := make(rosterSet), make(rosterSet)
	for _, r := range touched {
		if r.pattern {
			wide[r] = true
		} else {
			own[r] = true
			topics = append(topics, r)
		}
		pauses.step()
	}
	if len(wide) == 0 {
		return topics
	}
	topics = topics[:0]
	for at := p.all.n - 1; at >= 0; at = min(at, p.all.n) - 1 {
		r := *p.all.at(at)
		if !r.pattern && (own[r] || slices.ContainsFunc(p.covering(r.name, pauses), wide.has)) {
			topics = append(topics, r)
		}
		pauses.step()
	}
	return topics
}

type rosterSet map[*roster]bool

func (s rosterSet) has(r *roster) bool { return s[r] }

// tellChangeLocked tells the subscribers of a topic who has come and gone. Meanwhile others may have the lock.
func (h *Hub) tellChangeLocked(p *presence, r *roster, pauses *pauses) {
	rosters := p.covering(r.name, pauses)
	for _, r := range rosters {
		p.settle(r)
	}
	change := presenceChange{Topic: r.name, Joined: []Person{}, Left: []Person{}}
	done := make(map[personKey]bool)
	looks := mostLooks
	for _, changed := range rosters {
		pauses.step()
		for who := range changed.telling {
			pauses.step()
			if len(rosters) > 1 && done[who] {
				continue
			}
			if looks -= len(rosters); looks < 0 {
				change.More = true
				break
			}
			done[who] = true
			change.add(rosters, who, pauses)
		}
	}
	change.Clients = countClients(rosters, pauses)
	if change.Clients == r.clients && len(change.Joined)+len(change.Left) == 0 {
		return
	}
	r.clients = change.Clients
	sortPersons(change.Joined)
	sortPersons(change.Left)
	h.mu.Unlock()
	defer h.mu.Lock()
	data, _ := json.Marshal(change) // strings and numbers always encode
	m := &Message{To: Topics(r.name), Event: presenceEvent, Data: data, Ephemeral: true}
	h.Wait(h.context, h.Deliver(m))
}

// add looks whether a person has come or gone.
func (c *presenceChange) add(rosters []*roster, who personKey, pauses *pauses) {
	was, is, info := false, false, firstInfo(rosters, who)
	for _, r := range rosters {
		pauses.step()
		now := r.persons[who] != nil
		before := now
		if changed, ok := r.changed[who]; ok { // since the window ended
			now, before = changed.was, changed.was
			info = cmp.Or(info, changed.info)
		}
		if changed, ok := r.telling[who]; ok {
			before = changed.was
			info = cmp.Or(info, changed.info)
		}
		was, is = was || before, is || now
	}
	list := &c.Joined
	switch {
	case was == is:
		return
	case was:
		list = &c.Left
	}
	if len(*list) == mostChanges {
		c.More = true
		return
	}
	*list = append(*list, Person{who.user, info})
}

// applyPresence has the policies say which topics have presence. Clients that are there are counted in steps.
func (h *Hub) applyPresence() {
	h.mu.Lock()
	before := h.presence
	h.presences++
	p := newPresence(h.presences, h.policies.Load())
	h.presence = p
	if before != nil && before.timer != nil {
		before.timer.Stop()
	}
	h.mu.Unlock()
	if p == nil {
		return
	}
	for _, s := range h.shards {
		for at, there := math.MaxInt, true; at > 0 && there; {
			there = h.askShard(s, func(s *shard) { at = s.countPresent(p, at) })
		}
	}
}

// presentStep is at about how many topics and patterns clients are counted in one step.
const presentStep = 64

// countPresent counts some of the shard's clients, from below a place in its index downwards. It returns where to go
// on; 0 if that was all.
func (s *shard) countPresent(p *presence, at int) int {
	members := s.index.everybody.members
	at = min(at, len(members)) // what has moved there from behind was counted
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	for steps := presentStep; at > 0 && steps > 0; {
		at--
		c := members[at].client
		steps -= 1 + len(c.Topics) + len(c.patterns)
		if c.cause == nil && s.hub.presence == p {
			p.arrive(s.hub, c)
		}
	}
	return at
}
