package topic_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/topic"
)

func TestTopicsAndPatternsAreChecked(t *testing.T) {
	const (
		ofTopics   = "is a pattern"
		ofPatterns = "** before its end"
	)
	for text, want := range map[string]struct{ topic, pattern string }{
		"news":                   {},
		"a/b/c":                  {},
		"☃/jürgen":               {},
		" ":                      {},
		"/":                      {}, // two empty segments
		"a//b":                   {},
		"a*":                     {}, // a wildcard is a whole segment
		"*a/**b/***":             {},
		strings.Repeat("a", 256): {},
		strings.Repeat("é", 128): {},

		"*":       {topic: ofTopics},
		"**":      {topic: ofTopics},
		"a/*":     {topic: ofTopics},
		"*/a":     {topic: ofTopics},
		"a/*/b/*": {topic: ofTopics},
		"a/**":    {topic: ofTopics},
		"*/**":    {topic: ofTopics},

		"**/a":    {topic: ofTopics, pattern: ofPatterns},
		"a/**/b":  {topic: ofTopics, pattern: ofPatterns},
		"**/**":   {topic: ofTopics, pattern: ofPatterns},
		"a/**/":   {topic: ofTopics, pattern: ofPatterns}, // the last segment is empty
		"**/a/**": {topic: ofTopics, pattern: ofPatterns},

		"":                       {"is empty", "is empty"},
		strings.Repeat("a", 257): {"has 257 bytes", "has 257 bytes"},
		strings.Repeat("é", 129): {"has 258 bytes", "has 258 bytes"},
		"a\xff":                  {"not valid UTF-8", "not valid UTF-8"},
		"a\n":                    {"control characters", "control characters"},
		"a\x00b":                 {"control characters", "control characters"},
		"a\u0085":                {"control characters", "control characters"},
		"**/a\r":                 {"control characters", "control characters"},
	} {
		wantError(t, "Check", text, topic.Check(text), want.topic)
		wantError(t, "CheckPattern", text, topic.CheckPattern(text), want.pattern)
	}
}

// wantError checks that an error has the words, or that there is none if there are no words.
func wantError(t *testing.T, function, text string, err error, words string) {
	t.Helper()
	switch {
	case err == nil && words != "":
		t.Errorf("%s(%.40q) accepts it; want an error with %q", function, text, words)
	case err != nil && (words == "" || !strings.Contains(err.Error(), words)):
		t.Errorf("%s(%.40q) = %v; want an error with %q", function, text, err, words)
	}
}

func TestPatternHasASegmentThatIsAWildcard(t *testing.T) {
	for text, want := range map[string]bool{
		"*": true, "**": true, "a/*": true, "*/a": true, "a/**": true, "a/*/b": true, "//*": true,
		"": false, "a": false, "a/b": false, "a*": false, "*a": false, "***": false, "a/b*/c": false, "/": false,
	} {
		if got := topic.IsPattern(text); got != want {
			t.Errorf("IsPattern(%q) = %t", text, got)
		}
	}
}

func TestPatternCoversTopics(t *testing.T) {
	for pattern, topics := range map[string]struct{ covered, others []string }{
		"a":     {covered: []string{"a"}, others: []string{"A", "b", "a/b", "aa", "", "a/"}},
		"a/b":   {covered: []string{"a/b"}, others: []string{"a", "b", "a/c", "a/b/c", "/a/b"}},
		"*":     {covered: []string{"a", "", "☃"}, others: []string{"a/b", "/"}},
		"a/*":   {covered: []string{"a/b", "a/"}, others: []string{"a", "b/b", "a/b/c", "a//"}},
		"*/b":   {covered: []string{"a/b", "/b"}, others: []string{"b", "a/c", "a/b/b"}},
		"a/*/c": {covered: []string{"a/b/c", "a//c"}, others: []string{"a/c", "a/b/b/c"}},
		"**":    {covered: []string{"a", "a/b", "a/b/c", "", "/"}},
		"a/**":  {covered: []string{"a/b", "a/b/c", "a/", "a//"}, others: []string{"a", "b/a", "ab/c"}},
		"*/**":  {covered: []string{"a/b", "a/b/c", "/"}, others: []string{"a"}},
		"a*":    {covered: []string{"a*"}, others: []string{"ab", "a"}},
		"***":   {covered: []string{"***"}, others: []string{"a"}},
	} {
		wantMatches(t, pattern, topics.covered, topics.others)
	}
}

