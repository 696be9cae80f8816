package js_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// wire is what streams bring, and what a client that follows the standard makes of it: each message as
// event|data|id. The names are those of the web platform tests that look at the same.
var wire = map[string]struct {
	stream string
	id     string // at the end
	want   []string
}{
	"format-bom":                            {"\ufeffdata: a\n\n", "", []string{"message|a|"}},
	"format-bom-2":                          {"\ufeff\ufeffdata: a\n\ndata: b\n\n", "", []string{"message|b|"}},
	"format-comments":                       {":\n: x\n:data: no\ndata: a\n:\n\n", "", []string{"message|a|"}},
	"format-data-before-final-empty-line":   {"retry: 100\ndata: lost", "", nil},
	"format-field-data":                     {"data:\n\ndata\ndata\n\ndata:a\n\n", "", []string{"message||", "message|\n|", "message|a|"}},
	"format-field-event":                    {"event: e\ndata: a\n\ndata: b\n\n", "", []string{"e|a|", "message|b|"}},
	"format-field-event-empty":              {"event: \ndata: a\n\n", "", []string{"message|a|"}},
	"format-field-id":                       {"id: …\ndata: a\n\ndata: b\n\n", "…", []string{"message|a|…", "message|b|…"}},
	"format-field-id-2":                     {"id: 1\ndata: a\n\nid\ndata: b\n\n", "", []string{"message|a|1", "message|b|"}},
	"format-field-id-null":                  {"id: 1\ndata: a\n\nid: 2\x002\ndata: b\n\n", "1", []string{"message|a|1", "message|b|1"}},
	"format-field-parsing":                  {"data:\x00\ndata:  2\nData: no\ndata\x00: no\ndata: 4\n\n", "", []string{"message|\x00\n 2\n4|"}},
	"format-field-retry":                    {"retry: 200\ndata: a\n\n", "", []string{"message|a|"}},
	"format-field-unknown":                  {"data: a\n data: no\ndata\nfoobar: x\njust text\n\n", "", []string{"message|a\n|"}},
	"format-leading-space":                  {"data:\ta\ndata:  b\n\n", "", []string{"message|\ta\n b|"}},
	"format-newlines":                       {"data: a\r\ndata: b\ndata: c\r\n\r\ndata: d\r\rdata: e\n\r\n", "", []string{"message|a\nb\nc|", "message|d|", "message|e|"}},
	"format-null-character":                 {"data: \x00\n\n\n\n", "", []string{"message|\x00|"}},
	"format-utf-8":                          {"data: ok…☃🔑\n\n", "", []string{"message|ok…☃🔑|"}},
	"an id without data counts":             {"id: 7\n\ndata: a\n\n", "7", []string{"message|a|7"}},
	"an id of a block that is cut does not": {"id: 7\ndata: a\n\nid: 8\ndata: b\n", "7", []string{"message|a|7"}},
}

func TestStreamsAreReadAsTheStandardSays(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	resumed := make(map[string]string) // the Last-Event-ID that came after each stream
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		_, again := resumed[r.URL.Path]
		resumed[r.URL.Path] = r.Header.Get("Last-Event-ID")
		mu.Unlock()
		if again {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		name, pieces, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		size, _ := strconv.Atoi(pieces)
		for piece := range slices.Chunk([]byte(wire[name].stream), size) {
			_, _ = w.Write(piece)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	defer server.Close()
	var urls []string
	for name := range wire {
		for _, size := range []int{1, 2, 1 << 20} {
			urls = append(urls, server.URL+"/"+url.PathEscape(name)+"/"+strconv.Itoa(size))
		}
	}
	p := run(t, "wire.mjs", urls...)
	for range urls {
		var told struct {
			URL, ID string
			Got     []string
		}
		if err := json.Unmarshal([]byte(p.next()), &told); err != nil {
			t.Fatal(err)
		}
		at, err := url.Parse(told.URL)
		if err != nil {
			t.Fatal(err)
		}
		name, size := path.Split(at.Path)
		c := wire[strings.Trim(name, "/")]
		if !slices.Equal(told.Got, c.want) {
			t.Errorf("%sin pieces of %s: got %q, want %q", name, size, told.Got, c.want)
		}
		mu.Lock()
		sent := resumed[at.Path]
		mu.Unlock()
		if told.ID != c.id || sent != c.id {
			t.Errorf("%sin pieces of %s: the ID is %q, and %q was sent; want %q", name, size, told.ID, sent, c.id)
		}
	}
}
