package hub

import "strings"

// keptTree finds the logs of kept topics that patterns match, in a tree by segments. It is guarded by Hub.mu.
type keptTree struct{ root directory }

// directory is one beginning of kept topics.
type directory struct {
	parent  *directory
	segment string // by which its parent has it
	below   map[string]*directory
	topics  map[string]*addressLog // by their last segments
	newest  uint64                 // the place of the newest message at or below it
	trimmed Position               // the newest message at or below it that is no longer kept
	direct  Position               // the same of topics alone
}

// add enters a topic's log.
func (t *keptTree) add(l *addressLog) {
	d, name := &t.root, l.address.Name
	for {
		segment, rest, more := strings.Cut(name, "/")
		if !more {
			break
		}
		child := d.below[segment]
		if child == nil {
			child = &directory{parent: d, segment: segment}
			if d.below == nil {
				d.below = make(map[string]*directory)
			}
			d.below[segment] = child
		}
		d, name = child, rest
	}
	if d.topics == nil {
		d.topics = make(map[string]*addressLog)
	}
	d.topics[name] = l
	l.directory = d
}

// remove takes a topic's log out, and every directory that it leaves empty.
func (t *keptTree) remove(l *addressLog) {
	d, name := l.directory, l.address.Name
	delete(d.topics, name[strings.LastIndexByte(name, '/')+1:])
	for d.parent != nil && len(d.topics) == 0 && len(d.below) == 0 {
		delete(d.parent.below, d.segment)
		d = d.parent
	}
}

// published notes the place of a topic's newest message.
func (d *directory) published(seq uint64) {
	for ; d != nil; d = d.parent {
		d.newest = seq
	}
}

// lost notes that a topic's message at p is no longer kept.
func (d *directory) lost(p Position) {
	if d != nil && p.After(d.direct) {
		d.direct = p
	}
	for ; d != nil && p.After(d.trimmed); d = d.parent {
		d.trimmed = p
	}
}

// search walks the tree for one pattern. It gives up after so many steps.
type search struct {
	steps int
	// from is the place of the first message that counts; what is older is passed by.
	from  uint64
	found func(*addressLog) bool // whether to go on
}

// logs visits the logs of all topics within a pattern. It reports whether it came to the end.
func (s *search) logs(d *directory, pattern string) bool {
	if d.newest < s.from {
		return true
	}
	segment, rest, more := strings.Cut(pattern, "/")
	switch {
	case segment == "**" && !more:
		return s.all(d)
	case segment == "*" && !more:
		return s.topics(d)
	case segment == "*":
		for _, child := range d.below {
			if s.steps--; s.steps < 0 || !s.logs(child, rest) {
				return false
			}
		}
		return true
	case more:
		child := d.below[segment]
		return child == nil || s.logs(child, rest)
	}
	l := d.topics[segment]
	return l == nil || s.found(l)
}

func (s *search) topics(d *directory) bool {
	for _, l := range d.topics {
		if s.steps--; s.steps < 0 || l.last >= s.from && !s.found(l) {
			return false
		}
	}
	return true
}

// all visits the logs at or below a directory.
func (s *search) all(d *directory) bool {
	if d.newest < s.from {
		return true
	}
	if !s.topics(d) {
		return false
	}
	for _, child := range d.below {
		if s.steps--; s.steps < 0 || !s.all(child) {
			return false
		}
	}
	return true
}

// lost returns the newest message after p that a topic within a pattern no longer keeps; p if there is none. After
// that many steps it takes the worst for granted.
func (d *directory) lostTo(pattern string, p Position, steps *int) Position {
	if !d.trimmed.After(p) {
		return p
	}
	if *steps--; *steps < 0 {
		return d.trimmed
	}
	segment, rest, more := strings.Cut(pattern, "/")
	switch {
	case segment == "**" && !more:
		return d.trimmed
	case segment == "*" && !more:
		if d.direct.After(p) {
			return d.direct
		}
		return p
	case segment == "*":
		for _, child := range d.below {
			if *steps--; *steps < 0 { // also for those that have lost nothing
				break
			}
			p = child.lostTo(rest, p, steps)
		}
		if *steps < 0 && d.trimmed.After(p) {
			return d.trimmed
		}
		return p
	case more:
		if child := d.below[segment]; child != nil {
			return child.lostTo(rest, p, steps)
		}
	default:
		if l := d.topics[segment]; l != nil && l.trimmed.After(p) {
			return l.trimmed
		}
	}
	return p
}
