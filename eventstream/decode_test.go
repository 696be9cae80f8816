package eventstream_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

const ample = 1 << 20

func TestDecoderReadsEvents(t *testing.T) {
	named := func(name, s string) eventstream.Event {
		return eventstream.Event{Name: name, Data: []byte(s), HasData: true}
	}
	retry := func(n int64) eventstream.Event { return eventstream.Event{Retry: n, HasRetry: true} }
	tests := []struct {
		name  string
		input string
		want  []eventstream.Event
	}{
		{"nothing", "", nil},
		{"blank lines", "\n\r\r\n\n", nil},
		{"LF", "event: a\ndata: x\n\ndata: y\n\n", []eventstream.Event{named("a", "x"), data("y")}},
		{"CR", "event: a\rdata: x\r\rdata: y\r\r", []eventstream.Event{named("a", "x"), data("y")}},
		{"CRLF", "event: a\r\ndata: x\r\n\r\ndata: y\r\n\r\n", []eventstream.Event{named("a", "x"), data("y")}},
		{"mixed line ends", "event: a\rdata: x\n\r\ndata: y\r\n\n", []eventstream.Event{named("a", "x"), data("y")}},
		{"LF CR is two line ends", "data: x\n\rdata: y\n\n", []eventstream.Event{data("x"), data("y")}},
		{"data lines are joined", "data: a\ndata\ndata:\ndata: b\n\n", []eventstream.Event{data("a\n\n\nb")}},
		{"fields between data lines", "data: a\nid: 1\ndata: b\n\n", []eventstream.Event{{ID: "1", Data: []byte("a\nb"), HasData: true}}},
		{"one space is stripped", "data:a\n\ndata: a\n\ndata:  a\n\ndata:\ta\n\n", []eventstream.Event{data("a"), data("a"), data(" a"), data("\ta")}},
		{"empty data", "data\n\ndata:\n\ndata: \n\n", []eventstream.Event{data(""), data(""), data("")}},
		{"a value may hold colons and NUL", "data: a:b: c\x00\n\n", []eventstream.Event{data("a:b: c\x00")}},
		{"a BOM is stripped", "\uFEFFdata: a\n\n", []eventstream.Event{data("a")}},
		{"only one BOM", "\uFEFF\uFEFFdata: a\n\ndata: b\n\n", []eventstream.Event{data("b")}},
		{"only at the start", "\n\uFEFFdata: a\n\ndata: \uFEFFb\n\n", []eventstream.Event{data("\uFEFFb")}},
		{"a BOM before a blank line", "\uFEFF\ndata: a\n\n", []eventstream.Event{data("a")}},
		{"half a BOM", "\xEF\xBBdata: a\n\ndata: b\n\n", []eventstream.Event{data("b")}},
		{"comments and unknown fields are skipped", ": c\n\nfoo: bar\n\n:\ndata: a\nDATA: x\n data: x\ndata : x\n\n", []eventstream.Event{data("a")}},
		{"an event without data", "id: 1\nevent: a\n\n", []eventstream.Event{{ID: "1", Name: "a"}}},
		{"the last id and name win", "id: 1\nid: 2\nevent: a\nevent\ndata\n\n", []eventstream.Event{{ID: "2", HasData: true}}},
		{"an id with NUL is ignored", "id: 1\nid: 2\x003\n\nid: \x00\n\n", []eventstream.Event{{ID: "1"}}},
		{"empty names are none", "event\nevent:\n\n", nil},
		{"an empty id clears the one before", "id\n\nid: 1\nid:\ndata: a\n\n", []eventstream.Event{{ClearsID: true}, {ClearsID: true, Data: []byte("a"), HasData: true}}},
		{"an id behind an empty one", "id:\nid: 1\n\nid:\nid: \x00\n\n", []eventstream.Event{{ID: "1"}, {ClearsID: true}}},
		{"retry", "retry: 0\n\nretry:10\nretry: 0020\n\n", []eventstream.Event{retry(0), retry(20)}},
		{"retry up to the limit", "retry: 9223372036854775807\n\nretry: 9223372036854775808\n\n", []eventstream.Event{retry(math.MaxInt64)}},
		{"retry of other than digits is ignored", "retry: 5\nretry: -1\nretry: +1\nretry: 1s\nretry:  1\nretry: 1_0\nretry\nretry: \n\n", []eventstream.Event{retry(5)}},
		{"an unfinished block is dropped", "data: a\n\ndata: b\n", []eventstream.Event{data("a")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for kind, r := range map[string]io.Reader{
				"all at once":         strings.NewReader(tt.input),
				"byte by byte":        iotest.OneByteReader(strings.NewReader(tt.input)),
				"EOF with last bytes": iotest.DataErrReader(strings.NewReader(tt.input)),
			} {
				got, err := decodeAll(eventstream.NewDecoder(r, ample))
				if !errors.Is(err, io.EOF) {
					t.Errorf("%s: ended with %v", kind, err)
				}
				if !sameEvents(got, tt.want) {
					t.Errorf("%s: got %+v, want %+v", kind, got, tt.want)
				}
			}
		})
	}
}

