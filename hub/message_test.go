package hub

import (
	"math"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/topic"
)

func TestTopicsAreShortTextWithoutControlCharacters(t *testing.T) {
	for _, name := range []string{
		"a", "news", "room/7", "/", "//", "a/", "raum/größe", "日本/語", "a b", "a?b=c&d", "{x}", "-", `"`,
		"a*", "*a", "a**b/c", "a/b*c", // a star that is not a whole segment is a letter like any other
		strings.Repeat("x", 256),
		strings.Repeat("é", 128),
	} {
		if err := topic.Check(name); err != nil {
			t.Errorf("topic %q was refused: %v", name, err)
		}
		if err := topic.CheckPattern(name); err != nil {
			t.Errorf("topic %q can't be subscribed to: %v", name, err)
		}
	}
	for name, why := range map[string]string{
		"":                       "empty",
		strings.Repeat("x", 257): "257",
		strings.Repeat("é", 129): "258",
		"a\xffb":                 "UTF-8",
		"\xc3":                   "UTF-8",
		"a\nb":                   "control",
		"a\x00":                  "control",
		"a\tb":                   "control",
		"a\x7fb":                 "control",
		"a\u0085b":               "control",
	} {
		for _, check := range []func(string) error{topic.Check, topic.CheckPattern} {
			if err := check(name); err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("topic %q: got error %v; want one that says %q", name, err, why)
			}
		}
	}
}

func TestMessagesGoToTopicsAndNeverToPatterns(t *testing.T) {
	for _, pattern := range []string{"*", "**", "a/*", "*/b", "a/*/c", "a/**", "/*", "*/"} {
		if err := topic.Check(pattern); err == nil || !strings.Contains(err.Error(), "pattern") {
			t.Errorf("publishing to %q: got error %v; want one that calls it a pattern", pattern, err)
		}
		if err := topic.CheckPattern(pattern); err != nil {
			t.Errorf("subscribing to %q was refused: %v", pattern, err)
		}
	}
}

func TestDoubleStarStandsOnlyAtTheEndOfAPattern(t *testing.T) {
	for _, pattern := range []string{"**/a", "a/**/b", "**/**", "a/**/*", "a/**/**", "**/", "/**/", "**/*/**"} {
		if err := topic.CheckPattern(pattern); err == nil || !strings.Contains(err.Error(), "**") {
			t.Errorf("pattern %q: got error %v; want one about **", pattern, err)
		}
	}
}

func TestStarIsOneSegmentAndDoubleStarOneOrMore(t *testing.T) {
	for _, test := range []struct {
		pattern  string
		matching string
		others   string
	}{
		{"a", "a", "b aa a/b"},
		{"*", "a ä", "a/b / a/"},
		{"**", "a a/b a/b/c / a/", ""},
		{"room/*", "room/7 room/x room/", "room room/7/x rooms/7 Room/7 xroom/7"},
		{"room/**", "room/7 room/7/x room/7/x/y room/", "room rooms/7 rooms"},
		{"*/b", "a/b x/b /b", "b a/c a/b/c a/x/b"},
		{"a/*/c", "a/b/c a/x/c a//c", "a/c a/b/b/c a/b a/b/c/d"},
		{"*/*", "a/b /", "a a/b/c"},
		{"a/*/**", "a/b/c a/b/c/d", "a/b a"},
		{"/*", "/a /", "a a/b /a/b"},
		{"a*", "a*", "ab a"}, // no wildcard: not a whole segment
		{"a/b*c", "a/b*c", "a/bxc"},
	} {
		for name := range strings.FieldsSeq(test.matching) {
			if !topic.Match(test.pattern, name) {
				t.Errorf("pattern %q does not match %q", test.pattern, name)
			}
		}
		for name := range strings.FieldsSeq(test.others) {
			if topic.Match(test.pattern, name) {
				t.Errorf("pattern %q matches %q", test.pattern, name)
			}
		}
	}
}

func TestClientIDsAreOneTo128UnreservedCharacters(t *testing.T) {
	for _, id := range []string{"a", "-._~", "AZaz09", "018f-4e2b", strings.Repeat("x", 128)} {
		if err := CheckClientID(id); err != nil {
			t.Errorf("client_id %q was refused: %v", id, err)
		}
	}
	for _, id := range []string{"", strings.Repeat("x", 129), "a b", "a/b", "a*", "é", "a\n", "a\x00", "a@b", "a%20", "\xff"} {
		if err := CheckClientID(id); err == nil || !strings.Contains(err.Error(), "A-Za-z0-9._~-") {
			t.Errorf("client_id %q: got error %v; want one that says what is allowed", id, err)
		}
	}
}

func TestIDsReadBackAsTheyWereWritten(t *testing.T) {
	for want, id := range map[string]ID{
		"e-0":                {"e", Position{}},
		"e-7":                {"e", Position{7, 0}},
		"e-0-1":              {"e", Position{0, 1}},
		"0f3a-1700000000-42": {"0f3a", Position{1700000000, 42}},
		"e-18446744073709551615-18446744073709551615": {"e", Position{math.MaxUint64, math.MaxUint64}},
	} {
		if got := id.String(); got != want {
			t.Errorf("%#v is written %q; want %q", id, got, want)
		}
		if got, ok := ParseID(want); !ok || got != id {
			t.Errorf("%q is read as %#v, %v; want %#v", want, got, ok, id)
		}
	}
}

