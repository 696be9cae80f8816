package eventstream_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

func TestAppendWritesFieldsInOrder(t *testing.T) {
	tests := []struct {
		name  string
		event eventstream.Event
		want  string
	}{
		{"the zero event is an empty block", eventstream.Event{}, "\n"},
		{
			"all fields",
			eventstream.Event{ID: "e-1", Name: "update", Data: []byte("x"), HasData: true, Retry: 2000, HasRetry: true},
			"retry: 2000\nid: e-1\nevent: update\ndata: x\n\n",
		},
		{"no data line without HasData", eventstream.Event{ID: "1", Data: []byte("x")}, "id: 1\n\n"},
		{"empty data is a data line", eventstream.Event{HasData: true}, "data: \n\n"},
		{"retry 0 is a retry line", eventstream.Event{HasRetry: true}, "retry: 0\n\n"},
		{"no negative retry", eventstream.Event{Retry: -1, HasRetry: true}, "\n"},
		{"a leading space survives", eventstream.Event{ID: " 1", HasData: true, Data: []byte(" x")}, "id:  1\ndata:  x\n\n"},
		{"every line end splits data", data("a\nb\rc\r\nd"), "data: a\ndata: b\ndata: c\ndata: d\n\n"},
		{"LF CR is two line ends", data("a\n\rb"), "data: a\ndata: \ndata: b\n\n"},
		{"a final line end makes an empty line", data("a\n"), "data: a\ndata: \n\n"},
		{"a final CR, too", data("a\r"), "data: a\ndata: \n\n"},
		{"data cannot forge fields", data("a\n\nid: 1"), "data: a\ndata: \ndata: id: 1\n\n"},
		{"an invalid id cannot break its line", eventstream.Event{ID: "a\r\nb\x00"}, "id: a  b \n\n"},
		{"an invalid name cannot break its line", eventstream.Event{Name: "\na"}, "event:  a\n\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(tt.event.Append([]byte("> "))); got != "> "+tt.want {
				t.Errorf("Append wrote %q, want %q", got, "> "+tt.want)
			}
		})
	}
}

func TestAppendCommentStaysOneBlock(t *testing.T) {
	for text, want := range map[string]string{
		"heartbeat":      ": heartbeat\n\n",
		"":               ": \n\n",
		"a\r\n\ndata: x": ": a   data: x\n\n",
	} {
		if got := string(eventstream.AppendComment(nil, text)); got != want {
			t.Errorf("comment %q became %q, want %q", text, got, want)
		}
	}
}

func TestValidFieldRefusesLineEndsAndNUL(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "update": true, "é:\t ": true, "a\n": false, "\ra": false, "a\x00b": false,
	} {
		if got := eventstream.ValidField(s); got != want {
			t.Errorf("ValidField(%q) = %t", s, got)
		}
	}
}

func TestAppendDoesNotAllocateWhileThereIsRoom(t *testing.T) {
	event := eventstream.Event{ID: "e-1", Name: "bad\nname", Data: []byte("a\r\nb\nc"), HasData: true, Retry: 1, HasRetry: true}
	dst := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() {
		event.Append(dst)
		eventstream.AppendComment(dst, "heartbeat")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAppendToNilAllocatesOnce(t *testing.T) {
	event := eventstream.Event{ID: "e-1", Name: "n", Data: bytes.Repeat([]byte("x"), 5000), HasData: true, Retry: 1<<63 - 1, HasRetry: true}
	if n := testing.AllocsPerRun(100, func() { event.Append(nil) }); n != 1 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	event := eventstream.Event{
		ID: "1f3a9c-1234567", Name: "update", HasData: true,
		Data: []byte(strings.Repeat(`{"price":101.25,"symbol":"ACME"}`, 6)),
	}
	for name, end := range map[string]string{"OneLine": "", "Lines": "\n", "LinesOfCR": "\r"} {
		b.Run(name, func(b *testing.B) {
			e := event
			e.Data = bytes.ReplaceAll(event.Data, []byte("}{"), []byte("}"+end+"{"))
			dst := e.Append(nil)
			b.SetBytes(int64(len(dst)))
			b.ReportAllocs()
			for b.Loop() {
				dst = e.Append(dst[:0])
			}
		})
	}
}

// data is an event of nothing else.
func data(s string) eventstream.Event {
	return eventstream.Event{Data: []byte(s), HasData: true}
}
