package gzipstream_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/gzipstream"
)

// read returns what a reader that is not ours finds in a stream.
func read(t *testing.T, stream []byte) string {
	t.Helper()
	reader, err := gzip.NewReader(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(reader)
	if err != nil {
		t.Errorf("after %d bytes of text: %v", len(text), err)
	}
	return string(text)
}

// readPiece returns the text of a piece, by what stands before it.
func readPiece(t *testing.T, piece []byte, before string) string {
	t.Helper()
	reader := flate.NewReaderDict(bytes.NewReader(piece), []byte(before))
	text, room := "", make([]byte, 512)
	for {
		n, err := reader.Read(room)
		text += string(room[:n])
		switch {
		case err == nil:
		case err != io.ErrUnexpectedEOF: // there is no last block
			t.Fatalf("a piece ends by %v", err)
		case n > 0:
			t.Fatalf("the last %d bytes come only when there is nothing more to wait for", n)
		default:
			return text
		}
	}
}

func TestStreamOfSharedPiecesReadsAsItsText(t *testing.T) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for range 200 {
		stream, text, sum := []byte(gzipstream.Header), "", gzipstream.Sum{}
		for range random.IntN(20) {
			more := textOf(random)
			var piece []byte
			before := ""
			if random.IntN(4) == 0 {
				piece = gzipstream.AppendStored(nil, []byte(more))
			} else {
				before = text[len(text)-min(len(text), random.IntN(8<<10)):]
				piece = gzipstream.AppendCompressed(nil, []byte(more), []byte(before))
			}
			if got := readPiece(t, piece, before); got != more {
				t.Fatalf("a piece of %d bytes reads as %d: a reader has to wait for more", len(more), len(got))
			}
			stream, text = append(stream, piece...), text+more
			own := gzipstream.SumOf([]byte(more))
			var tail gzipstream.Tail
			tail.Set(own)
			if then, after := sum.Then(own), tail.After(sum); then != after {
				t.Fatalf("%v with %v behind it is %v, and as a tail %v", sum, own, then, after)
			}
			sum = sum.Then(own)
			if whole := gzipstream.SumOf([]byte(text)); whole != sum {
				t.Fatalf("the sum of %d bytes is %v, and by pieces %v", len(text), whole, sum)
			}
		}
		if got := read(t, append(stream, sum.End()...)); got != text {
			t.Fatalf("%d bytes read as %d others", len(text), len(got))
		}
	}
}

// textOf returns some text: short or long, such as messages are or noise.
func textOf(random *rand.Rand) string {
	var b strings.Builder
	switch random.IntN(4) {
	case 0:
		for range random.IntN(40) {
			b.WriteByte(byte(random.UintN(256)))
		}
	case 1:
		for range random.IntN(100_000) {
			b.WriteByte("abcdefghijklmnopqrstuvwxyz"[random.IntN(1+random.IntN(26))])
		}
	default:
		for range random.IntN(4) {
			fmt.Fprintf(&b, "id: x-%d\ndata: {\"symbol\":\"BTC\",\"price\":%d}\n\n", random.Uint64(), random.Uint32())
		}
	}
	return b.String()
}

func TestSamePieceIsMadeOfTheSameText(t *testing.T) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for range 200 {
		text, before := []byte(textOf(random)), []byte(textOf(random))
		before = before[:min(len(before), 1<<10)]
		once := gzipstream.AppendCompressed(nil, text, before)
		gzipstream.AppendCompressed(nil, []byte(textOf(random)), nil) // by the same writer, perhaps
		if again := gzipstream.AppendCompressed(nil, text, before); !bytes.Equal(once, again) {
			t.Fatalf("%d bytes behind %d were compressed to %d, and then to %d others",
				len(text), len(before), len(once), len(again))
		}
	}
}

func TestStreamWithoutTextIsWhole(t *testing.T) {
	empty := gzipstream.AppendCompressed(gzipstream.AppendStored([]byte(gzipstream.Header), nil), nil, nil)
	if got := read(t, append(empty, gzipstream.Sum{}.End()...)); got != "" {
		t.Errorf("no text reads as %q", got)
	}
}

func TestLengthOfWhatIsStoredTellsNothingElse(t *testing.T) {
	same := strings.Repeat("a", 100_000)
	other := strings.Repeat("the quick brown fox ", 5_000)
	if a, b := gzipstream.AppendStored(nil, []byte(same)), gzipstream.AppendStored(nil, []byte(other)); len(a) != len(b) {
		t.Errorf("texts of one length are stored in %d and %d bytes", len(a), len(b))
	}
}

func BenchmarkTick(b *testing.B) {
	var before []byte
	text := func(i int) []byte {
		return fmt.Appendf(nil, "id: Zt3bq0s9Xw2a-%d\nevent: tick\ndata: {\"symbol\":\"BTC-EUR\",\"bid\":%d.%02d,\"ask\":%d.%02d,"+
			"\"volume\":%d,\"time\":\"2026-11-30T08:00:%02d.%03dZ\",\"source\":\"exchange-7\",\"seq\":%d}\n\n",
			1000+i, 61234+i%7, i*37%100, 61236+i%9, i*53%100, 1000+i*7919%9000, i%60, i*313%1000, 500000+i)
	}
	for i := range 10 {
		before = append(before, text(i)...)
	}
	before = before[len(before)-1024:]
	m, n, i := text(11), 0, 0
	for b.Loop() {
		n = len(gzipstream.AppendCompressed(nil, m, before))
		i++
	}
	b.ReportMetric(float64(n)/float64(len(m)), "size/plain")
}

func BenchmarkTail(b *testing.B) {
	var tail gzipstream.Tail
	tail.Set(gzipstream.SumOf([]byte("a message")))
	sum := gzipstream.Sum{}
	for b.Loop() {
		sum = tail.After(sum)
	}
}