func TestWhatIsNotAnIDIsToldFromOne(t *testing.T) {
	for _, s := range []string{
		"", "-", "e", "e-", "-7", "7", "e-x", "e-7-", "e-7-x", "e-7-1-2", "e--7", "e-+7", "e- 7", "e-7 ", "e-07", "e-7-0",
		"e-7-01", "e-0x7", "e-1_000", "e-18446744073709551616", "e-7\n", "e-٧", "$", "0", "*", "null",
	} {
		if id, ok := ParseID(s); ok {
			t.Errorf("%q was taken for the ID %#v", s, id)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"", "e-7", "e-7-1", "0f3a-1700000000-42", "--", "e-007", "\x00-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := ParseID(s); ok && id.String() != s {
			t.Errorf("%q was read as an ID that is written %q", s, id)
		}
	})
}

func TestPositionsAreOrderedByMajorThenMinor(t *testing.T) {
	inOrder := []Position{{}, {0, 1}, {0, 2}, {1, 0}, {1, 1}, {2, 0}, {math.MaxUint64, 0}}
	for i, p := range inOrder {
		for j, q := range inOrder {
			if p.After(q) != (i > j) {
				t.Errorf("%v stands after %v: %v", p, q, p.After(q))
			}
		}
	}
}

func TestAMessageIsCheckedBeforeItIsPublished(t *testing.T) {
	good := func() *Message { return &Message{To: Topics("news"), Event: "update", Data: []byte("hi"), Retry: 5} }
	for name, change := range map[string]func(*Message){
		"as it is":            func(*Message) {},
		"no event name":       func(m *Message) { m.Event = "" },
		"empty data":          func(m *Message) { m.Data = nil },
		"data of many lines":  func(m *Message) { m.Data = []byte("a\nb\r\nc\rd\x00") },
		"two topics":          func(m *Message) { m.To = Topics("a", "b") },
		"a client":            func(m *Message) { m.To = []Address{{ToClient, "c-1"}} },
		"a user":              func(m *Message) { m.To = []Address{{ToUser, "alice@example.com"}} },
		"everybody":           func(m *Message) { m.To = []Address{{Kind: ToBroadcast}} },
		"retry of nothing":    func(m *Message) { m.Retry, m.HasRetry = 0, true },
		"a name with a colon": func(m *Message) { m.Event = "a: b" },
	} {
		m := good()
		change(m)
		if err := m.Check(); err != nil {
			t.Errorf("%s was refused: %v", name, err)
		}
	}
	for name, test := range map[string]struct {
		change func(*Message)
		why    string
	}{
		"no target":           {func(m *Message) { m.To = nil }, "target"},
		"a bad topic":         {func(m *Message) { m.To = Topics("a", "b/*") }, "pattern"},
		"a bad client_id":     {func(m *Message) { m.To = []Address{{ToClient, "a b"}} }, "client_id"},
		"no user":             {func(m *Message) { m.To = []Address{{ToUser, ""}} }, "user"},
		"a user of two lines": {func(m *Message) { m.To = []Address{{ToUser, "a\nb"}} }, "user"},
		"a user of bad UTF-8": {func(m *Message) { m.To = []Address{{ToUser, "\xff"}} }, "user"},
		"a broken name":       {func(m *Message) { m.Event = "a\nb" }, "event"},
		"a name with CR":      {func(m *Message) { m.Event = "a\rdata: x" }, "event"},
		"a name with NUL":     {func(m *Message) { m.Event = "a\x00" }, "event"},
		"a name of bad UTF-8": {func(m *Message) { m.Event = "\xff" }, "event"},
		"a long name":         {func(m *Message) { m.Event = strings.Repeat("x", 257) }, "event"},
		"connected":           {func(m *Message) { m.Event = "connected" }, "reserved"},
		"gap":                 {func(m *Message) { m.Event = "gap" }, "reserved"},
		"expired":             {func(m *Message) { m.Event = "expired" }, "reserved"},
		"closed":              {func(m *Message) { m.Event = "closed" }, "reserved"},
		"a negative retry":    {func(m *Message) { m.Retry, m.HasRetry = -1, true }, "retry"},
		"binary data":         {func(m *Message) { m.Data = []byte("a\xff") }, "UTF-8"},
	} {
		m := good()
		test.change(m)
		if err := m.Check(); err == nil || !strings.Contains(err.Error(), test.why) {
			t.Errorf("%s: got error %v; want one that says %q", name, err, test.why)
		}
	}
}

func TestAMessageIsOneBlockForEveryClient(t *testing.T) {
	for want, m := range map[string]*Message{
		"id: e-7\nevent: update\ndata: a\ndata: b\n\n": {Event: "update", Data: []byte("a\nb"), Position: Position{7, 0}},
		"id: e-7-2\ndata: a\n\n":                       {Data: []byte("a"), Position: Position{7, 2}},
		"retry: 5000\nid: e-7\ndata: \n\n":             {Retry: 5000, HasRetry: true, Position: Position{7, 0}},
		"event: tick\ndata: 1\n\n":                     {Event: "tick", Data: []byte("1"), Ephemeral: true, Position: Position{7, 0}},
	} {
		m.encode("e")
		if got := string(m.frame); got != want {
			t.Errorf("the message is written %q; want %q", got, want)
		}
		if m.Data != nil || m.size() != len(want) {
			t.Errorf("a message of %d bytes counts for %d and keeps its payload beside: %q", len(want), m.size(), m.Data)
		}
	}
}
