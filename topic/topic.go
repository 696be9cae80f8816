// Package topic says what a topic and a pattern are, and which topics a pattern covers.
//
// A topic is 1 to 256 bytes of UTF-8 without control characters. "/" separates its segments. A pattern
// is a topic in which "*" stands for one whole segment, and a final "**" for one or more. Messages go to
// topics; clients may subscribe to topics and to patterns.
package topic

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxBytes is the size limit of a topic and of a pattern.
const MaxBytes = 256

// Check returns an error if messages can't be published to the topic. The error says what is wrong.
func Check(topic string) error {
	if err := checkText(topic); err != nil {
		return err
	}
	if IsPattern(topic) {
		return fmt.Errorf("%q is a pattern; messages go to topics, patterns are for subscribing", topic)
	}
	return nil
}

// CheckPattern returns an error if clients can't subscribe to the topic or pattern. The error says what
// is wrong.
func CheckPattern(pattern string) error {
	if err := checkText(pattern); err != nil {
		return err
	}
	if i := strings.Index("/"+pattern+"/", "/**/"); i >= 0 && i+len("**") < len(pattern) {
		return fmt.Errorf("pattern %q has ** before its end; ** stands only as the last segment", pattern)
	}
	return nil
}

// checkText checks what topics and patterns have in common.
func checkText(text string) error {
	switch {
	case text == "":
		return errors.New("a topic is empty; give it 1 to 256 bytes")
	case len(text) > MaxBytes:
		return fmt.Errorf("a topic has %d bytes; the limit is %d", len(text), MaxBytes)
	case !utf8.ValidString(text):
		return errors.New("a topic is not valid UTF-8")
	case strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("topic %q has control characters; leave them out", text)
	}
	return nil
}

// IsPattern reports whether a segment is a wildcard: "*" or "**".
func IsPattern(topic string) bool {
	if !strings.Contains(topic, "*") {
		return false // almost every topic
	}
	for segment := range strings.SplitSeq(topic, "/") {
		if segment == "*" || segment == "**" {
			return true
		}
	}
	return false
}

// Match reports whether the pattern covers the topic. A pattern without wildcards covers itself alone.
// The topic may itself be a pattern: then Match reports whether the first covers all that the second
// covers. Both must be valid.
func Match(pattern, topic string) bool {
	for {
		p, restP, moreP := strings.Cut(pattern, "/")
		t, restT, moreT := strings.Cut(topic, "/")
		switch {
		case p == "**" && !moreP:
			return true
		case t == "**" && !moreT, p != "*" && p != t:
			return false
		case !moreP || !moreT:
			return moreP == moreT
		}
		pattern, topic = restP, restT
	}
}

// Covered reports whether one of the patterns, or topics, covers the topic.
func Covered(patterns []string, topic string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return Match(pattern, topic) })
}

// Overlap reports whether some topic is covered by both patterns. Both must be valid; either may be a topic.
func Overlap(a, b string) bool {
	for {
		p, restP, moreP := strings.Cut(a, "/")
		q, restQ, moreQ := strings.Cut(b, "/")
		switch {
		case p == "**" && !moreP, q == "**" && !moreQ:
			return true
		case p != "*" && q != "*" && p != q:
			return false
		case !moreP || !moreQ:
			return moreP == moreQ
		}
		a, b = restP, restQ
	}
}

// Distinct sorts names in place and returns them without repetitions.
func Distinct(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