func TestPatternCoversPatterns(t *testing.T) {
	for pattern, others := range map[string]struct{ covered, others []string }{
		"a":     {covered: []string{"a"}, others: []string{"*", "**", "a/*", "a/**"}},
		"*":     {covered: []string{"*", "a"}, others: []string{"**", "*/*", "a/*"}},
		"a/*":   {covered: []string{"a/*", "a/b"}, others: []string{"*/*", "a/**", "*/b", "a/*/*"}},
		"*/*":   {covered: []string{"*/*", "a/*", "*/b"}, others: []string{"*/**", "**", "*", "a/**"}},
		"**":    {covered: []string{"**", "*", "a/*", "*/**", "a/**"}},
		"a/**":  {covered: []string{"a/**", "a/*", "a/*/**", "a/b/**"}, others: []string{"**", "*/**", "*/b", "*"}},
		"*/**":  {covered: []string{"*/**", "*/*", "a/**", "a/b/**", "*/b/*"}, others: []string{"**", "*", "a"}},
		"*/b/*": {covered: []string{"a/b/*", "*/b/c"}, others: []string{"a/*/c", "*/b/**", "a/**"}},
	} {
		wantMatches(t, pattern, others.covered, others.others)
	}
}

func wantMatches(t *testing.T, pattern string, covered, others []string) {
	t.Helper()
	for want, names := range map[bool][]string{true: covered, false: others} {
		for _, name := range names {
			if got := topic.Match(pattern, name); got != want {
				t.Errorf("Match(%q, %q) = %t", pattern, name, got)
			}
		}
	}
}

func TestTopicIsCoveredIfOnePatternCoversIt(t *testing.T) {
	patterns := []string{"news", "orders/*", "logs/**"}
	for name, want := range map[string]bool{
		"news": true, "orders/42": true, "orders/*": true, "logs/a/b": true, "logs/**": true,
		"logs": false, "orders": false, "orders/**": false, "other": false, "**": false,
	} {
		if got := topic.Covered(patterns, name); got != want {
			t.Errorf("Covered(%q, %q) = %t", patterns, name, got)
		}
	}
	if topic.Covered(nil, "news") {
		t.Error("no pattern covers a topic")
	}
}

func TestDistinctSortsAndDropsRepetitions(t *testing.T) {
	for _, test := range []struct{ names, want []string }{
		{nil, nil},
		{[]string{"a"}, []string{"a"}},
		{[]string{"b", "a", "b", "a", "b"}, []string{"a", "b"}},
		{[]string{"a", "A", "", "a/b"}, []string{"", "A", "a", "a/b"}},
	} {
		names := slices.Clone(test.names)
		if got := topic.Distinct(names); !slices.Equal(got, test.want) {
			t.Errorf("Distinct(%q) = %q; want %q", test.names, got, test.want)
		}
	}
}

// TestMatchIsExactForSmallPatterns compares every pair of small patterns by all small topics they cover.
func TestMatchIsExactForSmallPatterns(t *testing.T) {
	var patterns, topics []string
	var grow func(segments []string, alphabet []string, most int, each func([]string))
	grow = func(segments, alphabet []string, most int, each func([]string)) {
		each(segments)
		if len(segments) < most {
			for _, segment := range alphabet {
				grow(append(slices.Clip(segments), segment), alphabet, most, each)
			}
		}
	}
	grow(nil, []string{"a", "b", "*"}, 3, func(segments []string) {
		if len(segments) > 0 {
			patterns = append(patterns, strings.Join(segments, "/"))
		}
		patterns = append(patterns, strings.Join(append(slices.Clip(segments), "**"), "/"))
	})
	grow(nil, []string{"a", "b", "c"}, 6, func(segments []string) {
		if len(segments) > 0 {
			topics = append(topics, strings.Join(segments, "/"))
		}
	})
	extents := make(map[string][]bool)
	for _, pattern := range patterns {
		for _, name := range topics {
			extents[pattern] = append(extents[pattern], naiveMatch(pattern, name))
			if topic.Match(pattern, name) != naiveMatch(pattern, name) {
				t.Errorf("pattern %q, topic %q: %t", pattern, name, topic.Match(pattern, name))
			}
		}
	}
	for _, outer := range patterns {
		for _, inner := range patterns {
			within := true
			for i, matched := range extents[inner] {
				within = within && (!matched || extents[outer][i])
			}
			if topic.Match(outer, inner) != within {
				t.Errorf("outer %q, inner %q: %t, want %t", outer, inner, !within, within)
			}
		}
	}
}

