package mercure

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestRule01AGetIsAStreamAtOnce(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	stream := s.subscribe([]string{"a", "b"})
	if media := stream.Response.Header.Get("Content-Type"); !strings.HasPrefix(media, "text/event-stream") {
		t.Errorf("it is %q", media)
	}
	s.publish("topic", "a", "data", "1")
	s.publish("topic", "c", "data", "2")
	s.publish("topic", "b", "data", "3")
	wantTexts(t, stream, "1", "3")
}

func TestRule02WithoutATopicItIsABadRequest(t *testing.T) {
	t.Parallel()
	s := serve(t, "transport local")
	wantRefusal(t, s.get(s.hub()), http.StatusUnauthorized, "needs a token")
	wantRefusal(t, s.get(s.hub(), bearer(subscribing("*"))), http.StatusBadRequest, "no topic")
	wantRefusal(t, s.get(s.hub("topics", "a"), bearer(subscribing("*"))), http.StatusBadRequest, "no topic")
}

func TestRule03AHeadIsAGetWithoutABody(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	answer := e2etest.Send(t, http.MethodHead, s.topics("a"), "")
	if answer.Status != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
		t.Errorf("%d %v", answer.Status, answer.Header)
	}
	if answer := e2etest.Send(t, http.MethodHead, s.hub(), ""); answer.Status != http.StatusBadRequest {
		t.Errorf("without a topic: %d", answer.Status)
	}
}

func TestRule04OtherMethodsAndPaths(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, "PROPFIND"} {
		answer := e2etest.Send(t, method, s.topics("a"), "")
		wantRefusal(t, answer, http.StatusMethodNotAllowed)
		if allow := answer.Header.Get("Allow"); allow != allowedMethods {
			t.Errorf("%s: allowed is %q", method, allow)
		}
	}
	for _, path := range []string{"/", "/subscriptions", "/subscriptions/a", "/ui/", "/x"} {
		wantRefusal(t, s.get(s.URL(Path+path+"?topic=a")), http.StatusNotFound)
	}
	for _, path := range []string{"/", "/mercure", "/.well-known/", "/.well-known/mercurex", "/a/.well-known/mercure"} {
		if answer := s.get(s.URL(path)); answer.Status != http.StatusOK || answer.Body != "next" {
			t.Errorf("%s did not go on to the next handler: %d", path, answer.Status)
		}
	}
}

// chunks opens a stream over a connection of its own, and returns what reads one chunk of its response after the other.
func chunks(t *testing.T, s *site, query string) func() string {
	t.Helper()
	conn, err := net.Dial("tcp", s.Expand("127.0.0.1:{{port}}"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET %s?%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", Path, query)
	reader := bufio.NewReader(conn)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			break
		}
	}
	return func() string {
		var size int
		if _, err := fmt.Fscanf(reader, "%x\r\n", &size); err != nil {
			t.Fatalf("reading the size of a chunk: %v", err)
		}
		chunk := make([]byte, size+2)
		for n := 0; n < len(chunk); {
			m, err := reader.Read(chunk[n:])
			if err != nil {
				t.Fatalf("reading a chunk: %v", err)
			}
			n += m
		}
		return string(chunk[:size])
	}
}

func TestRule05And08CommentsAreLinesAndEachEventIsAChunk(t *testing.T) {
	t.Parallel()
	for _, direct := range []string{"on", "off"} {
		t.Run("direct_writes "+direct, func(t *testing.T) {
			t.Parallel()
			s := serve(t, inMemory+"heartbeat 100ms\ndirect_writes "+direct)
			next := chunks(t, s, "topic=a")
			if first := next(); first != ":\n" {
				t.Errorf("the stream begins with %q", first)
			}
			if beat := next(); beat != ":\n" {
				t.Errorf("a heartbeat is %q", beat)
			}
			const count = 40
			published := make(chan bool)
			go func() { // several at once, so that they gather
				defer close(published)
				for i := range count {
					s.publish("topic", "a", "data", fmt.Sprint(i), "id", fmt.Sprintf("id-%d", i))
				}
			}()
			for i := 0; i < count; {
				chunk := next()
				if chunk == ":\n" {
					continue
				}
				if want := fmt.Sprintf("id: id-%[1]d\ndata: %[1]d\n\n", i); chunk != want {
					t.Fatalf("a chunk is %q, want %q", chunk, want)
				}
				i++
			}
			<-published
		})
	}
}

func TestRule06And07BlocksAreAsTheProtocolHasThem(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory+"heartbeat 0s")
	stream := s.subscribe([]string{"a"})
	s.publish("topic", "a", "id", "1", "type", "message", "retry", "1500", "data", "x")
	s.publish("topic", "a", "id", "2", "data", "")
	s.publish("topic", "a", "id", "3")
	s.publish("topic", "a", "id", "4", "data", "one\ntwo\r\nthree\rfour\n", "type", "connected")
	wantTexts(t, stream, "x", "", "", "one\ntwo\nthree\nfour\n")
	want := ":\n" +
		"event: message\nretry: 1500\nid: 1\ndata: x\n\n" +
		"id: 2\ndata: \n\n" +
		"id: 3\ndata: \n\n" +
		"event: connected\nid: 4\ndata: one\ndata: two\ndata: three\ndata: four\ndata: \n\n"
	if raw := stream.Raw(); raw != want {
		t.Errorf("the stream is %q, want %q", raw, want)
	}
}

