package hub

import (
	"strings"

	"github.com/caddy-sse/caddy-sse/topic"
)

// audience counts who listens where, from when a client has joined until it leaves. It is guarded by Hub.mu.
type audience struct {
	everybody int
	names     [kinds]map[string]named // client_ids and users
	topics    map[string]*listeners
	patterns  topic.Tree[listeners]
	all       chunked[*listeners] // of topics and patterns, in no order, for walks in pieces
	// changed holds the addresses whose numbers have changed since Hub.Listening; nil if nobody asks.
	changed map[Address]struct{}

	kept     func(name string) bool // whether history keeps something of a topic
	onlyKept int                    // topics that have kept messages and no clients
}

// listeners is how many clients listen to a topic or pattern itself.
type listeners struct {
	name    string
	clients int
	slot    int // in audience.all
}

// named is how many clients have a client_id or user.
type named struct {
	clients int32
	secret  int32 // of them, those whose client_id was made up for them
}

func newAudience() *audience {
	a := &audience{topics: make(map[string]*listeners)}
	a.names[ToClient], a.names[ToUser] = make(map[string]named), make(map[string]named)
	return a
}

// add counts a client at all its addresses and patterns.
func (a *audience) add(c *Client) {
	a.everybody++
	a.note(everybody)
	a.addName(Address{ToClient, c.ClientID}, 1, c.Generated)
	if c.User != "" {
		a.addName(Address{ToUser, c.User}, 1, false)
	}
	for _, name := range c.Topics {
		l := a.topics[name]
		if l == nil {
			l = new(listeners)
			a.topics[name] = l
			if a.kept(name) {
				a.onlyKept--
			}
		}
		a.join(l, name)
	}
	for _, patterns := range [2][]string{c.patterns, c.wide} {
		for _, pattern := range patterns {
			a.join(a.patterns.Add(pattern), pattern)
		}
	}
}

// remove ends that.
func (a *audience) remove(c *Client) {
	a.everybody--
	a.note(everybody)
	a.addName(Address{ToClient, c.ClientID}, -1, c.Generated)
	if c.User != "" {
		a.addName(Address{ToUser, c.User}, -1, false)
	}
	for _, name := range c.Topics {
		if a.leave(a.topics[name]) {
			delete(a.topics, name)
			if a.kept(name) {
				a.onlyKept++
			}
		}
	}
	for _, patterns := range [2][]string{c.patterns, c.wide} {
		for _, pattern := range patterns {
			if a.leave(a.patterns.Get(pattern)) {
				a.patterns.Remove(pattern)
			}
		}
	}
}

func (a *audience) addName(to Address, more int32, secret bool) {
	n := a.names[to.Kind][to.Name]
	n.clients += more
	if secret {
		n.secret += more
	}
	if n.clients > 0 {
		a.names[to.Kind][to.Name] = n
	} else {
		delete(a.names[to.Kind], to.Name)
	}
	a.note(to)
}

func (a *audience) join(l *listeners, name string) {
	if l.clients == 0 {
		l.name, l.slot = name, a.all.n
		a.all.push(l)
	}
	l.clients++
	a.note(Address{ToTopic, name})
}

func (a *audience) leave(l *listeners) (last bool) {
	l.clients--
	a.note(Address{ToTopic, l.name})
	if l.clients > 0 {
		return false
	}
	moved := *a.all.at(a.all.n - 1)
	*a.all.at(l.slot), moved.slot = moved, l.slot
	a.all.popLast()
	return true
}

// keeps notes that history keeps something of a topic from now on, or does so no longer.
func (a *audience) keeps(name string, something bool) {
	switch {
	case a.topics[name] != nil:
	case something:
		a.onlyKept++
	default:
		a.onlyKept--
	}
}

func (a *audience) note(to Address) {
	if a.changed != nil {
		a.changed[to] = struct{}{}
	}
}

// count returns how many clients listen at an address or pattern itself.
func (a *audience) count(to Address) int {
	switch to.Kind {
	case ToBroadcast:
		return a.everybody
	case ToTopic:
		l := a.topics[to.Name]
		if l == nil && strings.Contains(to.Name, "*") {
			l = a.patterns.Get(to.Name)
		}
		if l == nil {
			return 0
		}
		return l.clients
	}
	return int(a.names[to.Kind][to.Name].clients)
}

// maxMatch is how many steps it may take, under the hub's lock, to find the patterns that topics lie within.
const maxMatch = 4096

// reached returns how many clients a message to these addresses reaches; one that several of them reach counts
// for each. Of those with templates, and of a private message, more may count. It gives up, and says so, if that takes
// too long.
func (a *audience) reached(to []Address) (clients int, all bool) {
	steps := maxMatch
	for _, address := range to {
		clients += a.exactly(address)
		if address.isTopic() && !a.patterns.MatchWithin(address.Name, &steps, func(l *listeners) { clients += l.clients }) {
			return clients, false
		}
	}
	return clients, true
}

// exactly returns how many clients a message to an address reaches, but for patterns.
func (a *audience) exactly(to Address) int {
	switch to.Kind {
	case ToTopic, ToPrivate:
		if l := a.topics[to.Name]; l != nil {
			return l.clients
		}
		return 0
	case ToBroadcast:
		return a.everybody
	}
	return int(a.names[to.Kind][to.Name].clients)
}

// reachedInStepsLocked is audience.reached for however many patterns. Who comes or goes meanwhile may count.
func (h *Hub) reachedInStepsLocked(to []Address) (clients int) {
	pauses := h.pausesLocked()
	for _, address := range to {
		clients += h.audience.exactly(address)
		if !address.isTopic() {
			continue
		}
		walk := h.audience.patterns.Walk(address.Name)
		for walk.Step(func(l *listeners) { clients += l.clients }) {
			pauses.step()
		}
	}
	return clients
}
