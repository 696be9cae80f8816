package answers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// pieces returns what a splitter makes of texts: each piece, with its number before it if it has one, and at
// the end what is to be passed on.
func pieces(s splitter, texts ...string) (all []string) {
	number := 0
	add := func(piece []byte, numbered bool) {
		if numbered {
			number++
			all = append(all, fmt.Sprintf("%d:%s", number, piece))
		} else {
			all = append(all, string(piece))
		}
	}
	for _, text := range texts {
		if own := s.feed([]byte(text), add); own != nil {
			return append(all, "own:"+string(own))
		}
	}
	s.finish(add)
	return all
}

func TestStreamsAreCutIntoBlocks(t *testing.T) {
	for name, test := range map[string]struct {
		texts []string
		want  []string
	}{
		"LF":            {[]string{"data: a\n\ndata: b\n\n"}, []string{"1:data: a\n\n", "2:data: b\n\n"}},
		"CR":            {[]string{"data: a\r\rdata: b\r\r"}, []string{"1:data: a\r\r", "2:data: b\r\r"}},
		"CRLF":          {[]string{"data: a\r\n\r\ndata: b\r\n\r\n"}, []string{"1:data: a\r\n\r\n", "2:data: b\r\n\r\n"}},
		"a late LF":     {[]string{"data: a\r\n\r", "\ndata: b\n\n"}, []string{"1:data: a\r\n\r", "\n", "2:data: b\n\n"}},
		"a late CRLF":   {[]string{"data: a\r", "\n\r\n"}, []string{"1:data: a\r\n\r\n"}},
		"no LF":         {[]string{"data: a\r", "\rdata: b\r", "data: c\r\r"}, []string{"1:data: a\r\r", "2:data: b\rdata: c\r\r"}},
		"a mark":        {[]string{"\xef", "\xbb\xbfdata: a\n\n"}, []string{"1:data: a\n\n"}},
		"half a mark":   {[]string{"\xef\xbb", "data: a\n\n"}, []string{"1:\xef\xbbdata: a\n\n"}},
		"only a mark":   {[]string{"\xef\xbb\xbf"}, nil},
		"multi-line":    {[]string{"event: x\nda", "ta: a\ndata: b\n\n"}, []string{"1:event: x\ndata: a\ndata: b\n\n"}},
		"a comment":     {[]string{": hi\n\ndata: a\n: in it\n\n"}, []string{": hi\n\n", "1:data: a\n: in it\n\n"}},
		"empty lines":   {[]string{"\n\ndata: a\n\n\n"}, []string{"\n", "\n", "1:data: a\n\n", "\n"}},
		"no empty line": {[]string{"data: a\n"}, []string{"1:data: a\n\n"}},
		"no line end":   {[]string{"data: a\ndata: b"}, []string{"1:data: a\ndata: b\n\n"}},
		"no LF at last": {[]string{"data: a\r"}, []string{"1:data: a\r\n\n"}},
		"last comment":  {[]string{"data: a\n\n: bye"}, []string{"1:data: a\n\n", ": bye"}},
		"comments":      {[]string{": a\n: b\r"}, []string{": a\n: b\r"}},
		"a mark and id": {[]string{"\xef\xbb", "\xbfdata: a\nid: 1\n"}, []string{"own:\xef\xbb\xbfdata: a\nid: 1\n"}},
		"an id":         {[]string{"data: a\n\ndata: b\nid: 7\ndata", ": c\n\n"}, []string{"1:data: a\n\n", "own:data: b\nid: 7\ndata"}},
		"an empty id":   {[]string{"id\n\n"}, []string{"own:id\n\n"}},
		"no id":         {[]string{"identity: x\n\n"}, []string{"1:identity: x\n\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pieces(newSplitter(Events, false), test.texts...); !slices.Equal(got, test.want) {
				t.Errorf("got %q\nwant %q", got, test.want)
			}
		})
	}
}

// Where the upstream's writes end does not matter, also between the bytes of a line end, a mark, or an id line.
func TestStreamsMayBeCutAnywhere(t *testing.T) {
	for _, text := range []string{
		"\xef\xbb\xbf: hi\r\n\r\ndata: a\r\ndata: b\r\n\r\n\r\ndata: c\r\rdata: d\n\n:\r\n\r\nevent: x\r\ndata\r\n\r\n",
		"data: a\r\n\r\nid: 1\r\ndata: b\r\n\r\nid\r\n\r\ndata: c\rid: 2\r\rdata: d\r\nid: 3",
	} {
		want := strings.Join(pieces(newSplitter(Events, true), text), "")
		for i := range len(text) {
			for j := i; j <= len(text); j++ {
				got := strings.Join(pieces(newSplitter(Events, true), text[:i], text[i:j], text[j:]), "")
				if got != want {
					t.Fatalf("cut at %d and %d it becomes %q\nwant %q", i, j, got, want)
				}
			}
		}
	}
}

func TestIDsAreReplaced(t *testing.T) {
	got := pieces(newSplitter(Events, true), "id: 1\r", "\ndata: a\r\n\r\n", "data: b\nid:2\n\nid: 3\n\ndata: c\nid: 4")
	want := []string{"1:data: a\r\n\r\n", "2:data: b\n\n", "\n", "3:data: c\n\n"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestLinesAreCountedAsAClientCountsThem(t *testing.T) {
	got := pieces(newSplitter(Lines, false), "{\"a\":1}\n{", "}\n\n{\"end\"", ":true}")
	if want := []string{"1:{\"a\":1}\n", "2:{}\n", "3:\n", "4:{\"end\":true}"}; !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// FuzzBlocks checks that cutting loses nothing, and that where the upstream's writes end does not matter.
func FuzzBlocks(f *testing.F) {
	for _, text := range []string{
		"data: a\n\ndata: b\r\n\r\n: c\r\r", "\xef\xbb\xbfdata: a\r\n\r\n", "id: 1\ndata: x\n\n", "\r\n\r\n\r", "data: a\r",
	} {
		f.Add(text, uint8(3))
	}
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		cut := func(s splitter, step int) (joined string, numbers int) {
			var all strings.Builder
			add := func(piece []byte, numbered bool) {
				all.Write(piece)
				if numbered {
					numbers++
				}
			}
			for rest := []byte(text); len(rest) > 0; rest = rest[min(step, len(rest)):] {
				if own := s.feed(rest[:min(step, len(rest))], add); own != nil {
					all.Write(own)
					all.Write(rest[min(step, len(rest)):])
					return all.String(), -1 - numbers
				}
			}
			return all.String(), numbers
		}
		whole, numbers := cut(newSplitter(Events, false), len(text)+1)
		inParts, numbersInParts := cut(newSplitter(Events, false), int(size)+1)
		if numbers != numbersInParts || len(text) > 0 && whole != inParts && numbers < 0 {
			t.Errorf("%q: %q, %d at once; %q, %d in parts", text, whole, numbers, inParts, numbersInParts)
		}
		unmarked := strings.TrimPrefix(text, byteOrderMark)
		if !strings.HasPrefix(unmarked, inParts) || numbers < 0 && inParts != unmarked {
			t.Errorf("%q became %q", text, inParts)
		}
	})
}
