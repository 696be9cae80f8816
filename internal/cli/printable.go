package cli

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What comes from outside must not steer the terminal that it is shown on: it would move the cursor, name the
// window, type for the user or turn text around. Such characters are replaced, and so is what is no UTF-8.

// printable makes text of several lines fit for a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if steers(r) && r != '\n' && r != '\t' {
			return utf8.RuneError
		}
		return r
	}, text)
}

// printableLine makes text fit for one line of a terminal: nobody outside can begin a line that looks like ours.
func printableLine(text string) string {
	return strings.Map(func(r rune) rune {
		if steers(r) {
			return utf8.RuneError
		}
		return r
	}, text)
}

// escaped makes JSON fit for a terminal without changing what it says: such characters stand in strings only.
func escaped(json string) string {
	var text strings.Builder
	for _, r := range strings.TrimSuffix(json, "\n") {
		if steers(r) {
			fmt.Fprintf(&text, `\u%04x`, r) // none is beyond the first plane
		} else {
			text.WriteRune(r)
		}
	}
	text.WriteByte('\n')
	return text.String()
}

// steers reports whether a terminal may obey a character instead of showing it: controls, C1 among them, marks
// of direction, and separators of lines.
func steers(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}
