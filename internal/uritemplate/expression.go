package uritemplate

import (
	"strconv"
	"strings"
)

// expression is what stands between braces.
type expression struct {
	*operator
	variables []variable
	key       string // equal for expressions that match the same texts, as far as that is easily seen
}

// operator is what the first character of an expression means (RFC 6570, appendix A).
type operator struct {
	first     byte // what an expansion begins with; 0 for nothing
	separator byte // what stands between values
	named     bool // whether the name of a variable stands before its value
	bare      bool // whether a name without a value has no "="
	reserved  bool // whether reserved characters stay as they are
}

var operators = map[byte]*operator{
	0:   {separator: ','},
	'+': {separator: ',', reserved: true},
	'#': {first: '#', separator: ',', reserved: true},
	'.': {first: '.', separator: '.'},
	'/': {first: '/', separator: '/'},
	';': {first: ';', separator: ';', named: true, bare: true},
	'?': {first: '?', separator: '&', named: true},
	'&': {first: '&', separator: '&', named: true},
}

// variable is one variable of an expression, with its modifier.
type variable struct {
	name    string
	explode bool
	most    int // of its characters; 0 for all
}

// parseExpression reads what stands between braces.
func parseExpression(text string) (*expression, error) {
	sign := byte(0)
	if text != "" && strings.IndexByte("+#./;?&", text[0]) >= 0 {
		sign, text = text[0], text[1:]
	}
	e := &expression{operator: operators[sign]}
	key := []byte{sign}
	for spec := range strings.SplitSeq(text, ",") {
		v, err := parseVariable(spec)
		if err != nil {
			return nil, err
		}
		e.variables = append(e.variables, v)
		if e.named && !v.explode {
			key = append(key, v.name...)
		}
		if v.explode {
			key = append(key, '*')
		}
		if v.most > 0 {
			key = strconv.AppendInt(append(key, ':'), int64(v.most), 10)
		}
		key = append(key, ',')
	}
	e.key = string(key)
	return e, nil
}

func parseVariable(spec string) (v variable, err error) {
	name, most, cut := strings.Cut(spec, ":")
	if cut {
		v.most, err = strconv.Atoi(most)
		if err != nil || v.most < 1 || v.most > 9999 || most[0] < '1' || most[0] > '9' {
			return v, errSyntax
		}
	} else {
		name, v.explode = strings.CutSuffix(name, "*")
	}
	v.name = name
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case isAlphanumeric(c), c == '_':
		case c == '.' && i > 0 && name[i-1] != '.' && i < len(name)-1:
		case isTriplet(name, i):
			i += 2
		default:
			return v, errSyntax
		}
	}
	if name == "" {
		return v, errSyntax
	}
	return v, nil
}

// ends appends to out, in order, the places where an expansion of the expression may end that begins at one of some
// places. Both lists may be the same memory.
func (e *expression) ends(m *matcher, starts, out []int) []int {
	m.classify()
	told := m.told.cleared(len(m.text)) // where an expansion ends that has a value
	for i := range e.variables {
		from := m.from.cleared(len(m.text))
		for _, p := range starts {
			if e.first == 0 {
				from[p] = true
			} else if m.has(p, e.first) {
				from[p+1] = true
			}
		}
		for p, is := range told {
			if is && m.has(p, e.separator) {
				from[p+1] = true
			}
		}
		v := &e.variables[i]
		switch {
		case e.named && v.explode:
			e.pairs(m, from, told)
		case e.named:
			e.pair(m, v, from, told)
		case v.most > 0:
			m.short(v.most, e.symbols(m), from, told)
		case v.explode:
			if !e.reserved { // else they are values, too
				e.pairs(m, from, told)
			}
			m.many(e.symbols(m), e.separator, from, told)
		default:
			m.many(e.symbols(m), ',', from, told)
		}
	}
	for _, p := range starts {
		told[p] = true // no variable has a value
	}
	for p, is := range told {
		if is {
			out = append(out, p)
		}
	}
	return out
}

// symbols returns how long the symbol is at each place that may stand in a value.
func (e *expression) symbols(m *matcher) []uint8 {
	if e.reserved {
		return m.reserved
	}
	return m.unreserved
}

// pair marks in to where a name with a value may end.
func (e *expression) pair(m *matcher, v *variable, from, to set) {
	values := m.other.cleared(len(m.text))
	for p, is := range from {
		if !is || !strings.HasPrefix(m.text[p:], v.name) {
			continue
		}
		end := p + len(v.name)
		if e.bare {
			to[end] = true
		}
		if !m.has(end, '=') {
			continue
		}
		if end++; !e.bare {
			to[end] = true
		}
		if end < len(m.text) && (m.unreserved[end] > 0 || m.text[end] == ',') {
			values[end] = true
		}
	}
	if v.most > 0 {
		m.someShort(v.most, m.unreserved, values, to)
	} else {
		m.some(m.unreserved, ',', values, to)
	}
}

// pairs marks in to where a list of keys with values may end.
func (e *expression) pairs(m *matcher, from, to set) {
	keys, values := m.keys.cleared(len(m.text)), m.other.cleared(len(m.text))
	copy(keys, from)
	accept := func(p int) {
		to[p] = true
		if m.has(p, e.separator) {
			keys[p+1] = true
		}
	}
	for p := range keys { // what is marked further on is looked at in its turn
		if keys[p] {
			if e.bare {
				accept(p)
			}
			if m.has(p, '=') {
				if !e.bare {
					accept(p + 1)
				}
				values[p+1] = true
			}
			if p < len(m.text) && m.reserved[p] > 0 && (m.unreserved[p] > 0 || m.text[p] == '%') {
				keys[p+int(m.reserved[p])] = true
			}
		}
		if values[p] && p < len(m.text) && m.unreserved[p] > 0 {
			end := p + int(m.unreserved[p])
			values[end] = true
			accept(end)
		}
	}
}
