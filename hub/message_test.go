package hub

import (
	"math"
	"strings"
	"testing"
)

func TestIDsAreReadAsTheyWereWritten(t *testing.T) {
	for s, id := range map[string]ID{
		"e-7":                      {"e", Position{7, 0}},
		"0f3a-0":                   {"0f3a", Position{}},
		"e-1700000000000-3":        {"e", Position{1700000000000, 3}},
		"e-18446744073709551615-1": {"e", Position{math.MaxUint64, 1}},
	} {
		if got, ok := ParseID(s); !ok || got != id || id.String() != s {
			t.Errorf("%q was read as %#v, %v; want %#v, written %q", s, got, ok, id, id)
		}
	}
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
			if p.After(q) != (i > j) || (p.Compare(q) > 0) != (i > j) {
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

// The room that is left for the ID may be too small, or too large: the log may come further meanwhile.
func TestAMessageIsOneBlockForEveryClient(t *testing.T) {
	for want, m := range map[string]*Message{
		"id: e-7\nevent: update\ndata: a\ndata: b\n\n": {Event: "update", Data: []byte("a\nb"), Position: Position{7, 0}},
		"id: e-7-2\ndata: a\n\n":                       {Data: []byte("a"), Position: Position{7, 2}},
		"id: e-7\nretry: 5000\ndata: \n\n":             {Retry: 5000, HasRetry: true, Position: Position{7, 0}},
		"event: tick\ndata: 1\n\n":                     {Event: "tick", Data: []byte("1"), Ephemeral: true},
	} {
		for _, room := range []int{0, 3, 5, 40} {
			epoch := "e"
			if m.Ephemeral {
				epoch = ""
			}
			f := m.encode(room)
			frame := f.frame
			frame.chunk, frame.head = f.seal(epoch, m.Position)
			if got := frame.Block(); got != want || frame.size() != len(want) {
				t.Errorf("with room for %d the message is written %q, counted %d; want %q", room, got, frame.size(), want)
			}
			if got, want := frame.Chunk(), chunkOf(want); got != want {
				t.Errorf("with room for %d its chunk is %q; want %q", room, got, want)
			}
		}
	}
}

// chunkOf writes a chunk of HTTP/1.1 in the plain way.
func chunkOf(block string) string {
	const digits = "0123456789abcdef"
	head := ""
	for n := len(block); n > 0; n /= 16 {
		head = digits[n%16:n%16+1] + head
	}
	return head + "\r\n" + block + "\r\n"
}
