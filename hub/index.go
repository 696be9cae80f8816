package hub

import "github.com/caddy-sse/caddy-sse/topic"

// index finds the clients of one shard that an address reaches. The shard's goroutine owns it.
type index struct {
	everybody clientSet
	names     [kinds]map[string]*clientSet // topics, client_ids, users
	patterns  topic.Tree[clientSet]
	templates templateSets
	grants    grants
}

// clientSet holds the clients of one address or pattern in no particular order, with removal in
// constant time.
type clientSet struct {
	address Address
	members []member
	first   [1]member // where members begin, so that the set of a client_id needs no memory besides
	pending []*Frame  // what the cycle under way has for it
	stamp   uint64    // of the last private message that reached it
	empty   func()    // takes the set out of the index; nil if it is found by its address
}

// member is a client in a set, and which of its own memberships that is.
type member struct {
	client *Client
	nth    int
}

func newIndex() index {
	x := index{everybody: clientSet{address: everybody}}
	for _, kind := range []Kind{ToTopic, ToClient, ToUser} {
		x.names[kind] = make(map[string]*clientSet)
	}
	x.grants.names = make(map[string]*clientSet)
	return x
}

// add enters c at all its addresses and patterns.
func (x *index) add(c *Client) {
	c.memberships = c.first[:0]
	if n := len(c.Topics) + len(c.patterns) + 3 + c.extraSets(); n > len(c.first) {
		c.memberships = make([]membership, 0, n)
	}
	x.everybody.add(c)
	x.named(Address{ToClient, c.ClientID}).add(c)
	if c.User != "" {
		x.named(Address{ToUser, c.User}).add(c)
	}
	for _, name := range c.Topics {
		x.named(Address{ToTopic, name}).add(c)
	}
	for _, pattern := range c.patterns {
		set := x.patterns.Add(pattern)
		set.address = Address{ToTopic, pattern}
		set.add(c)
	}
	if c.Selectors != nil {
		x.addSelecting(c)
	}
}

// named returns the set of an address, made unless it is there.
func (x *index) named(a Address) *clientSet {
	set := x.names[a.Kind][a.Name]
	if set == nil {
		set = &clientSet{address: a}
		set.members = set.first[:0]
		x.names[a.Kind][a.Name] = set
	}
	return set
}

// remove takes c out of every set and drops the sets that it leaves empty.
func (x *index) remove(c *Client) {
	for _, m := range c.memberships {
		m.set.remove(m.slot)
		if len(m.set.members) == 0 && m.set != &x.everybody {
			x.drop(m.set)
		}
	}
	c.memberships = nil
}

func (x *index) drop(set *clientSet) {
	if set.empty != nil {
		set.empty()
		return
	}
	if names := x.names[set.address.Kind]; names[set.address.Name] == set {
		delete(names, set.address.Name)
		return
	}
	x.patterns.Remove(set.address.Name)
}

// get returns the clients that listen at an address or pattern itself; nil if there are none.
func (x *index) get(a Address) *clientSet {
	if a.Kind == ToBroadcast {
		return &x.everybody
	}
	if set := x.names[a.Kind][a.Name]; set != nil || a.Kind != ToTopic {
		return set
	}
	return x.patterns.Get(a.Name)
}

// reached calls visit with every client set that a frame reaches. A client may be in several of them.
func (x *index) reached(f *Frame, visit func(*clientSet)) {
	if f.to.Kind == ToPrivate {
		x.granted(f, visit)
		return
	}
	x.reachedAt(f.to, visit)
	for _, a := range f.others() {
		x.reachedAt(a, visit)
	}
}

func (x *index) reachedAt(a *Address, visit func(*clientSet)) {
	if a.Kind == ToBroadcast {
		visit(&x.everybody)
		return
	}
	if set := x.names[a.Kind][a.Name]; set != nil {
		visit(set)
	}
	if a.Kind == ToTopic {
		x.patterns.Match(a.Name, visit)
		x.templates.match(a.Name, visit)
	}
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