func TestRule09To11Selectors(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	topics := []string{
		"https://example.com/books/1", "https://example.com/books/1/reviews", "a,b", "with space", "snöw ☃", "room/*", "{bad",
		"https://example.com/App%5CEntity%5CBook/7",
	}
	for selector, matches := range map[string][]int{
		"*":                              {0, 1, 2, 3, 4, 5, 6, 7},
		"https://example.com/books/1":    {0},
		"https://example.com/books/{id}": {0},
		"https://example.com/{+path}":    {0, 1, 7},
		"{scheme}://{+host}/books/{id}":  {0},
		"a,b":                            {2},
		"a":                              {},
		"with space":                     {3},
		"snöw ☃":                         {4},
		"room/*":                         {5},
		"room/x":                         {},
		"{bad":                           {6},
		"**":                             {},
		"https://example.com/App%5CEntity%5CBook/{id}": {7},
	} {
		stream := s.subscribe([]string{selector})

		for i, topic := range topics {
			s.publish("topic", topic, "data", fmt.Sprint(i))
		}
		s.publish("topic", "end", "topic", "https://example.com/books/1", "topic", selector, "data", "end")
		got := []int{}
		for {
			event, err := stream.Next(patience)
			if err != nil {
				t.Fatalf("%s: %v", selector, err)
			}
			if string(event.Data) == "end" {
				break
			}
			got = append(got, int(event.Data[0]-'0'))
		}
		stream.Close()
		if !slices.Equal(got, matches) {
			t.Errorf("%s matches %v, want %v", selector, got, matches)
		}
	}
	twice := s.subscribe([]string{"x", "x", "{x}", "*"})
	s.publish("topic", "x", "topic", "y", "data", "once")
	s.publish("topic", "x", "data", "then")
	wantTexts(t, twice, "once", "then")
}

func TestRule12Limits(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory+"max_topics 300\npublish_max_size 100KiB")
	many := make([]string, 300)
	for i := range many {
		many[i] = fmt.Sprintf("https://example.com/books/%d", i)
	}
	stream := s.subscribe(many)
	s.publish("topic", many[299], "data", "last")
	wantTexts(t, stream, "last")
	wantRefusal(t, s.get(s.topics(append(many, "one more")...)), http.StatusBadRequest, "301", "limit is 300")
	wantRefusal(t, s.get(s.topics(strings.Repeat("{a}", 9))), http.StatusBadRequest, "expressions")
	wantRefusal(t, s.get(s.topics(strings.Repeat("a", 2049))), http.StatusBadRequest, "2048")
	var pairs []string
	for i := range 1000 {
		pairs = append(pairs, "topic", fmt.Sprint("t", i))
	}
	s.publish(append(pairs, "data", "x")...)
	wantRefusal(t, s.post(form(append(pairs, "topic", "t1000")...), bearer(publishing("*"))), http.StatusBadRequest, "1000")
	wantRefusal(t, s.post(form("topic", strings.Repeat("a", 2049)), bearer(publishing("*"))), http.StatusBadRequest, "2048")
	wantRefusal(t, s.post(form("topic", "a", "data", strings.Repeat("a", 100<<10)), bearer(publishing("*"))),
		http.StatusRequestEntityTooLarge, "102400")
}

func TestRule51And52HeadersOfAResponse(t *testing.T) {
	t.Parallel()
	s := serve(t, inMemory)
	stream := s.subscribe([]string{"a"})
	header := stream.Response.Header
	if cache := header.Get("Cache-Control"); !strings.Contains(cache, "no-cache") {
		t.Errorf("Cache-Control is %q", cache)
	}
	if header.Get("X-Accel-Buffering") != "no" {
		t.Errorf("X-Accel-Buffering is %q", header.Get("X-Accel-Buffering"))
	}
	if link := s.get(s.URL("/")).Header.Get("Link"); link != "" {
		t.Errorf("another response has the Link %q", link)
	}
}

func TestCompressedStreamsOfUpdatesReadAsPlainOnes(t *testing.T) {
	t.Parallel()
	for _, direct := range []string{"on", "off"} {
		s := serve(t, inMemory+"compress gzip\ndirect_writes "+direct)
		reader := bearer(subscribing("a"))
		zipped := s.subscribe([]string{"a"}, reader, e2etest.Header("Accept-Encoding", "gzip"))
		plain := s.subscribe([]string{"a"}, reader, e2etest.Header("Accept-Encoding", "identity"))
		if a, b := zipped.Response.Header.Get("Content-Encoding"), plain.Response.Header.Get("Content-Encoding"); a != "gzip" || b != "" {
			t.Errorf("the streams have Content-Encoding %q and %q", a, b)
		}
		for i := range 5 {
			for _, more := range [][]string{nil, {"private", "on"}} {
				data := fmt.Sprintf("%d %v", i, more)
				id := s.publish(append([]string{"topic", "a", "data", data}, more...)...)
				for _, stream := range []*e2etest.Stream{zipped, plain} {
					if e := stream.Expect(t, data); e.ID != id { // before there is more
						t.Errorf("the ID is %q, not %q", e.ID, id)
					}
				}
			}
		}
	}
}
