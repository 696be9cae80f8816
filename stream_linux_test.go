package sse_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// handlersAtWork is how many requests the directive count_handlers has passed on that have not returned. A
// stream that is written directly has left its request: the handler has returned.
var handlersAtWork atomic.Int64

// handlerCount is the directive count_handlers, which changes nothing of a request or its response.
type handlerCount struct{}

func (handlerCount) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sse_test_count_handlers",
		New: func() caddy.Module { return handlerCount{} },
	}
}

func (handlerCount) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	handlersAtWork.Add(1)
	defer handlersAtWork.Add(-1)
	return next.ServeHTTP(w, r)
}

func init() {
	caddy.RegisterModule(handlerCount{})
	httpcaddyfile.RegisterHandlerDirective("count_handlers",
		func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return handlerCount{}, nil })
}

// counted lets count_handlers stand before all other directives.
const counted = "order count_handlers first\n"

func awaitHandlers(t *testing.T, n int64) {
	t.Helper()
	eventually(t, patience, fmt.Sprintf("%d handlers at work", n), func() bool { return handlersAtWork.Load() == n })
}

func TestStreamsOverPlainHTTP1NeedNoHandler(t *testing.T) {
	s := serve(t, `
		count_handlers
		encode gzip
		header X-Before before
		header >X-After after
		sse /events {
			publish {
				open
			}
			direct_writes on
		}
		sse /handler {
			direct_writes off
		}`, withTLS, globals(counted))
	const n = 20
	var streams []*e2etest.Stream
	subscribe := func(url string, options ...e2etest.Option) {
		stream := e2etest.Subscribe(t, url, append(options, e2etest.Header("Accept-Encoding", "gzip"))...)
		stream.Connected(t)
		streams = append(streams, stream)
	}
	for range n {
		subscribe(s.url("/events?topic=a"))
	}
	awaitHandlers(t, 0)
	for i, other := range []func(){
		func() { subscribe(s.url("/handler?topic=a")) },
		func() { subscribe(s.secure("/events?topic=a")) },
		func() { subscribe(s.url("/events?topic=a"), e2etest.Via(e2etest.H2(t))) },
		func() { subscribe(s.secure("/events?topic=a"), e2etest.Via(e2etest.H3(t))) },
	} {
		other()
		awaitHandlers(t, int64(i+1))
	}
	publish(t, s.url("/events?topic=a"), "hello")
	for _, stream := range streams {
		stream.Expect(t, "hello")
	}
	header := openUnread(t, e2etest.H1(t), s.url("/events")).Header
	if header.Get("X-Before") == "" || header.Get("X-After") == "" {
		t.Errorf("what the directive header sets is missing from %v", header)
	}
}

// The clients are bare connections, so all goroutines that come with them are the server's.
func TestStreamsOverPlainHTTP1NeedNoGoroutine(t *testing.T) {
	s := serve(t, `
		sse /events {
			publish {
				open
			}
			direct_writes on
		}
		sse /handler {
			direct_writes off
		}`)
	const n = 20
	subscribe := func(path string) {
		conn := s.dial()
		fmt.Fprintf(conn, "GET %s?topic=a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path)
		lines := bufio.NewReader(conn)
		for line := ""; line != "event: connected\n"; {
			var err error
			if line, err = lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
	}
	subscribe("/events") // whatever all of them share
	before := runtime.NumGoroutine()
	for range n {
		subscribe("/events")
	}
	eventually(t, patience, "direct streams have no goroutine", func() bool { return runtime.NumGoroutine() <= before })
	for range n {
		subscribe("/handler")
	}
	if now := runtime.NumGoroutine(); now < before+n/2 {
		t.Errorf("%d streams in handlers have brought %d goroutines, so this test shows nothing", n, now-before)
	}
}

// A response that something on its way compresses after all is written through it.
func TestCompressedStreamIsNotWrittenDirectly(t *testing.T) {
	e2etest.AboutPlainStreams(t)
	s := serve(t, `
		route {
			count_handlers
			encode gzip
			header /events >Cache-Control "no-store"
			sse /events {
				publish {
					open
				}
			}
		}`)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("/events?topic=a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept-Encoding", "gzip")
	response, err := e2etest.H1(t).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("the stream is not compressed, so this test shows nothing: %v", response.Header)
	}
	awaitHandlers(t, 1)
	awaitReceivers(t, s, 1)
	publish(t, s.url("/events?topic=a"), "hello")
	body, err := gzip.NewReader(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	events := eventstream.NewDecoder(body, 1<<20)
	for {
		event, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
		if string(event.Data) == "hello" {
			return
		}
	}
}

// Where the server has a write timeout, Caddy looks at the response again at its end.
func TestServerWithAWriteTimeoutKeepsItsStreams(t *testing.T) {
	s := serve(t, "count_handlers"+openRoute, globals(counted+"servers {\ntimeouts {\nwrite 1m\n}\n}"))
	e2etest.Subscribe(t, s.url("/events?topic=a")).Connected(t)
	awaitHandlers(t, 1)
}

func TestClientsThatLeaveAtOnceAreCountedAsLeft(t *testing.T) {
	s := serve(t, openRoute)
	const n = 300
	var visitors sync.WaitGroup
	for range 4 {
		visitors.Go(func() {
			for range n / 4 {
				conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Fprintf(conn, "GET /events?topic=a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
				_ = conn.Close()
			}
		})
	}
	visitors.Wait()
	stayed := e2etest.Subscribe(t, s.url("/events?topic=a"))
	stayed.Connected(t)
	awaitReceivers(t, s, 1)
	publish(t, s.url("/events?topic=a"), "hello")
	for string(mustNext(t, stayed).Data) != "hello" {
	}
	log, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if left, ended := bytes.Count(log, []byte(`"reason":"left"`)), bytes.Count(log, []byte(`"reason":`)); left != ended {
		t.Errorf("of %d clients that have left only %d are told to have", ended, left)
	}
}
