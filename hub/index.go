package hub

import (
	"strings"

	"github.com/caddy-sse/caddy-sse/topic"
)

// index finds the clients that an address reaches. It is guarded by Hub.mu.
type index struct {
	exact map[Address]*clientSet
	// patterns are grouped by their literal segments before the first wildcard, so that a topic is
	// held only against those that share its beginning.
	patterns map[string]map[string]*clientSet
	// changed holds the addresses whose sets have changed since takeChanges; nil if nobody asks.
	changed map[Address]struct{}
}

// clientSet holds the clients of one address or pattern in no particular order, with removal in
// constant time.
type clientSet struct {
	address Address
	members []member
	first   [1]member // where members begin, so that the set of a client_id needs no memory besides
}

// member is a client in a set, and which of its own memberships that is.
type member struct {
	client *Client
	nth    int
}

// membership is a client's side of a member.
type membership struct {
	set  *clientSet
	slot int // of set.members
}

func newIndex() *index {
	return &index{exact: make(map[Address]*clientSet), patterns: make(map[string]map[string]*clientSet)}
}

// add enters c at all its addresses and patterns.
func (x *index) add(c *Client) {
	addresses := c.addresses()
	c.memberships = c.first[:0]
	for _, a := range addresses {
		set := x.exact[a]
		if set == nil {
			set = newClientSet(a)
			x.exact[a] = set
		}
		set.add(c)
		x.noteChange(a)
	}
	for _, p := range c.Patterns {
		prefix := literalPrefix(p)
		group := x.patterns[prefix]
		if group == nil {
			group = make(map[string]*clientSet)
			x.patterns[prefix] = group
		}
		set := group[p]
		if set == nil {
			set = newClientSet(Address{ToTopic, p})
			group[p] = set
		}
		set.add(c)
		x.noteChange(set.address)
	}
}

// remove takes c out of every set and drops the sets that it leaves empty.
func (x *index) remove(c *Client) {
	for _, m := range c.memberships {
		m.set.remove(m.slot)
		x.noteChange(m.set.address)
		if len(m.set.members) == 0 {
			x.drop(m.set)
		}
	}
	c.memberships = nil
}

func (x *index) drop(set *clientSet) {
	if x.exact[set.address] == set {
		delete(x.exact, set.address)
		return
	}
	prefix := literalPrefix(set.address.Name)
	group := x.patterns[prefix]
	delete(group, set.address.Name)
	if len(group) == 0 {
		delete(x.patterns, prefix)
	}
}

func (x *index) noteChange(a Address) {
	if x.changed != nil {
		x.changed[a] = struct{}{}
	}
}

// takeChanges returns how many clients the sets have that changed since it was called last, or all
// sets, and notes changes from then on.
func (x *index) takeChanges(all bool) map[Address]int {
	counts := make(map[Address]int)
	if all || x.changed == nil {
		for a, set := range x.exact {
			counts[a] = len(set.members)
		}
		for _, group := range x.patterns {
			for p, set := range group {
				counts[Address{ToTopic, p}] = len(set.members)
			}
		}
	} else {
		for a := range x.changed {
			counts[a] = x.count(a)
		}
	}
	x.changed = make(map[Address]struct{})
	return counts
}

// count returns how many clients listen at an address or pattern itself.
func (x *index) count(a Address) int {
	if set := x.set(a); set != nil {
		return len(set.members)
	}
	return 0
}

// set returns the clients that listen at an address or pattern itself; nil if there are none.
func (x *index) set(a Address) *clientSet {
	if set := x.exact[a]; set != nil || a.Kind != ToTopic {
		return set
	}
	return x.patterns[literalPrefix(a.Name)][a.Name]
}

// reached calls visit with every client set that a message to these addresses reaches. A client may
// be in several of them.
func (x *index) reached(to []Address, visit func(*clientSet)) {
	for _, a := range to {
		if set := x.exact[a]; set != nil {
			visit(set)
		}
		if a.Kind == ToTopic && len(x.patterns) > 0 {
			x.reachedByPattern(a.Name, visit)
		}
	}
}

func (x *index) reachedByPattern(topic string, visit func(*clientSet)) {
	x.visitPatterns("", topic, visit)
	for i := 1; i < len(topic); i++ {
		if topic[i] == '/' {
			x.visitPatterns(topic[:i], topic, visit)
		}
	}
}

func (x *index) visitPatterns(prefix, name string, visit func(*clientSet)) {
	for pattern, set := range x.patterns[prefix] {
		if topic.Match(pattern, name) {
			visit(set)
		}
	}
}

func newClientSet(a Address) *clientSet {
	s := &clientSet{address: a}
	s.members = s.first[:0]
	return s
}

func (s *clientSet) add(c *Client) {
	c.memberships = append(c.memberships, membership{s, len(s.members)})
	s.members = append(s.members, member{c, len(c.memberships) - 1})
	if len(s.members) > len(s.first) { // they have moved
		s.first = [1]member{}
	}
}

func (s *clientSet) remove(slot int) {
	last := len(s.members) - 1
	moved := s.members[last]
	s.members[slot] = moved
	moved.client.memberships[moved.nth].slot = slot
	s.members[last] = member{}
	s.members = s.members[:last]
}

// literalPrefix returns what of a pattern stands before its first wildcard segment, without the
// slash between: "room" for "room/*/x", "" for "*".
func literalPrefix(pattern string) string {
	end := 0
	for segment := range strings.SplitSeq(pattern, "/") {
		if segment == "*" || segment == "**" {
			break
		}
		end += len(segment) + 1
	}
	return pattern[:max(0, end-1)]
}
