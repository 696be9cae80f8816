package hub

import "strings"

// patternTree holds a value for each pattern, in a tree by segments: what a topic costs to look up is its
// segments, however many patterns there are beside.
type patternTree[T any] struct {
	root patternNode[T]
	size int
}

// patternNode is one beginning of patterns.
type patternNode[T any] struct {
	literal map[string]*patternNode[T] // by the next segment
	any     *patternNode[T]            // where the next segment is "*"
	value   *T                         // of the pattern that ends here
	rest    *T                         // of the pattern that goes on with a final "**"
}

// at returns where the value of a pattern stands, in a node that is made unless it is there.
func (t *patternTree[T]) at(pattern string) **T {
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

func (n *patternNode[T]) child(segment string) *patternNode[T] {
	if segment == "*" {
		if n.any == nil {
			n.any = new(patternNode[T])
		}
		return n.any
	}
	child := n.literal[segment]
	if child == nil {
		child = new(patternNode[T])
		if n.literal == nil {
			n.literal = make(map[string]*patternNode[T])
		}
		n.literal[strings.Clone(segment)] = child
	}
	return child
}

// add returns the value of a pattern, made new unless it is there.
func (t *patternTree[T]) add(pattern string) *T {
	at := t.at(pattern)
	if *at == nil {
		*at = new(T)
		t.size++
	}
	return *at
}

// get returns the value of a pattern; nil if there is none.
func (t *patternTree[T]) get(pattern string) *T {
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

// remove takes a pattern's value out, and every node that it leaves empty.
func (t *patternTree[T]) remove(pattern string) {
	t.root.remove(pattern)
	t.size--
}

// remove reports whether it leaves the node empty.
func (n *patternNode[T]) remove(pattern string) (empty bool) {
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

func (n *patternNode[T]) removeBelow(rest string, more bool) (empty bool) {
	if more {
		return n.remove(rest)
	}
	n.value = nil
	return n.literal == nil && n.any == nil && n.rest == nil
}

// match calls visit with the value of each pattern that a topic lies within. It gives up after so many steps, and
// reports whether it came to the end: of a topic with very many segments, very many patterns may have the beginning.
func (t *patternTree[T]) match(topic string, steps *int, visit func(*T)) (all bool) {
	if t.size > 0 {
		t.root.match(topic, steps, visit)
	}
	return *steps >= 0
}

func (n *patternNode[T]) match(topic string, steps *int, visit func(*T)) {
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
	for _, child := range [2]*patternNode[T]{n.literal[segment], n.any} {
		switch {
		case child == nil:
		case more:
			child.match(rest, steps, visit)
		case child.value != nil:
			visit(child.value)
		}
	}
}

// patternWalk is match in steps, between which the tree may change.
type patternWalk[T any] struct{ todo []patternStep[T] }

type patternStep[T any] struct {
	node *patternNode[T]
	rest string // of the topic, from this node on
}

// walk begins a walk to the patterns that a topic lies within.
func (t *patternTree[T]) walk(topic string) patternWalk[T] {
	return patternWalk[T]{[]patternStep[T]{{&t.root, topic}}}
}

// step takes one step. It reports whether there was one to take.
func (w *patternWalk[T]) step(visit func(*T)) bool {
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
	for _, child := range [2]*patternNode[T]{n.literal[segment], n.any} {
		switch {
		case child == nil:
		case more:
			w.todo = append(w.todo, patternStep[T]{child, rest})
		case child.value != nil:
			visit(child.value)
		}
	}
	return true
}
