package hub

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/internal/uritemplate"
	"github.com/caddy-sse/caddy-sse/topic"
)

// Selectors choose topics as the Mercure protocol does. A selector is "*", which chooses all topics; or it chooses the
// topic that is equal to it; or it is a URI template (RFC 6570), and chooses the topics that it expands to as well.
// Selectors never change, so many clients may share them. Nil chooses nothing.
type Selectors struct {
	names     []string                // as they were given, each once, in order
	all       bool                    // one is "*": no other counts
	exact     []string                // the topics that are equal to one, in order
	templates []*uritemplate.Template // those that have expressions
	// wide are patterns that together cover all that is chosen, and more.
	wide []string
	// open tells that a template has an expression behind another one: what it costs to find that nothing matches it
	// does not depend on its literals alone.
	open bool

	tree func() *uritemplate.Tree[struct{}] // of templates, made once it is needed
}

// MaxSelectorBytes is the size limit of a selector, and of the topics of a message with AnyTopic.
const MaxSelectorBytes = 2048

// fewTemplates is how many templates are tried one by one, rather than by a tree.
const fewTemplates = 4

// ParseSelectors reads selectors. The error says which one is wrong: it is empty or too long, or a template with more
// than 8 expressions.
func ParseSelectors(names ...string) (*Selectors, error) {
	s := &Selectors{names: topic.Distinct(slices.Clone(names))}
	for i, name := range s.names {
		if err := checkSelector(name); err != nil {
			return nil, err
		}
		s.names[i] = strings.Clone(name) // it may be a part of a request, of which nothing is to be kept
		s.all = s.all || name == "*"
		t, err := uritemplate.Parse(s.names[i])
		switch {
		case errors.Is(err, uritemplate.ErrTooMany):
			return nil, fmt.Errorf("%q: %w", name, err)
		case err == nil && t.Expressions() > 0:
			s.templates = append(s.templates, t)
			s.open = s.open || t.Expressions() > 1
		}
	}
	if s.all {
		s.templates, s.wide, s.open = nil, []string{"**"}, false
		return s, nil
	}
	s.exact = s.names
	for _, t := range s.templates {
		s.wide = append(s.wide, around(t))
	}
	if s.wide = topic.Distinct(s.wide); slices.Contains(s.wide, "**") {
		s.wide = []string{"**"}
	}
	s.tree = sync.OnceValue(func() *uritemplate.Tree[struct{}] {
		tree := new(uritemplate.Tree[struct{}])
		for _, t := range s.templates {
			tree.Add(t)
		}
		return tree
	})
	return s, nil
}

// checkSelector says what is wrong with a selector, or with a topic that may be any text.
func checkSelector(text string) error {
	switch {
	case text == "":
		return fmt.Errorf("a topic is empty; give it 1 to %d bytes", MaxSelectorBytes)
	case len(text) > MaxSelectorBytes:
		return fmt.Errorf("a topic has %d bytes; the limit is %d", len(text), MaxSelectorBytes)
	case !utf8.ValidString(text):
		return errors.New("a topic is not valid UTF-8")
	case strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("topic %q has control characters; leave them out", text)
	}
	return nil
}

// around returns a pattern that covers all that a template expands to.
func around(t *uritemplate.Template) string {
	prefix := t.Prefix()
	return prefix[:strings.LastIndexByte(prefix, '/')+1] + "**"
}

// setSelectors has a client listen at what its selectors choose.
func (c *Client) setSelectors() {
	c.Topics, c.Patterns = c.Selectors.exact, nil
	if c.Selectors.all {
		c.patterns = c.Selectors.wide
	} else {
		c.wide = c.Selectors.wide
	}
	if c.Granted != nil && len(c.Granted.names) == 0 {
		c.Granted = nil
	}
}

// byGrant returns the first topic of a private message that the client asks for, if it is granted one of its topics.
func (c *Client) byGrant(f *Frame) (by *Address) {
	if c.Granted == nil {
		return nil
	}
	granted := false
	f.addresses(func(a *Address) {
		granted = granted || c.Granted.Match(a.Name)
		if by == nil && c.Selectors.Match(a.Name) {
			by = a
		}
	})
	if !granted {
		return nil
	}
	return by
}

// onlyGranted leaves out, behind the first few frames, private messages that the client is not granted.
func (c *Client) onlyGranted(frames []*Frame, told int) []*Frame {
	if c.Granted == nil {
		return frames
	}
	left := frames[:told]
	for _, f := range frames[told:] {
		if f.to == nil || f.to.Kind != ToPrivate || c.byGrant(f) != nil {
			left = append(left, f)
		}
	}
	return left
}

// hears leaves out what is published to other addresses than topics: no client with Selectors gets that.
func (c *Client) hears(frames []*Frame) []*Frame {
	other := func(f *Frame) bool { return f.published() && !f.to.isTopic() }
	if c.Selectors == nil || !slices.ContainsFunc(frames, other) {
		return frames
	}
	return slices.DeleteFunc(slices.Clone(frames), other)
}

// maxOpen is how many open expressions a shard may have before clients that bring more are refused. Each costs a part
// of a microsecond whenever a topic is published to that is not remembered.
const maxOpen = 20_000

// tooOpenLocked reports whether a client brings more open expressions than the hub takes.
func (h *Hub) tooOpenLocked(s *Subscription) bool {
	brings := s.Selectors != nil && (s.Selectors.open || s.Granted != nil && s.Granted.open)
	return brings && slices.ContainsFunc(h.shards, func(s *shard) bool { return s.open.Load() > maxOpen })
}

// Names returns the selectors, each once, in order.
func (s *Selectors) Names() []string {
	if s == nil {
		return nil
	}
	return slices.Clone(s.names)
}

// Match reports whether one of the selectors chooses a topic.
func (s *Selectors) Match(topic string) bool {
	switch {
	case s == nil:
		return false
	case s.all:
		return true
	}
	if _, found := slices.BinarySearch(s.exact, topic); found {
		return true
	}
	return s.matchTemplate(topic)
}

// matchTemplate reports whether one of the templates expands to a topic.
func (s *Selectors) matchTemplate(topic string) (matched bool) {
	if len(s.templates) > fewTemplates {
		s.tree().Match(topic, func(*struct{}) { matched = true })
		return matched
	}
	return slices.ContainsFunc(s.templates, func(t *uritemplate.Template) bool { return t.Match(topic) })
}
