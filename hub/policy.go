package hub

import (
	"time"

	"github.com/caddy-sse/caddy-sse/topic"
)

// Policy is what holds for the topics that a pattern covers, instead of what holds for all topics of the hub. If
// several policies cover a topic, the first in the list counts, and no other.
type Policy struct {
	// Pattern is the topic, or the pattern of topics, that the policy is for.
	Pattern string
	// History is what is kept of each of these topics. Nil means as much as the hub keeps.
	History *Retention
	// Conflate lets a message that waits for a client give way to a newer one of the same topic and key.
	Conflate bool
	// Interval is in what time at most one message of a topic and key leaves the hub; 0 is without limit. It counts if
	// Conflate is set.
	Interval time.Duration
	// Presence tells the subscribers of a topic who else is there.
	Presence bool
}

// Retention is what is kept of one address.
type Retention struct {
	// Count is how many messages are kept; 0 keeps nothing. It counts unless Latest.
	Count int
	// Latest keeps the newest message of each key, and the newest one without a key.
	Latest bool
	// Age is how long a message is kept; 0 means without limit.
	Age time.Duration
}

// some reports whether anything is kept.
func (r *Retention) some() bool { return r.Latest || r.Count > 0 }

// LongestAge returns how long the messages are kept at most that are kept by number; 0 if that has no limit.
func (l *Limits) LongestAge() time.Duration {
	longest := l.History.Age
	for _, p := range l.Policies {
		if r := p.History; r != nil && r.Count > 0 && longest > 0 && (r.Age == 0 || r.Age > longest) {
			longest = r.Age
		}
	}
	return longest
}

// policies finds the policy of a topic. It never changes once it is made, so anybody may use it at any time. What a
// search costs does not grow with policies that have other beginnings than the topic.
type policies struct {
	list   []Policy
	tree   topic.Tree[int] // by pattern, which is the first in the list that has it
	latest bool            // one keeps the newest of each key
	count  int             // how many messages of a topic are kept at most, by one that keeps so many
}

func newPolicies(list []Policy) *policies {
	p := &policies{list: list}
	for i := range list {
		if p.tree.Get(list[i].Pattern) == nil {
			*p.tree.Add(list[i].Pattern) = i
		}
		if r := list[i].History; r != nil {
			p.latest = p.latest || r.Latest
			p.count = max(p.count, r.Count)
		}
	}
	return p
}

// of returns the first policy that covers a topic; nil if there is none.
func (p *policies) of(name string) *Policy {
	first := len(p.list)
	if first == 0 {
		return nil
	}
	p.tree.Match(name, func(i *int) { first = min(first, *i) })
	if first == len(p.list) {
		return nil
	}
	return &p.list[first]
}

// keepsLatest reports whether the newest message of each key of a topic is kept, whatever else is published.
func (p *policies) keepsLatest(name string) bool {
	policy := p.of(name)
	return policy != nil && policy.History != nil && policy.History.Latest
}

// keepLatestOf is keepsLatest for one of the topics of a message.
func (p *policies) keepLatestOf(f *Frame) (latest bool) {
	f.addresses(func(a *Address) { latest = latest || a.Kind == ToTopic && p.keepsLatest(a.Name) })
	return latest
}

// Policy returns what holds for a topic instead of the hub's limits; nil if nothing does. The policy is not to be
// changed. Other ones may hold once Apply has been called.
func (h *Hub) Policy(name string) *Policy { return h.policies.Load().of(name) }
