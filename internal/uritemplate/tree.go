package uritemplate

import (
	"slices"
	"strings"
)

// Tree holds a value for each of many templates. Those that differ only by names which no expansion shows have one
// value in common. What it costs to match a text grows with the expressions that the text comes to, not with templates
// that have other literals. The zero Tree is empty. Callers see to it that one changes it at a time, and nobody looks
// meanwhile.
type Tree[T any] struct {
	root node[T]
	size int
	open int
}

// node is one beginning of templates.
type node[T any] struct {
	edges    []edge[T]   // by their first bytes, in order
	branches []branch[T] // in no order
	value    *T          // of the template that ends here
	encoded  []*T        // of templates that end here if their literals are encoded
}

// edge leads on by a literal, which is not empty.
type edge[T any] struct {
	literal string
	to      *node[T]
}

// branch leads on by an expression.
type branch[T any] struct {
	expression *expression
	to         *node[T]
}

// Len returns how many values there are.
func (t *Tree[T]) Len() int { return t.size }

// Open returns how many expressions there are that any text may come to, whatever its literals: those behind another
// expression, and those beside many others. What it costs to match a text grows with them.
func (t *Tree[T]) Open() int { return t.open }

// fewBranches is how many expressions may stand beside each other before the others count as open.
const fewBranches = 4

func opens(depth, beside int) int {
	if depth > 0 || beside >= fewBranches {
		return 1
	}
	return 0
}

// Add returns the value of a template, made new unless it is there.
func (t *Tree[T]) Add(template *Template) *T {
	n := t.make(template.path)
	if n.value == nil {
		n.value = new(T)
		t.size++
	}
	if template.encoded != nil {
		if e := t.make(template.encoded); !slices.Contains(e.encoded, n.value) {
			e.encoded = append(e.encoded, n.value)
		}
	}
	return n.value
}

// make returns the node of a path, made unless it is there.
func (t *Tree[T]) make(path []part) *node[T] {
	n, depth := &t.root, 0
	for _, p := range path {
		if p.expression == nil {
			n = n.lead(p.literal)
			continue
		}
		i := n.branch(p.expression)
		if i < 0 {
			t.open += opens(depth, len(n.branches))
			i = len(n.branches)
			n.branches = append(n.branches, branch[T]{p.expression, new(node[T])})
		}
		n = n.branches[i].to
		depth++
	}
	return n
}

// lead returns the node behind a literal, made unless it is there.
func (n *node[T]) lead(text string) *node[T] {
	for text != "" {
		i, found := n.edge(text[0])
		if !found {
			to := new(node[T])
			n.edges = slices.Insert(n.edges, i, edge[T]{strings.Clone(text), to})
			return to
		}
		e := &n.edges[i]
		same := 0
		for same < len(e.literal) && same < len(text) && e.literal[same] == text[same] {
			same++
		}
		if same < len(e.literal) {
			e.to = &node[T]{edges: []edge[T]{{e.literal[same:], e.to}}}
			e.literal = e.literal[:same]
		}
		n, text = e.to, text[same:]
	}
	return n
}

// edge returns the index of the literal that begins with a byte, or where it would be.
func (n *node[T]) edge(first byte) (i int, found bool) {
	return slices.BinarySearchFunc(n.edges, first, func(e edge[T], c byte) int { return int(e.literal[0]) - int(c) })
}

// branch returns the index of an expression; -1 if it is not there.
func (n *node[T]) branch(e *expression) int {
	return slices.IndexFunc(n.branches, func(b branch[T]) bool { return b.expression.key == e.key })
}

// Get returns the value of a template; nil if there is none.
func (t *Tree[T]) Get(template *Template) *T {
	n := &t.root
	for _, p := range template.path {
		if n = n.follow(p); n == nil {
			return nil
		}
	}
	return n.value
}

// follow returns the node behind a part; nil if there is none.
func (n *node[T]) follow(p part) *node[T] {
	if p.expression != nil {
		if i := n.branch(p.expression); i >= 0 {
			return n.branches[i].to
		}
		return nil
	}
	for text := p.literal; text != ""; {
		i, found := n.edge(text[0])
		if !found || !strings.HasPrefix(text, n.edges[i].literal) {
			return nil
		}
		n, text = n.edges[i].to, text[len(n.edges[i].literal):]
	}
	return n
}

