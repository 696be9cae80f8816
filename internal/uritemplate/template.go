// Package uritemplate matches texts with URI templates (RFC 6570): a text matches a template if some assignment of
// variables expands the template to the text.
//
// A [Tree] finds the templates that a text matches, among very many. Both look at each byte of a text once for each
// expression that the text comes to, whatever the template: there is nothing to backtrack.
//
// A variable that a template has twice may have two values.
package uritemplate

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxExpressions is how many expressions a template may have.
const MaxExpressions = 8

// ErrTooMany means that a template has more than MaxExpressions.
var ErrTooMany = fmt.Errorf("a template has more than %d expressions", MaxExpressions)

// errSyntax means that a text is no template.
var errSyntax = errors.New("not a URI template")

// Template is a template as it was parsed. It never changes.
type Template struct {
	text string
	// path is the template as it is written. If it has literals that are not ASCII, encoded is the same with those as
	// RFC 6570 writes them into an expansion. No text matches both.
	path, encoded []part
}

// part is a literal, or an expression.
type part struct {
	literal    string
	expression *expression
}

// Parse reads a template. The error is ErrTooMany, or another one if the text is no template.
func Parse(text string) (*Template, error) {
	t := &Template{text: text}
	expressions := 0
	for rest := text; rest != ""; {
		literal, _, _ := strings.Cut(rest, "{")
		if literal != "" {
			if err := checkLiteral(literal); err != nil {
				return nil, err
			}
			t.path = append(t.path, part{literal: literal})
			rest = rest[len(literal):]
			continue
		}
		inner, behind, closed := strings.Cut(rest[1:], "}")
		if !closed {
			return nil, errSyntax
		}
		e, err := parseExpression(inner)
		if err != nil {
			return nil, err
		}
		expressions++
		t.path = append(t.path, part{expression: e})
		rest = behind
	}
	if expressions > MaxExpressions {
		return nil, ErrTooMany
	}
	t.encoded = encode(t.path)
	return t, nil
}

// checkLiteral says whether a text may stand outside of expressions.
func checkLiteral(text string) error {
	for i, r := range text {
		switch {
		case r == utf8.RuneError, r <= ' ', r >= 0x7f && r < 0xa0, strings.ContainsRune("\"<>\\^`|}", r),
			r == '%' && !isTriplet(text, i):
			return errSyntax
		}
	}
	return nil
}

// encode returns a path with literals that are ASCII; nil if they are so already.
func encode(path []part) (encoded []part) {
	const hex = "0123456789ABCDEF"
	is := true
	for _, p := range path {
		var b strings.Builder
		for i := range len(p.literal) {
			if c := p.literal[i]; c < utf8.RuneSelf {
				b.WriteByte(c)
			} else {
				b.Write([]byte{'%', hex[c>>4], hex[c&15]})
				is = false
			}
		}
		encoded = append(encoded, part{b.String(), p.expression})
	}
	if is {
		return nil
	}
	return encoded
}

// String returns the template as it was written.
func (t *Template) String() string { return t.text }

// Expressions returns how many expressions the template has.
func (t *Template) Expressions() (n int) {
	for _, p := range t.path {
		if p.expression != nil {
			n++
		}
	}
	return n
}

// Prefix returns what each text begins with that the template matches, as far as that is known.
func (t *Template) Prefix() string {
	if len(t.path) == 0 || t.path[0].expression != nil {
		return ""
	}
	prefix := t.path[0].literal
	for i := range len(prefix) {
		if prefix[i] >= utf8.RuneSelf { // or it is encoded
			return prefix[:i]
		}
	}
	return prefix
}

// Match reports whether the template expands to a text.
func (t *Template) Match(text string) bool {
	m := newMatcher(text)
	defer m.free()
	return m.matches(t.path) || t.encoded != nil && m.matches(t.encoded)
}

// matches reports whether a path leads to the end of the text.
func (m *matcher) matches(path []part) bool {
	at := append(m.places[:0], 0)
	for _, p := range path {
		from := len(at)
		if p.expression != nil {
			at = p.expression.ends(m, at, at)
		} else {
			for _, place := range at[:from] {
				if strings.HasPrefix(m.text[place:], p.literal) {
					at = append(at, place+len(p.literal))
				}
			}
		}
		at = append(at[:0], at[from:]...)
		if len(at) == 0 {
			break
		}
	}
	m.places = at
	return len(at) > 0 && at[len(at)-1] == len(m.text)
}