func TestEventSurvivesTheRoundTrip(t *testing.T) {
	events := []eventstream.Event{
		data(""), data("a"), data(" a"), data("\n"), data("a\n\nid: 1\n"), data(strings.Repeat("long ", 20_000)),
		{ID: " 1", Name: "a: b", Data: []byte("x"), HasData: true, Retry: math.MaxInt64, HasRetry: true},
		{ID: strings.Repeat("i", 20_000)},
		{Name: "é"},
		{HasRetry: true},
		{ClearsID: true},
	}
	var stream []byte
	for _, e := range events {
		stream = eventstream.AppendComment(e.Append(stream), "heartbeat")
	}
	got, err := decodeAll(eventstream.NewDecoder(bytes.NewReader(stream), ample))
	if !errors.Is(err, io.EOF) || !sameEvents(got, events) {
		t.Errorf("got %d events, then %v; want the %d sent", len(got), err, len(events))
	}
}

// A decoder that waits for more deadlocks here, which synctest reports.
func TestEventIsReturnedAlthoughNothingFollows(t *testing.T) {
	for _, block := range []string{"data: a\n\n", "data: a\r\r", "data: a\r\n\r", "data: a\r\n\r\n", "data:a\n\r", "id:1\n\n"} {
		synctest.Test(t, func(t *testing.T) {
			r, w := io.Pipe()
			defer r.Close()
			go func() { _, _ = io.Copy(w, iotest.OneByteReader(strings.NewReader("\uFEFF"+block+block))) }()
			d := eventstream.NewDecoder(r, ample)
			for range 2 {
				if _, err := d.Next(); err != nil {
					t.Errorf("%q: %v", block, err)
				}
			}
		})
	}
}

func TestKeepIncompleteCountsWhatAProperEndCutShort(t *testing.T) {
	broken := errors.New("connection reset")
	tests := []struct {
		input   string
		err     error
		dropped int // events with KeepIncomplete off
		kept    int // and on
	}{
		{"data: a\n\n", io.EOF, 1, 1},
		{"data: a\n", io.EOF, 0, 1},
		{"data: a\r", io.EOF, 0, 1},
		{"data: a", io.EOF, 0, 1},
		{"data", io.EOF, 0, 1},
		{"\uFEFFid:1", io.EOF, 0, 1},
		{"\uFEFF", io.EOF, 0, 0},
		{"dat", io.EOF, 0, 0},
		{": a", io.EOF, 0, 0},
		{"data: a\n\n\n: b\n", io.EOF, 1, 1},
		{"data: a\n\nretry: 1", io.EOF, 1, 2},
		{"data: a", io.ErrUnexpectedEOF, 0, 0},
		{"data: a\n", io.ErrUnexpectedEOF, 0, 0},
		{"data: a\n\ndata: b\n", broken, 1, 1},
		{"data: a\r", broken, 0, 0},
	}
	for _, tt := range tests {
		for _, keep := range []bool{false, true} {
			want := tt.dropped
			if keep {
				want = tt.kept
			}
			d := eventstream.NewDecoder(io.MultiReader(strings.NewReader(tt.input), iotest.ErrReader(tt.err)), ample)
			d.KeepIncomplete = keep
			got, err := decodeAll(d)
			if len(got) != want || !errors.Is(err, tt.err) {
				t.Errorf("%q, keep %t: %d events, then %v; want %d, then %v", tt.input, keep, len(got), err, want, tt.err)
			}
			if _, again := d.Next(); !errors.Is(again, err) {
				t.Errorf("%q: the error %v became %v", tt.input, err, again)
			}
		}
	}
}

