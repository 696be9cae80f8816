package uritemplate

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// expand expands a template as RFC 6570 says in section 3.2.1. It shares nothing with the matcher, not even the parser.
// A value is a string, a list ([]string) or pairs ([][2]string); a variable without one is undefined.
func expand(template string, values map[string]any) string {
	var b strings.Builder
	for {
		literal, rest, found := strings.Cut(template, "{")
		b.WriteString(escape(literal, true))
		if !found {
			return b.String()
		}
		inner, behind, _ := strings.Cut(rest, "}")
		b.WriteString(expandExpression(inner, values))
		template = behind
	}
}

func expandExpression(text string, values map[string]any) string {
	first, separator, named, ifEmpty, reserved := "", ",", false, "", false
	switch text[0] {
	case '+':
		reserved = true
	case '#':
		first, reserved = "#", true
	case '.', '/':
		first, separator = text[:1], text[:1]
	case ';':
		first, separator, named = ";", ";", true
	case '?':
		first, separator, named, ifEmpty = "?", "&", true, "="
	case '&':
		first, separator, named, ifEmpty = "&", "&", true, "="
	}
	text = strings.TrimLeft(text, "+#./;?&")
	pair := func(name, value string) string {
		if value == "" {
			return name + ifEmpty
		}
		return name + "=" + value
	}
	var defined []string
	for spec := range strings.SplitSeq(text, ",") {
		name, exploded := strings.CutSuffix(spec, "*")
		name, length, cut := strings.Cut(name, ":")
		var items []string
		switch value := values[name].(type) {
		case string:
			if cut {
				var most int
				_, _ = fmt.Sscan(length, &most)
				runes := []rune(value)
				value = string(runes[:min(most, len(runes))])
			}
			if value = escape(value, reserved); named {
				value = pair(name, value)
			}
			defined = append(defined, value)
			continue
		case []string:
			for _, item := range value {
				if item = escape(item, reserved); named && exploded {
					item = pair(name, item)
				}
				items = append(items, item)
			}
		case [][2]string:
			for _, both := range value {
				k, v := escape(both[0], reserved), escape(both[1], reserved)
				switch {
				case exploded && named:
					items = append(items, pair(k, v))
				case exploded:
					items = append(items, k+"="+v)
				default:
					items = append(items, k, v)
				}
			}
		}
		switch {
		case len(items) == 0: // undefined
		case exploded:
			defined = append(defined, strings.Join(items, separator))
		case named:
			defined = append(defined, pair(name, strings.Join(items, ",")))
		default:
			defined = append(defined, strings.Join(items, ","))
		}
	}
	if len(defined) == 0 {
		return ""
	}
	return first + strings.Join(defined, separator)
}

// escape encodes what may not stand in an expansion as it is.
func escape(text string, reserved bool) string {
	const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	var b strings.Builder
	for i, r := range text {
		switch {
		case strings.ContainsRune(unreserved, r), reserved && strings.ContainsRune(":/?#[]@!$&'()*+,;=", r):
			b.WriteRune(r)
		case reserved && r == '%' && len(text) > i+2 && strings.Trim(text[i+1:i+3], "0123456789abcdefABCDEF") == "":
			b.WriteRune(r)
		default:
			for _, c := range utf8.AppendRune(nil, r) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		}
	}
	return b.String()
}
