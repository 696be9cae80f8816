package eventstream_test

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// FuzzEncode proves the framing: whatever an event holds, it comes back as one
// block with only its line ends normalised, also between other blocks.
func FuzzEncode(f *testing.F) {
	f.Add("1", "update", []byte("a\nb"), true, int64(2000), true, "heartbeat")
	f.Add("", "", []byte("\r\n\r\ndata: x\n\nid: 2"), true, int64(0), false, "\n\ndata: x\n\n")
	f.Add("a\nid: b", "\r\revent: c", []byte("ignored"), false, int64(-1), true, "\x00")
	f.Add(" ", ":", []byte("\uFEFF"), true, int64(0), true, "")
	f.Fuzz(func(t *testing.T, id, name string, text []byte, hasData bool, retry int64, hasRetry bool, comment string) {
		e := eventstream.Event{ID: id, Name: name, Data: text, HasData: hasData, Retry: retry, HasRetry: hasRetry, ClearsID: retry%2 == 0}
		spaced := strings.NewReplacer("\r", " ", "\n", " ", "\x00", " ")
		want := eventstream.Event{ID: spaced.Replace(id), Name: spaced.Replace(name)}
		if eventstream.ValidField(id) != (want.ID == id) || eventstream.ValidField(name) != (want.Name == name) {
			t.Error("ValidField and Append disagree")
		}
		if hasData {
			want.HasData, want.Data = true, []byte(normalised(text))
		}
		if hasRetry && retry >= 0 {
			want.HasRetry, want.Retry = true, retry
		}
		want.ClearsID = want.ID == "" && e.ClearsID
		var wants []eventstream.Event
		if want.ID != "" || want.ClearsID || want.Name != "" || want.HasData || want.HasRetry {
			wants = []eventstream.Event{want}
		}
		sentinel := data("sentinel")
		wants = append(wants, sentinel)

		stream := eventstream.AppendComment(e.Append(nil), comment)
		stream = sentinel.Append(stream)
		got, err := decodeAll(eventstream.NewDecoder(bytes.NewReader(stream), len(id)+len(name)+len(text)+ample))
		if !errors.Is(err, io.EOF) || !sameEvents(got, wants) {
			t.Errorf("%q decoded to %+v, %v; want %+v", stream, got, err, wants)
		}
	})
}

// FuzzDecode proves that chunking does not matter, that Buffered is right,
// that no event exceeds the limit, and that the outcome is what a naive reading
// of the standard gives.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "\uFEFFid: 1\nevent: a\ndata: b\ndata: c\n\n", "data\r\rdata\r\n\r\ndata\n\r", "id: \x00\nretry: 0\n\n:\n\n",
		"\uFEFF\uFEFF", "data: 1234567890123456789012345\n\n", "retry: 9223372036854775808\n\nretry: 00\r",
	} {
		f.Add([]byte(s), []byte{1, 2, 7}, false, uint16(1000))
		f.Add([]byte(s), []byte{3}, true, uint16(20))
	}
	f.Fuzz(func(t *testing.T, input, chunks []byte, keep bool, limit uint16) {
		decode := func(chunks []byte, maxBlock int) ([]eventstream.Event, int, error) {
			r := &chunked{rest: input, sizes: chunks}
			d := eventstream.NewDecoder(r, maxBlock)
			d.KeepIncomplete = keep
			ask := len(chunks)%2 == 1 // does asking change anything?
			var events []eventstream.Event
			for {
				promised := ask && d.Buffered()
				reads := r.reads
				e, err := d.Next()
				if promised && (err != nil || r.reads != reads) {
					t.Error("Buffered promised an event that was not there")
				}
				if err != nil {
					return events, d.Line(), err
				}
				if n := len(e.ID) + len(e.Name) + len(e.Data); n > maxBlock {
					t.Errorf("an event of %d bytes passed a limit of %d", n, maxBlock)
				}
				events = append(events, e)
			}
		}
		whole, line, err := decode(nil, int(limit))
		parts, partsLine, partsErr := decode(chunks, int(limit))
		if !sameEvents(whole, parts) || line != partsLine || !errors.Is(partsErr, err) {
			t.Errorf("whole: %+v, line %d, %v\nin parts: %+v, line %d, %v", whole, line, err, parts, partsLine, partsErr)
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, eventstream.ErrTooLarge) {
			t.Errorf("ended with %v", err)
		}
		unlimited, _, err := decode(chunks, len(input)*2)
		if want := naive(string(input), keep); !sameEvents(unlimited, want) || !errors.Is(err, io.EOF) {
			t.Errorf("%+v, %v\nwant %+v", unlimited, err, want)
		}
	})
}

var anyLineEnd = regexp.MustCompile("\r\n|\r|\n")

// naive decodes the way the standard words it, all in memory.
func naive(stream string, keep bool) []eventstream.Event {
	lines := anyLineEnd.Split(strings.TrimPrefix(stream, "\uFEFF"), -1)
	if keep {
		lines = append(lines, "") // the blank line that ends the last block
	} else {
		lines = lines[:len(lines)-1] // without its end
	}
	var events []eventstream.Event
	var e eventstream.Event
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if e.ID != "" || e.ClearsID || e.Name != "" || e.HasData || e.HasRetry {
				e.Data = bytes.TrimSuffix(e.Data, []byte("\n"))
				events = append(events, e)
			}
			e = eventstream.Event{}
		case name == "data":
			e.Data, e.HasData = append(e.Data, value+"\n"...), true
		case name == "id" && !strings.Contains(value, "\x00"):
			e.ID, e.ClearsID = value, value == ""
		case name == "event":
			e.Name = value
		case name == "retry" && !strings.ContainsFunc(value, func(c rune) bool { return c < '0' || c > '9' }):
			if n, err := strconv.ParseInt(value, 10, 64); err == nil {
				e.Retry, e.HasRetry = n, true
			}
		}
	}
	return events
}

// chunked reads in pieces of the given sizes, over and over; 0 is an empty
// read. No sizes: all there is room for.
type chunked struct {
	rest  []byte
	sizes []byte
	reads int
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	if len(c.sizes) > 0 {
		size := int(c.sizes[c.reads%len(c.sizes)])
		if c.reads%50 == 49 {
			size++ // so that empty reads end
		}
		p = p[:min(size, len(p))]
	}
	c.reads++
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
