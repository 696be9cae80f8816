package eventstream_test

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/caddy-sse/caddy-sse/eventstream"
)

func TestBlockAboveTheLimitIsRefused(t *testing.T) {
	tests := []struct {
		name  string
		input string
		ok    bool
	}{
		{"data at the limit", "data: 1234567890\n\n", true},
		{"data above it", "data: 12345678901\n\n", false},
		{"an unfinished line above it", "data: 12345678901", false},
		{"lines with their joints", "data: 12345\ndata: 1234\n\n", true},
		{"empty lines", strings.Repeat("data\n", 12), false},
		{"all values together", "id: 123\nevent: 456\ndata: 7890\n\n", true},
		{"all values together, above", "id: 123\nevent: 456\ndata: 78901\n\n", false},
		{"an ignored id while it is read", "id: \x001234567890\n", false},
		{"a retry does not count", "data: 1234567890\nretry: 1000\n\n", true},
		{"a comment does not count", "data: 1234567890\n:1234567890\nfoo: 1234567890\n\n", true},
		{"every block has its own limit", "data: 1234567890\n\ndata: 1234567890\n\n", true},
	}
	for _, tt := range tests {
		for _, r := range []io.Reader{strings.NewReader(tt.input), iotest.OneByteReader(strings.NewReader(tt.input))} {
			d := eventstream.NewDecoder(r, 10)
			d.KeepIncomplete = true
			want := eventstream.ErrTooLarge
			if tt.ok {
				want = io.EOF
			}
			if _, err := decodeAll(d); !errors.Is(err, want) {
				t.Errorf("%s: ended with %v, want %v", tt.name, err, want)
			}
		}
	}
}

func TestEndlessLinesTakeNoMemory(t *testing.T) {
	const size, maxBlock, most = 4 << 20, 16 << 10, 128 << 10
	for start, want := range map[string]error{
		":": io.EOF, "unknown: ": io.EOF, "no colon": io.EOF, "retry: ": io.EOF,
		"data: ": eventstream.ErrTooLarge, "id: ": eventstream.ErrTooLarge, "event: ": eventstream.ErrTooLarge,
	} {
		d := eventstream.NewDecoder(io.MultiReader(strings.NewReader(start), io.LimitReader(repeat('0'), size)), maxBlock)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := d.Next()
		runtime.ReadMemStats(&after)
		if !errors.Is(err, want) {
			t.Errorf("%q: ended with %v", start, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > most {
			t.Errorf("%q: allocated %d bytes", start, n)
		}
	}
}

// repeat reads as c without end.
func repeat(c byte) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		for i := range p {
			p[i] = c
		}
		return len(p), nil
	})
}
