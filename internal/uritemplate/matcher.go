package uritemplate

import (
	"strings"
	"sync"
)

// matcher is what it takes to match one text.
type matcher struct {
	text string
	// At each place how long the symbol is that may stand in a value, as it is or as RFC 6570 encodes it; 0 for none.
	// reserved also has what stands for itself in {+value} and {#value}.
	unreserved, reserved []uint8
	classified           bool

	told, from, other, keys set
	counts                  []int
	places                  []int // a stack of lists
}

// set has the places of a text, of which the last is its end.
type set []bool

// cleared returns an empty set for a text of that length, in the same memory if there is enough.
func (s *set) cleared(length int) set {
	if cap(*s) <= length {
		*s = make(set, length+1, 2*length+64)
	} else {
		*s = (*s)[:length+1]
		clear(*s)
	}
	return *s
}

var matchers = sync.Pool{New: func() any { return new(matcher) }}

func newMatcher(text string) *matcher {
	m := matchers.Get().(*matcher)
	m.text, m.classified = text, false
	return m
}

func (m *matcher) free() {
	m.text = ""
	m.places = m.places[:0]
	matchers.Put(m)
}

// classify finds the symbols of the text, unless that is done.
func (m *matcher) classify() {
	if m.classified {
		return
	}
	m.classified = true
	m.unreserved, m.reserved = m.unreserved[:0], m.reserved[:0]
	for i := range len(m.text) {
		c := m.text[i]
		u, r := uint8(0), uint8(0)
		switch {
		case isUnreserved(c):
			u, r = 1, 1
		case isTriplet(m.text, i):
			if r = 3; !isUnreserved(byteOf(m.text[i+1:])) { // else it would not be encoded
				u = 3
			}
		case strings.IndexByte(":/?#[]@!$&'()*+,;=", c) >= 0:
			r = 1
		}
		m.unreserved, m.reserved = append(m.unreserved, u), append(m.reserved, r)
	}
}

// has reports whether a byte stands at a place.
func (m *matcher) has(p int, c byte) bool { return p < len(m.text) && m.text[p] == c }

// many marks in to where any number of symbols and separators may end.
func (m *matcher) many(symbols []uint8, separator byte, from, to set) {
	for p, is := range from {
		if is {
			to[p] = true
		}
	}
	m.some(symbols, separator, from, to)
}

// some marks in to where one or more symbols and separators may end. It also marks them in from.
func (m *matcher) some(symbols []uint8, separator byte, from, to set) {
	for p := range m.text {
		if !from[p] {
			continue
		}
		size := int(symbols[p])
		if size == 0 && m.text[p] == separator {
			size = 1
		}
		if size > 0 {
			from[p+size], to[p+size] = true, true
		}
	}
}

// short marks in to where at most so many characters may end.
func (m *matcher) short(most int, symbols []uint8, from, to set) {
	for p, is := range from {
		if is {
			to[p] = true
		}
	}
	m.someShort(most, symbols, from, to)
}

// someShort marks in to where one to so many characters may end. A character that is not ASCII is encoded as several
// triplets.
func (m *matcher) someShort(most int, symbols []uint8, from, to set) {
	counts := append(m.counts[:0], make([]int, len(m.text)+1)...) // at each place: of characters, and 1; 0 if none end
	m.counts = counts
	for p := range len(m.text) {
		if from[p] {
			counts[p] = 1
		}
		size := int(symbols[p])
		if counts[p] == 0 || size == 0 {
			continue
		}
		count := counts[p]
		if count == 1 || !m.goesOn(p) {
			count++
		}
		end := p + size
		if count > most+1 || counts[end] > 0 && counts[end] <= count {
			continue
		}
		counts[end] = count
		if !m.goesOn(end) {
			to[end] = true
		}
	}
}

// goesOn reports whether a triplet stands at a place that is not the first of its character.
func (m *matcher) goesOn(p int) bool {
	return isTriplet(m.text, p) && byteOf(m.text[p+1:])&0xc0 == 0x80
}

func isTriplet(text string, i int) bool {
	return i+2 < len(text) && text[i] == '%' && isHex(text[i+1]) && isHex(text[i+2])
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

// byteOf returns the byte that two hexadecimal digits stand for.
func byteOf(digits string) byte { return nibble(digits[0])<<4 | nibble(digits[1]) }

func nibble(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&0x0f + 9
}

func isAlphanumeric(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' }

func isUnreserved(c byte) bool { return isAlphanumeric(c) || strings.IndexByte("-._~", c) >= 0 }
