package sse_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// handlersAtWork returns how many goroutines wait in a handler for something to write.
func handlersAtWork(t *testing.T) (n int) {
	t.Helper()
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	return strings.Count(stacks.String(), "(*handlerStream).run(")
}

func awaitHandlers(t *testing.T, n int) {
	t.Helper()
	eventually(t, patience, fmt.Sprintf("%d handlers at work", n), func() bool { return handlersAtWork(t) == n })
}

func TestStreamsOverPlainHTTP1NeedNoGoroutine(t *testing.T) {
	s := serve(t, `
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
		}`, withTLS)
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
		awaitHandlers(t, i+1)
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

// A response that something on its way compresses after all is written through it.
func TestCompressedStreamIsNotWrittenDirectly(t *testing.T) {
	s := serve(t, `
		route {
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
	s := serve(t, openRoute, globals("servers {\ntimeouts {\nwrite 1m\n}\n}"))
	e2etest.Subscribe(t, s.url("/events?topic=a")).Connected(t)
	awaitHandlers(t, 1)
}

func TestClientsThatLeaveAtOnceHaveLeftAndWereNotCut(t *testing.T) {
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
