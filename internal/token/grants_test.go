package token

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/topic"
)

func TestPublishGrantsCoverWhatTheyName(t *testing.T) {
	for grant, addresses := range map[string]string{ // those it covers stand before the bar
		"orders/42":       "topic:orders/42 | topic:orders topic:orders/421 topic:Orders/42 client:orders/42 user:orders/42 broadcast:",
		"orders/*":        "topic:orders/42 topic:orders/ | topic:orders topic:orders/4/2 user:orders/42",
		"**":              "topic:a topic:a/b | topic:@broadcast topic:@user/a topic:@a/b client:x user:alice broadcast:",
		"*":               "topic:a | topic:a/b topic:@a client:a user:a broadcast:",
		"@client/dev-1":   "client:dev-1 | client:dev-2 client:dev-1x topic:dev-1 topic:@client/dev-1 user:dev-1 broadcast:",
		"@client/*":       "client:dev-1 client:x | topic:x topic:@client/x user:x broadcast:",
		"@user/alice":     "user:alice | user:bob user:alice2 user:Alice topic:alice topic:@user/alice client:alice broadcast:",
		"@user/org/alice": "user:org/alice | user:org user:alice",
		"@user/*":         "user:alice user:org/alice user:* | topic:alice topic:@user/alice client:alice broadcast:",
		"@broadcast":      "broadcast: | topic:@broadcast topic:broadcast client:a user:a",
	} {
		g := Grants{Publish: []string{grant}}
		if err := g.Check(); err != nil {
			t.Errorf("the grant %q is refused: %v", grant, err)
		}
		if g := (Grants{Subscribe: []string{grant}}); g.MayPublish(hub.Address{Kind: hub.ToTopic, Name: "orders/42"}) {
			t.Errorf("the subscribe grant %q lets publish", grant)
		}
		covered, others, _ := strings.Cut(addresses, "|")
		for want, list := range map[bool]string{true: covered, false: others} {
			for word := range strings.FieldsSeq(list) {
				kind, name, _ := strings.Cut(word, ":")
				to := hub.Address{Kind: map[string]hub.Kind{"topic": hub.ToTopic, "client": hub.ToClient, "user": hub.ToUser, "broadcast": hub.ToBroadcast}[kind], Name: name}
				if g.MayPublish(to) != want {
					t.Errorf("grant %q and %s: %t, want %t", grant, word, !want, want)
				}
			}
		}
	}
	if (Grants{}).MayPublish(hub.Address{Kind: hub.ToTopic, Name: "a"}) || (Grants{}).MayPublish(hub.Address{Kind: hub.ToBroadcast}) {
		t.Error("no claim grants something")
	}
}

// TestAGrantCoversAPatternOnlyIfItCoversAllOfIt holds every pair of small patterns against all small
// topics.
func TestAGrantCoversAPatternOnlyIfItCoversAllOfIt(t *testing.T) {
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
	for _, grant := range patterns {
		for _, asked := range patterns {
			within := true
			for i, matched := range extents[asked] {
				within = within && (!matched || extents[grant][i])
			}
			if topic.Match(grant, asked) != within {
				t.Errorf("grant %q, asked %q: %t, want %t", grant, asked, !within, within)
			}
		}
	}
}

// naiveMatch reads patterns as the contract words them.
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

// FuzzCoverage tries any patterns. One covers another if and only if it covers the other's topics that
// have foreign segments in the place of wildcards.
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
	f.Fuzz(func(t *testing.T, grant, asked string) {
		if topic.CheckPattern(grant) != nil || topic.CheckPattern(asked) != nil {
			t.Skip()
		}
		const foreign = "foreign segment"
		if strings.Contains(grant+asked, foreign) {
			t.Skip()
		}
		within := true
		for n := 1; n <= strings.Count(grant, "/")+2; n++ { // for **
			segments := strings.Split(asked, "/")
			for i, segment := range segments {
				switch segment {
				case "*":
					segments[i] = foreign
				case "**":
					segments[i] = strings.TrimSuffix(strings.Repeat(foreign+"/", n), "/")
				}
			}
			within = within && naiveMatch(grant, strings.Join(segments, "/"))
		}
		if topic.Match(grant, asked) != within {
			t.Errorf("grant %q, asked %q: %t, want %t", grant, asked, !within, within)
		}
		if !topic.Match(grant, grant) || !topic.Match("**", asked) {
			t.Errorf("%q does not cover itself, or ** not %q", grant, asked)
		}
	})
}
