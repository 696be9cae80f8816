// Package topic says what a topic and a pattern are, and which topics a pattern covers.
//
// A topic is 1 to 256 bytes of UTF-8 without control characters, whose segments are separated by "/".
// A pattern is a topic in which "*" stands for one whole segment and a final "**" for one or more.
// Messages go to topics; clients may subscribe to both.
package topic

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxBytes bounds a topic or pattern.
const MaxBytes = 256

// Check says what is wrong with a topic that messages are to be published to.
func Check(topic string) error {
	if err := checkText(topic); err != nil {
		return err
	}
	if strings.Contains(topic, "*") && IsPattern(topic) {
		return fmt.Errorf("%q is a pattern; messages go to topics, patterns are for subscribing", topic)
	}
	return nil
}

// CheckPattern says what is wrong with a topic or pattern that a client wants to subscribe to.
func CheckPattern(pattern string) error {
	if err := checkText(pattern); err != nil {
		return err
	}
	if i := strings.Index("/"+pattern+"/", "/**/"); i >= 0 && i+len("**") < len(pattern) {
		return fmt.Errorf("pattern %q has ** before its end; ** stands only as the last segment", pattern)
	}
	return nil
}

func checkText(topic string) error {
	switch {
	case topic == "":
		return errors.New("a topic is empty; give it 1 to 256 bytes")
	case len(topic) > MaxBytes:
		return fmt.Errorf("a topic has %d bytes; the limit is %d", len(topic), MaxBytes)
	case !utf8.ValidString(topic):
		return errors.New("a topic is not valid UTF-8")
	case strings.ContainsFunc(topic, unicode.IsControl):
		return fmt.Errorf("topic %q has control characters; leave them out", topic)
	}
	return nil
}

// IsPattern reports whether a segment of topic is a wildcard: "*" or "**".
func IsPattern(topic string) bool {
	for segment := range strings.SplitSeq(topic, "/") {
		if segment == "*" || segment == "**" {
			return true
		}
	}
	return false
}

// Match reports whether a topic lies within a pattern: "*" stands for one whole segment, a final
// "**" for one or more. A pattern without wildcards matches itself alone. Where the topic is itself a
// pattern, all that it matches must lie within.
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

// Covered reports whether one of the patterns, or topics, takes in the topic.
func Covered(patterns []string, topic string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return Match(pattern, topic) })
}

// Distinct sorts names and drops what is there twice.
func Distinct(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