// Remove takes out the value of a template, if it has one.
func (t *Tree[T]) Remove(template *Template) {
	value := t.Get(template)
	if value == nil {
		return
	}
	t.size--
	t.prune(&t.root, template.path, 0, func(n *node[T]) { n.value = nil })
	if template.encoded != nil {
		t.prune(&t.root, template.encoded, 0, func(n *node[T]) {
			n.encoded = slices.DeleteFunc(n.encoded, func(v *T) bool { return v == value })
		})
	}
}

// prune takes something out of the node at the end of a path that is there, and the nodes that this leaves empty.
func (t *Tree[T]) prune(n *node[T], path []part, depth int, take func(*node[T])) {
	if len(path) == 0 {
		take(n)
		return
	}
	if e := path[0].expression; e != nil {
		i := n.branch(e)
		to := n.branches[i].to
		if t.prune(to, path[1:], depth+1, take); to.empty() {
			n.branches = slices.Delete(n.branches, i, i+1)
			t.open -= opens(depth, len(n.branches))
		}
		return
	}
	i, _ := n.edge(path[0].literal[0])
	e := &n.edges[i]
	rest := path[1:]
	if left := path[0].literal[len(e.literal):]; left != "" {
		rest = append([]part{{literal: left}}, rest...)
	}
	t.prune(e.to, rest, depth, take)
	switch {
	case e.to.empty():
		n.edges = slices.Delete(n.edges, i, i+1)
	case len(e.to.edges) == 1 && len(e.to.branches) == 0 && e.to.value == nil && len(e.to.encoded) == 0:
		only := e.to.edges[0]
		*e = edge[T]{e.literal + only.literal, only.to}
	}
}

func (n *node[T]) empty() bool {
	return len(n.edges) == 0 && len(n.branches) == 0 && n.value == nil && len(n.encoded) == 0
}

// Match calls visit with the value of each template that expands to a text, each once.
func (t *Tree[T]) Match(text string, visit func(*T)) {
	if t.size == 0 {
		return
	}
	m := newMatcher(text)
	defer m.free()
	m.places = append(m.places[:0], 0)
	t.root.match(m, 0, visit)
}

// match goes on from a node at the places that stand on the stack from an index on, which are in order.
func (n *node[T]) match(m *matcher, from int, visit func(*T)) {
	until := len(m.places)
	if m.places[until-1] == len(m.text) {
		if n.value != nil {
			visit(n.value)
		}
		for _, value := range n.encoded {
			visit(value)
		}
	}
	switch {
	case len(n.edges) == 0:
	case until-from == 1:
		if place := m.places[from]; place < len(m.text) {
			if i, found := n.edge(m.text[place]); found {
				n.edges[i].match(m, from, until, visit)
			}
		}
	default:
		n.matchEdges(m, from, until, visit)
	}
	for i := range n.branches {
		m.places = n.branches[i].expression.ends(m, m.places[from:until], m.places)
		if len(m.places) > until {
			n.branches[i].to.match(m, until, visit)
		}
		m.places = m.places[:until]
	}
}

// matchEdges goes on by the literals that begin with the byte at one of the places.
func (n *node[T]) matchEdges(m *matcher, from, until int, visit func(*T)) {
	var seen [256 / 64]uint64
	for i := from; i < until; i++ {
		if m.places[i] == len(m.text) {
			break
		}
		c := m.text[m.places[i]]
		if seen[c/64]&(1<<(c%64)) != 0 {
			continue
		}
		seen[c/64] |= 1 << (c % 64)
		if at, found := n.edge(c); found {
			n.edges[at].match(m, i, until, visit)
		}
	}
}

// match goes on behind a literal, from the places between two indexes of the stack at which it stands.
func (e *edge[T]) match(m *matcher, from, until int, visit func(*T)) {
	for i := from; i < until; i++ {
		if place := m.places[i]; strings.HasPrefix(m.text[place:], e.literal) {
			m.places = append(m.places, place+len(e.literal))
		}
	}
	if len(m.places) > until {
		e.to.match(m, until, visit)
	}
	m.places = m.places[:until]
}