// naiveMatch reads patterns as the package comment words them.
func naiveMatch(pattern, topic string) bool {
	var expression []string
	for segment := range strings.SplitSeq(pattern, "/") {
		switch segment {
		case "*":
			expression = append(expression, `[^/]*`)
		case "**":
			expression = append(expression, `(?s:.*)`)
		default:
			expression = append(expression, regexp.QuoteMeta(segment))
		}
	}
	return regexp.MustCompile(`^` + strings.Join(expression, "/") + `$`).MatchString(topic)
}

// FuzzMatch tries any patterns on topics. What is a topic for one call may be a pattern for the next.
func FuzzMatch(f *testing.F) {
	for _, seed := range [][2]string{
		{"a/*", "a/b"},
		{"a/*", "a/b/c"},
		{"**", "a"},
		{"a/**", "a"},
		{"*/**", "/"},
		{"a*", "ab"},
		{"a//*", "a//"},
		{"☃/*", "☃/☃"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if topic.CheckPattern(pattern) != nil || topic.Check(name) != nil {
			t.Skip()
		}
		if got := topic.Match(pattern, name); got != naiveMatch(pattern, name) {
			t.Errorf("Match(%q, %q) = %t", pattern, name, got)
		}
		if topic.Covered([]string{pattern}, name) != topic.Match(pattern, name) {
			t.Errorf("Covered and Match disagree about %q and %q", pattern, name)
		}
		if !topic.IsPattern(pattern) && topic.Match(pattern, name) != (pattern == name) {
			t.Errorf("%q has no wildcard, and covers %q", pattern, name)
		}
	})
}

// FuzzCoverage tries any patterns on patterns. One covers another if and only if it covers the other's
// topics that have foreign segments in the place of wildcards.
func FuzzCoverage(f *testing.F) {
	for _, seed := range [][2]string{
		{"a/*", "a/**"},
		{"**", "*/**"},
		{"*/**", "**"},
		{"a/**", "a/b/*"},
		{"*", "*"},
		{"a/*/c", "a/b/c"},
		{"/", "*/*"},
		{"a//b", "a/*/b"},
		{"a*/**", "a*/*"},
		{"☃/*", "☃/☃"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, outer, inner string) {
		if topic.CheckPattern(outer) != nil || topic.CheckPattern(inner) != nil {
			t.Skip()
		}
		const foreign = "foreign segment"
		if strings.Contains(outer+inner, foreign) {
			t.Skip()
		}
		within := true
		for n := 1; n <= strings.Count(outer, "/")+2; n++ { // for **
			segments := strings.Split(inner, "/")
			for i, segment := range segments {
				switch segment {
				case "*":
					segments[i] = foreign
				case "**":
					segments[i] = strings.TrimSuffix(strings.Repeat(foreign+"/", n), "/")
				}
			}
			within = within && naiveMatch(outer, strings.Join(segments, "/"))
		}
		if topic.Match(outer, inner) != within {
			t.Errorf("outer %q, inner %q: %t, want %t", outer, inner, !within, within)
		}
		if !topic.Match(outer, outer) || !topic.Match("**", inner) {
			t.Errorf("%q does not cover itself, or ** not %q", outer, inner)
		}
	})
}

func TestPatternsOverlapThatCoverATopicInCommon(t *testing.T) {
	all := []string{"a", "b", "*", "**", "a/b", "a/*", "*/b", "*/*", "a/**", "*/**", "b/*", "a/b/c", "a/*/c", "*/b/**", "a/b/**"}
	var topics []string
	for _, first := range []string{"a", "b", "c"} {
		topics = append(topics, first)
		for _, second := range []string{"/a", "/b", "/c"} {
			topics = append(topics, first+second)
			for _, third := range []string{"/a", "/b", "/c"} {
				topics = append(topics, first+second+third)
			}
		}
	}
	for _, a := range all {
		for _, b := range all {
			want := false
			for _, name := range topics {
				want = want || topic.Match(a, name) && topic.Match(b, name)
			}
			if got := topic.Overlap(a, b); got != want {
				t.Errorf("Overlap(%q, %q) = %t", a, b, got)
			}
		}
	}
}
