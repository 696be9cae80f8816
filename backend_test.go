package sse_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// backend is a site's application that answers every request with the headers of its query, and a body.
type backend struct {
	*httptest.Server
	body      int // in bytes; negative: the answer never ends
	answering atomic.Int32
	peers     chan string // the connection of each request
}

func startBackend(t *testing.T, body int) *backend {
	b := &backend{body: body, peers: make(chan string, 100)}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.answering.Add(1)
		defer b.answering.Add(-1)
		b.peers <- r.RemoteAddr
		for name, values := range r.URL.Query() {
			w.Header()[http.CanonicalHeaderKey(name)] = values
		}
		for n := 0; b.body < 0 || n < b.body; {
			wrote, err := io.WriteString(w, strings.Repeat("x", 1000))
			if n += wrote; err != nil {
				return
			}
		}
	}))
	b.Config.Protocols = new(http.Protocols)
	b.Config.Protocols.SetHTTP1(true)
	b.Config.Protocols.SetUnencryptedHTTP2(true)
	b.Start()
	t.Cleanup(b.Close)
	return b
}

// decides returns a site's directives: the backend hands requests to a route with these options.
func (b *backend) decides(scheme, options string) string {
	return fmt.Sprintf(`reverse_proxy %s://%s {
		@stream header X-SSE-Topics *
		handle_response @stream {
			sse {
				topics {rp.header.X-SSE-Topics}
				user {rp.header.X-SSE-USER}
				info {rp.header.x-sse-info}
				client_id {rp.header.X-SSE-Client}
				%s
			}
		}
	}
	sse /publish {
		publish {
			open
		}
	}`, scheme, b.Listener.Addr(), options)
}

// The backend's headers say who listens to what: topics and patterns in a list, however the config spells the names.
func TestTheBackendsHeadersAreTheTopicsOfAClient(t *testing.T) {
	s := serve(t, startBackend(t, 0).decides("http", "publish {\nopen\n}"))
	for list, want := range map[string]string{
		"news":                         "news",
		"news,a/b%20,%20team/*,all/**": "a/b news all/** team/*",
		",news,,%20news,":              "news",
		"":                             "",
		"news&X-SSE-Topics=a/b":        "a/b news", // a header that comes twice
		"with%20spaces,%c3%a4":         "with spaces ä",
		"news&topic=forged&topic=more": "news",
	} {
		stream := e2etest.Subscribe(t, s.url("/events?X-SSE-User=alice&X-SSE-Client=tab-1&X-SSE-Topics="+list))
		hello := stream.Connected(t)
		if got := strings.Join(hello.Topics, " "); got != want || hello.ClientID != "tab-1" {
			t.Errorf("%q: %q listens to %q, want %q", list, hello.ClientID, got, want)
		}
		if slices.Contains(hello.Topics, "news") {
			publish(t, s.url("/publish?topic=news"), "news")
			stream.Expect(t, "news")
		}
		if slices.Contains(hello.Topics, "team/*") {
			publish(t, s.url("/publish?topic=team/blue"), "blue")
			stream.Expect(t, "blue")
		}
		publish(t, s.url("/publish?user=alice"), "hers")
		stream.Expect(t, "hers")
		stream.Close()
	}
	for list, words := range map[string]string{
		"news,a/**/b":            "** before its end",
		"%ff":                    "UTF-8",
		strings.Repeat("x", 257): "257 bytes",
	} {
		wantRefusal(t, get(t, s.url("/events?X-SSE-Topics="+list)), http.StatusBadRequest, "X-Sse-Topics", words)
	}
	// Publishing through the backend stays within what it names.
	publish(t, s.url("/events?X-SSE-Topics=a,team/*&topic=team/blue"), "blue")
	outside := post(t, s.url("/events?X-SSE-Topics=a,team/*&topic=b"), "text/plain", "x")
	wantRefusal(t, outside, http.StatusForbidden, `"b"`)
}

// From when the stream has begun the backend has neither a request nor a connection that it is for.
func TestAStreamCostsTheBackendThatDecidedNothing(t *testing.T) {
	for _, body := range []int{100_000, -1} {
		t.Run(fmt.Sprintf("a body of %d bytes", body), func(t *testing.T) {
			b := startBackend(t, body)
			s := serve(t, b.decides("http", ""), withTLS)
			eachProtocol(t, s, func(t *testing.T, p protocol) { b.wantFree(t, p.url, p.via) })
		})
	}
	t.Run("over HTTP/2", func(t *testing.T) { // its request ends only once the answer was read, or cut
		b := startBackend(t, -1)
		s := serve(t, b.decides("h2c", "direct_writes off"))
		b.wantFree(t, s.url)
	})
}

// wantFree opens streams. The backend must not have anything to do with them.
func (b *backend) wantFree(t *testing.T, url func(path string) string, options ...e2etest.Option) {
	t.Helper()
	open := func() (peer string) {
		stream := e2etest.Subscribe(t, url("/events?X-SSE-Topics=news"), options...)
		stream.Connected(t)
		eventually(t, patience, "the backend's request to end", func() bool { return b.answering.Load() == 0 })
		publish(t, url("/publish?topic=news"), "hello", options...)
		stream.Expect(t, "hello")
		return <-b.peers
	}
	seen := map[string]bool{open(): true}
	if b.body < 0 {
		return // over HTTP/1.1 a connection whose answer was cut can't serve again
	}
	eventually(t, patience, "a stream to come by the connection of another", func() bool {
		peer := open()
		again := seen[peer]
		seen[peer] = true
		return again
	})
}