func TestLineTellsWhereTheBlockBegan(t *testing.T) {
	d := eventstream.NewDecoder(strings.NewReader("data: a\r\n\r\n: c\n\n\ndata: b\rdata: c\r\r: c\nid: 1\n\ndata: d\ndata: too large"), 8)
	for _, want := range []int{1, 6, 9} {
		if _, err := d.Next(); err != nil || d.Line() != want {
			t.Errorf("line %d (%v), want %d", d.Line(), err, want)
		}
		d.Buffered() // looks ahead without moving Line
		if d.Line() != want {
			t.Errorf("Buffered moved the line to %d", d.Line())
		}
	}
	if _, err := d.Next(); !errors.Is(err, eventstream.ErrTooLarge) || d.Line() != 13 {
		t.Errorf("line %d (%v), want 13", d.Line(), err)
	}
}

func TestBufferedTellsOnlyOfWholeEvents(t *testing.T) {
	for rest, want := range map[string]bool{
		"": false, "data: b": false, "data: b\n": false, ": c\n\n": false, "\n": false,
		"data: b\n\n": true, ": c\n\ndata: b\r\r": true,
	} {
		d := eventstream.NewDecoder(io.MultiReader(strings.NewReader("data: a\n\n"+rest), iotest.ErrReader(io.EOF)), ample)
		if d.Buffered() {
			t.Error("true before anything was read")
		}
		if _, err := d.Next(); err != nil {
			t.Fatal(err)
		}
		if got := d.Buffered(); got != want {
			t.Errorf("%t with %q left", got, rest)
		}
	}
}

func TestReaderThatReadsNothingIsGivenUp(t *testing.T) {
	d := eventstream.NewDecoder(readerFunc(func([]byte) (int, error) { return 0, nil }), ample)
	if _, err := d.Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("ended with %v", err)
	}
}

func TestDataBelongsToTheCaller(t *testing.T) {
	d := eventstream.NewDecoder(strings.NewReader("data: aaaa\n\ndata: bbbb\n\n"), ample)
	first, _ := d.Next()
	second, _ := d.Next()
	if got := string(first.Data) + string(second.Data); got != "aaaabbbb" {
		t.Errorf("got %q", got)
	}
}

func BenchmarkDecode(b *testing.B) {
	event := eventstream.Event{ID: "1f3a9c-1234567", Name: "update", HasData: true, Data: bytes.Repeat([]byte("x"), 200)}
	for name, end := range map[string]string{"LF": "\n", "CRLF": "\r\n", "CR": "\r"} {
		block := bytes.ReplaceAll(event.Append(nil), []byte("\n"), []byte(end))
		b.Run(name, func(b *testing.B) {
			d := eventstream.NewDecoder(&looped{block: block}, ample)
			b.SetBytes(int64(len(block)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// decodeAll returns every event and the error that ended them.
func decodeAll(d *eventstream.Decoder) ([]eventstream.Event, error) {
	var events []eventstream.Event
	for {
		e, err := d.Next()
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
}

// sameEvents takes nil and empty data for the same.
func sameEvents(a, b []eventstream.Event) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if !bytes.Equal(x.Data, y.Data) {
			return false
		}
		x.Data, y.Data = nil, nil
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// looped reads as one block without end.
type looped struct {
	block []byte
	at    int
}

func (l *looped) Read(p []byte) (n int, err error) {
	for n < len(p) {
		c := copy(p[n:], l.block[l.at:])
		n, l.at = n+c, (l.at+c)%len(l.block)
	}
	return n, nil
}
