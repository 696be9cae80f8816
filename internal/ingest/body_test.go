package ingest

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestAByteOrderMarkAtTheStartIsDropped(t *testing.T) {
	for body, want := range map[string]string{
		"":                         "",
		"a":                        "a",
		"\xEF":                     "\xEF",
		"\xEF\xBB":                 "\xEF\xBB",
		"\xEF\xBBa":                "\xEF\xBBa",
		"\xEF\xBB\xBF":             "",
		"\xEF\xBB\xBFabc":          "abc",
		"a\xEF\xBB\xBF":            "a\xEF\xBB\xBF",
		"\xEF\xBB\xBF\xEF\xBB\xBF": "\xEF\xBB\xBF",
	} {
		for name, read := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "by bytes": iotest.OneByteReader, "with its end": iotest.DataErrReader,
		} {
			for room, reader := range map[string]func(io.Reader) io.Reader{
				"much": func(r io.Reader) io.Reader { return r }, "a byte": iotest.OneByteReader,
			} {
				text := NewText(read(strings.NewReader(body)))
				got, err := io.ReadAll(reader(text))
				if err != nil || string(got) != want || text.Empty() != (want == "") {
					t.Errorf("%q, read %s with room for %s, is %q, %v, empty %t", body, name, room, got, err, text.Empty())
				}
			}
		}
	}
}

func TestABrokenBodyIsNoBadGzip(t *testing.T) {
	coded := []byte(e2etest.Gzip(t, "hello"))
	cut := errors.New("the line was cut")
	_, err := io.ReadAll(Gunzip(io.MultiReader(bytes.NewReader(coded[:12]), iotest.ErrReader(cut))))
	if !errors.Is(err, cut) {
		t.Errorf("a line that was cut is %v", err)
	}
	for _, bad := range [][]byte{coded[:4], coded[:12], coded[:len(coded)-1], []byte("hello"), append(bytes.Clone(coded), 'x')} {
		_, err := io.ReadAll(Gunzip(bytes.NewReader(bad)))
		if malformed := (*Error)(nil); !errors.As(err, &malformed) || malformed.TooLarge {
			t.Errorf("%q is %v", bad, err)
		}
	}
}

// FuzzGunzip shows that what is no gzip is an error of the body, and what was written comes back.
func FuzzGunzip(f *testing.F) {
	f.Add([]byte("hello"), uint8(0))
	f.Add([]byte(e2etest.Gzip(f, "hello")), uint8(12))
	f.Add([]byte{}, uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, cut uint8) {
		if _, err := io.Copy(io.Discard, Gunzip(bytes.NewReader(text))); err != nil {
			if malformed := (*Error)(nil); !errors.As(err, &malformed) {
				t.Errorf("%q is %v", text, err)
			}
		}
		coded := []byte(e2etest.Gzip(t, string(text)))
		got, err := io.ReadAll(Gunzip(iotest.OneByteReader(bytes.NewReader(coded))))
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%q comes back as %q, %v", text, got, err)
		}
		if short := coded[:len(coded)-1-int(cut)%(len(coded)-1)]; len(short) > 0 {
			if _, err := io.Copy(io.Discard, Gunzip(bytes.NewReader(short))); err == nil {
				t.Errorf("%q is taken for a whole", short)
			}
		}
	})
}

// What an array costs is bounded, whatever is in it.
func TestAHugeArrayIsRefusedCheaply(t *testing.T) {
	const size = 8 << 20
	fill := func(begin, each, end string) []byte {
		return []byte(begin + strings.Repeat(each, (size-len(begin)-len(end))/len(each)) + end)
	}
	for name, body := range map[string][]byte{
		"messages":       fill(`[`, `{"topic":"a","data":1},`, `{}]`),
		"numbers":        fill(`[`, `1,`, `1]`),
		"deep":           fill(``, `[`, ``),
		"topics":         fill(`{"data":1,"topic":[`, `"a",`, `"a"]}`),
		"names":          fill(`{"topic":"a","data":{`, `"a":1,`, `"a":1}}`),
		"unknown fields": fill(`{`, `"a":1,`, `"a":1}`),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := JSON(body)
		runtime.ReadMemStats(&after)
		if name != "names" && err == nil {
			t.Errorf("%s are taken", name)
		}
		if cost := (after.TotalAlloc - before.TotalAlloc) >> 20; cost > 6*size>>20 { // 10,000 messages among it
			t.Errorf("%s of %d MiB cost %d MiB", name, size>>20, cost)
		}
	}
}

// FuzzJSON shows that a refusal has words, and that a message which is taken has a target and data.
func FuzzJSON(f *testing.F) {
	for _, body := range []string{
		`{"topic":"a","data":{"b":1,"b":2}}`, `[{"topic":["a"],"data":"x"}]`, `[]`, `[`, `{"topic":"a","topic":"b"}`, `{"user":42,"data":1}`,
		`{"retry":"5s"}`, `[{}] x`, `null`, `{"data":null,"broadcast":true}`, `{"topic":["a",["b"]],"data":0}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		drafts, isArray, err := JSON(bytes.Clone(body))
		if err != nil {
			if err.Error() == "" {
				t.Errorf("%q is refused without a word", body)
			}
			return
		}
		if isArray != (body[0] == '[') || len(drafts) > MaxMessages {
			t.Errorf("%q is an array: %t, of %d", body, isArray, len(drafts))
		}
		for _, d := range drafts {
			if len(d.To) > MaxTargets || d.HasRetry && (d.Retry < MinRetry || d.Retry > MaxRetry) {
				t.Errorf("%q is taken as %+v", body, d.Message)
			}
		}
	})
}
