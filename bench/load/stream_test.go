package load

import (
	"fmt"
	"strings"
	"testing"
)

// newStream is a stream alone with its tally.
func newStream(publishers int) *stream {
	s := &stream{next: make([]uint32, publishers), tally: new(tally)}
	s.tally.streams = []*stream{s}
	return s
}

const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

// event is a message as a server sends it.
func event(publisher int, number uint32) string {
	return fmt.Sprintf("id: e-%d\nevent: x\ndata: %s\n\n", number, appendPayload(nil, header{publisher, number, 0}, 60))
}

// chunked cuts a text into chunks of n bytes.
func chunked(text string, n int) string {
	var b strings.Builder
	for len(text) > 0 {
		part := text[:min(n, len(text))]
		text = text[len(part):]
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(part), part)
	}
	return b.String()
}

func TestStreamIsReadWhateverItIsCutInto(t *testing.T) {
	text := "retry: 2000\nevent: connected\ndata: {\"status\":\"connected\"}\n\n: heartbeat\n\n" + event(0, 0) + event(1, 0) + event(0, 1)
	answers := map[string]string{"no chunks": head + "\r\n" + text, "CR LF": head + "\r\n" + strings.ReplaceAll(text, "\n", "\r\n")}
	for _, size := range []int{1, 7, 100, 10_000} {
		answers[fmt.Sprintf("chunks of %d", size)] = head + "Transfer-Encoding: chunked\r\n\r\n" + chunked(text, size)
	}
	for name, answer := range answers {
		for _, read := range []int{1, 2, 3, 50, len(answer)} {
			s := newStream(2)
			for rest := []byte(answer); len(rest) > 0; {
				n := min(read, len(rest))
				if err := s.readHTTP(append([]byte(nil), rest[:n]...), 0); err != nil {
					t.Fatalf("%s, reads of %d: %v", name, read, err)
				}
				rest = rest[n:]
			}
			if lost, outOfOrder := s.settle([]uint32{2, 1}); s.tally.received != 3 || s.tally.ready != 1 || lost != 0 || outOfOrder != 0 {
				t.Errorf("%s, reads of %d: %d received, %d ready, %d lost, %d out of order",
					name, read, s.tally.received, s.tally.ready, lost, outOfOrder)
			}
		}
	}
}

func TestStreamCountsWhatIsLostAndWhatIsOutOfOrder(t *testing.T) {
	for _, test := range []struct {
		name             string
		numbers          []uint32
		lost, outOfOrder int
	}{
		{"all", []uint32{0, 1, 2, 3}, 0, 0},
		{"none", nil, 4, 0},
		{"without the first", []uint32{1, 2, 3}, 1, 0},
		{"without one amid", []uint32{0, 1, 3}, 1, 0},
		{"without the last", []uint32{0, 1, 2}, 1, 0},
		{"two changed places", []uint32{0, 2, 1, 3}, 0, 1},
		{"one twice", []uint32{0, 1, 1, 2, 3}, 0, 1},
		{"one twice, one never", []uint32{0, 0, 1, 3}, 1, 1},
	} {
		s := newStream(1)
		for _, n := range test.numbers {
			s.readBody([]byte(event(0, n)), 0)
		}
		if lost, outOfOrder := s.settle([]uint32{4}); lost != test.lost || outOfOrder != test.outOfOrder {
			t.Errorf("%s: %d lost, %d out of order; want %d, %d", test.name, lost, outOfOrder, test.lost, test.outOfOrder)
		}
		s.readBody([]byte(event(0, 4)), 0)
		if lost, outOfOrder := s.settle([]uint32{5}); lost != 0 || outOfOrder != 0 {
			t.Errorf("%s: %d lost, %d out of order afterwards", test.name, lost, outOfOrder)
		}
	}
}

func TestStreamEndsWithALastChunkOrAnyAnswerButOK(t *testing.T) {
	for _, answer := range []string{
		head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
	} {
		if err := newStream(1).readHTTP([]byte(answer), 0); err == nil {
			t.Errorf("%q goes on", answer)
		}
	}
}

func TestUnfinishedMessageDoesNotCount(t *testing.T) {
	s := newStream(1)
	s.readBody([]byte(strings.TrimSuffix(event(0, 0), "\n")), 0)
	if s.tally.received != 0 {
		t.Error("a message without its blank line counts")
	}
}

func BenchmarkStream(b *testing.B) {
	var text strings.Builder
	for n := range 100 {
		e := fmt.Sprintf("id: 5ec9edd1dc04aae9-%d\ndata: %s\n\n", n, appendPayload(nil, header{0, uint32(n), 0}, 200))
		text.WriteString(chunked(e, len(e)))
	}
	s, bytes := newStream(1), []byte(text.String())
	s.part, s.tally.measure = inChunkSize, true
	for b.Loop() {
		if err := s.readHTTP(bytes, 0); err != nil {
			b.Fatal(err)
		}
		s.next[0] = 0
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/message")
}
