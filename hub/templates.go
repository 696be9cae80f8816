package hub

import (
	"slices"

	"github.com/caddy-sse/caddy-sse/internal/uritemplate"
)

// This file is how a shard finds the clients that have Selectors.

// templateSets has the clients of each template. What a topic matches is remembered, so that most messages match
// nothing anew.
type templateSets struct {
	tree    uritemplate.Tree[clientSet]
	matched map[string][]*clientSet // by topic; nil while nothing is remembered
	bytes   int                     // what that takes, about
}

// maxMatched is how many bytes a shard remembers of what topics match.
const maxMatched = 1 << 20

// matchedCost is about what a topic takes besides its name.
const matchedCost = 96

// add enters a client at a template.
func (t *templateSets) add(c *Client, template *uritemplate.Template) {
	set := t.tree.Add(template)
	if set.empty == nil {
		set.empty = func() {
			t.tree.Remove(template)
			t.forget()
		}
		t.forget()
	}
	set.add(c)
}

func (t *templateSets) forget() { t.matched, t.bytes = nil, 0 }

// match calls visit with the clients of each template that expands to a topic.
func (t *templateSets) match(topic string, visit func(*clientSet)) {
	if t.tree.Len() == 0 {
		return
	}
	sets, known := t.matched[topic]
	if !known {
		t.tree.Match(topic, func(set *clientSet) { sets = append(sets, set) })
		t.remember(topic, sets)
	}
	for _, set := range sets {
		visit(set)
	}
}

func (t *templateSets) remember(topic string, sets []*clientSet) {
	if t.bytes += matchedCost + len(topic) + 8*len(sets); t.bytes > maxMatched {
		t.forget()
		t.bytes = matchedCost + len(topic) + 8*len(sets)
	}
	if t.matched == nil {
		t.matched = make(map[string][]*clientSet)
	}
	t.matched[topic] = sets
}

// grants has the clients that get private messages of a topic, if they ask for one of the message's topics as well.
type grants struct {
	names     map[string]*clientSet // "*" is all topics
	templates templateSets
	stamp     uint64 // of the last private message

	has, ask []*clientSet // that it reaches, to be used again
}

// extraSets returns in how many sets a client is for its templates and its grants.
func (c *Client) extraSets() (n int) {
	if c.Selectors != nil {
		n = len(c.Selectors.templates)
	}
	if c.Granted != nil {
		n += len(c.Granted.names) + len(c.Granted.templates) + 1
	}
	return n
}

// addSelecting enters a client at its templates and its grants.
func (x *index) addSelecting(c *Client) {
	for _, template := range c.Selectors.templates {
		x.templates.add(c, template)
	}
	if c.Granted == nil {
		return
	}
	c.own = &clientSet{empty: func() {}}
	c.own.add(c)
	names := c.Granted.exact
	if c.Granted.all {
		names = []string{"*"}
	}
	for _, name := range names {
		set := x.grants.names[name]
		if set == nil {
			set = &clientSet{empty: func() { delete(x.grants.names, name) }}
			x.grants.names[name] = set
		}
		set.add(c)
	}
	for _, template := range c.Granted.templates {
		x.grants.templates.add(c, template)
	}
}

// open returns how many expressions of templates are open.
func (x *index) open() int64 { return int64(x.templates.tree.Open() + x.grants.templates.tree.Open()) }

// granted calls visit with the own set of each client that gets a private message: it asks for one of its topics, and
// is granted one. Of the two sides only the smaller is gone through.
func (x *index) granted(f *Frame, visit func(*clientSet)) {
	g := &x.grants
	if len(g.names) == 0 && g.templates.tree.Len() == 0 {
		return
	}
	few, many := g.has[:0], g.ask[:0]
	defer func() {
		clear(g.has)
		clear(g.ask)
	}()
	has := func(set *clientSet) { few = append(few, set) }
	f.addresses(func(a *Address) {
		for _, name := range [2]string{a.Name, "*"} {
			if set := g.names[name]; set != nil {
				has(set)
			}
		}
		g.templates.match(a.Name, has)
	})
	g.has = few
	if len(few) == 0 {
		return
	}
	ask := func(set *clientSet) { many = append(many, set) }
	f.addresses(func(a *Address) { x.reachedAt(&Address{ToTopic, a.Name}, ask) })
	g.ask = many
	if membersOf(many) < membersOf(few) {
		few, many = many, few
	}
	g.stamp++
	for _, set := range many {
		set.stamp = g.stamp
	}
	reached := func(m membership) bool { return m.set.stamp == g.stamp }
	for _, set := range few {
		for _, m := range set.members {
			if c := m.client; c.own != nil && slices.ContainsFunc(c.memberships, reached) {
				visit(c.own)
			}
		}
	}
}

func membersOf(sets []*clientSet) (n int) {
	for _, set := range sets {
		n += len(set.members)
	}
	return n
}
