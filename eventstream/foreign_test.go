package eventstream_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	foreign "github.com/tmaxmax/go-sse"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

// These tests hold the package against a parser of other hands. Retry is not
// compared, as foreign.Read does not tell it.

func TestForeignParserReadsWhatAppendWrites(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	var want []foreign.Event
	for range 5000 {
		e := eventstream.Event{
			ID: pick(random, "1", "a:b", " x", "é"), Name: pick(random, "", "update", " ", "id: 7"),
			Data: []byte(assemble(random, 6)), HasData: true,
			Retry: random.Int64(), HasRetry: random.IntN(2) == 0,
		}
		stream = e.Append(stream)
		stream = eventstream.AppendComment(stream, assemble(random, 3))
		want = append(want, foreign.Event{LastEventID: e.ID, Type: e.Name, Data: normalised(e.Data)})
	}
	if got := readForeign(t, stream); !slices.Equal(got, want) {
		t.Errorf("the foreign parser read %d events, not the %d sent: %+v", len(got), len(want), got)
	}
}

func TestForeignParserAgreesOnAnyStream(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	compared := 0
	for range 10_000 {
		stream := assemble(random, 40)
		// The foreign parser strips a BOM after blank lines, too; the standard
		// only one that begins the stream.
		if strings.HasPrefix(strings.TrimLeft(stream, "\r\n"), "\uFEFF") {
			stream = strings.TrimLeft(stream, "\r\n")
		}
		// It yields blocks of nothing but an id or event line, too, where the
		// standard dispatches nothing. As they look like events of empty data,
		// neither is compared.
		want := slices.DeleteFunc(readForeign(t, []byte(stream)), func(e foreign.Event) bool { return e.Data == "" })
		got := dispatched(stream)
		if !slices.Equal(got, want) {
			t.Fatalf("%q: read %+v, the foreign parser %+v", stream, got, want)
		}
		compared += len(got)
	}
	if compared < 5_000 {
		t.Errorf("only %d events compared: the streams are too wild to say anything", compared)
	}
}

func readForeign(t *testing.T, stream []byte) []foreign.Event {
	t.Helper()
	var events []foreign.Event
	config := foreign.ReadConfig{MaxEventSize: ample}
	for e, err := range foreign.Read(bytes.NewReader(stream), &config) {
		if err != nil {
			t.Fatalf("%q: the foreign parser failed: %v", stream, err)
		}
		events = append(events, e)
	}
	return events
}

// dispatched is what a browser makes of the blocks decoded, without events of
// empty data.
func dispatched(stream string) []foreign.Event {
	var events []foreign.Event
	lastID := ""
	blocks, _ := decodeAll(eventstream.NewDecoder(strings.NewReader(stream), ample))
	for _, b := range blocks {
		if b.ID != "" || b.ClearsID {
			lastID = b.ID
		}
		if len(b.Data) > 0 {
			events = append(events, foreign.Event{LastEventID: lastID, Type: b.Name, Data: string(b.Data)})
		}
	}
	return events
}

// assemble returns up to n pieces that streams are made of.
func assemble(random *rand.Rand, n int) string {
	var s strings.Builder
	for range random.IntN(n + 1) {
		s.WriteString(pick(random,
			"\n", "\n", "\n", "\r", "\r", "\r\n", "\r\n", "\n\n", "\r\n\r\n",
			"data", "data:", "data: ", "data: ", "\ndata: a\n\n", "event", "event: ", "id:1", "id: 2", "id: a\x00", "id", "id:",
			"retry: 5", "retry: x", ":", ": ", " ", "x", "longer than any name", "\x00", "\uFEFF", "é",
		))
	}
	return s.String()
}

func pick(random *rand.Rand, from ...string) string {
	return from[random.IntN(len(from))]
}

// normalised is data as its receiver sees it.
func normalised(data []byte) string {
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data))
}
