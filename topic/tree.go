package topic

import (
	"math"
	"strings"
)

// Tree holds a value for each of many patterns, by their segments. What it costs to look up a topic does
// not grow with patterns that don't cover it. The zero Tree is empty. Callers see to it that one uses it at
// a time.
type Tree[T any] struct {
	root node[T]
	size int
}

// Len returns how many patterns have a value.
func (t *Tree[T]) Len() int { return t.size }

// node is one beginning of patterns.
type node[T any] struct {
	literal map[string]*node[T] // by the next segment
	any     *node[T]            // where the next segment is "*"
	value   *T                  // of the pattern that ends here
	rest    *T                  // of the pattern that goes on with a final "**"
}

// at returns where the value of a pattern stands, in a node that is made unless it is there.
func (t *Tree[T]) at(pattern string) **T {
	n := &t.root
	for {
		segment, rest, more := strings.Cut(pattern, "/")
		if segment == "**" && !more {
			return &n.rest
		}
		n = n.child(segment)
		if !more {
			return &n.value
		}
		pattern = rest
	}
}

func (n *node[T]) child(segment string) *node[T] {
	if segment == "*" {
		if n.any == nil {
			n.any = new(node[T])
		}
		return n.any
	}
	child := n.literal[segment]
	if child == nil {
		child = new(node[T])
		if n.literal == nil {
			n.literal = make(map[string]*node[T])
		}
		n.literal[strings.Clone(segment)] = child
	}
	return child
}

// Add returns the value of a pattern, made new unless it is there.
func (t *Tree[T]) Add(pattern string) *T {
	at := t.at(pattern)
	if *at == nil {
		*at = new(T)
		t.size++
	}
	return *at
}

// Get returns the value of a pattern; nil if there is none.
func (t *Tree[T]) Get(pattern string) *T {
	n := &t.root
	for n != nil {
		segment, rest, more := strings.Cut(pattern, "/")
		if segment == "**" && !more {
			return n.rest
		}
		if segment == "*" {
			n = n.any
		} else {
			n = n.literal[segment]
		}
		if !more {
			break
		}
		pattern = rest
	}
	if n == nil {
		return nil
	}
	return n.value
}

// Remove takes out the value of a pattern, if it has one.
func (t *Tree[T]) Remove(pattern string) {
	if t.Get(pattern) == nil {
		return
	}
	t.root.remove(pattern)
	t.size--
}

// remove takes out a value that is there, and the nodes that it leaves empty. It reports whether this is one.
func (n *node[T]) remove(pattern string) (empty bool) {
	segment, rest, more := strings.Cut(pattern, "/")
	switch {
	case segment == "**" && !more:
		n.rest = nil
	case segment == "*":
		if n.any.removeBelow(rest, more) {
			n.any = nil
		}
	default:
		if n.literal[segment].removeBelow(rest, more) {
			if delete(n.literal, segment); len(n.literal) == 0 {
				n.literal = nil
			}
		}
	}
	return n.literal == nil && n.any == nil && n.value == nil && n.rest == nil
}

func (n *node[T]) removeBelow(rest string, more bool) (empty bool) {
	if more {
		return n.remove(rest)
	}
	n.value = nil
	return n.literal == nil && n.any == nil && n.rest == nil
}

// Match calls visit with the value of each pattern that covers a topic.
func (t *Tree[T]) Match(topic string, visit func(*T)) {
	steps := math.MaxInt
	t.MatchWithin(topic, &steps, visit)
}

// MatchWithin is Match that gives up after so many steps, which it counts down. It reports whether it came to the
// end: of a topic with very many segments, very many patterns may have the beginning.
func (t *Tree[T]) MatchWithin(topic string, steps *int, visit func(*T)) (all bool) {
	if t.size > 0 {
		t.root.match(topic, steps, visit)
	}
	return *steps >= 0
}

func (n *node[T]) match(topic string, steps *int, visit func(*T)) {
	if *steps--; *steps < 0 {
		return
	}
	if n.rest != nil {
		visit(n.rest)
	}
	if n.literal == nil && n.any == nil {
		return
	}
	segment, rest, more := strings.Cut(topic, "/")
	for _, child := range [2]*node[T]{n.literal[segment], n.any} {
		switch {
		case child == nil:
		case more:
			child.match(rest, steps, visit)
		case child.value != nil:
			visit(child.value)
		}
	}
}

// TreeWalk is Match in steps, between which the tree may change.
type TreeWalk[T any] struct{ todo []treeStep[T] }

type treeStep[T any] struct {
	node *node[T]
	rest string // of the topic, from this node on
}

// Walk begins a walk to the patterns that cover a topic.
func (t *Tree[T]) Walk(topic string) TreeWalk[T] {
	return TreeWalk[T]{[]treeStep[T]{{&t.root, topic}}}
}

// Step takes one step. It reports whether there was one to take.
func (w *TreeWalk[T]) Step(visit func(*T)) bool {
	last := len(w.todo) - 1
	if last < 0 {
		return false
	}
	n, topic := w.todo[last].node, w.todo[last].rest
	w.todo = w.todo[:last]
	if n.rest != nil {
		visit(n.rest)
	}
	segment, rest, more := strings.Cut(topic, "/")
	for _, child := range [2]*node[T]{n.literal[segment], n.any} {
		switch {
		case child == nil:
		case more:
			w.todo = append(w.todo, treeStep[T]{child, rest})
		case child.value != nil:
			visit(child.value)
		}
	}
	return true
}
