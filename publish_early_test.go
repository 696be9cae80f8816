package sse_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// soon is how long an answer may take that does not wait for the body. It leaves room for a slow machine.
const soon = 15 * time.Second

func TestMessagesOverMaxSizeAre413(t *testing.T) {
	s := serveOnce(t, listenedRoute+`
		sse /small {
			publish {
				open
				max_size 1KiB
			}
		}`, withTLS)
	fits, over := strings.Repeat("x", 1024), strings.Repeat("x", 1025)
	object := func(data string) string { return `{"topic":"a","data":"` + data + `"}` }
	pad := func(body string, size int) string { return body + strings.Repeat(" ", size-len(body)) }
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := s.listen(t)
		for _, c := range []struct{ query, media, fits, over string }{
			{"?topic=a", "", fits, over},
			{"?topic=a", "", fits, fits + over + over},
			{"", jsonType, object(fits), object(over)},
			{"", jsonType, object(strings.Repeat(`\u0078`, 1024)), object(strings.Repeat(`\u0078`, 1025))}, // data counts, not JSON
			{"", jsonType, "[" + object(fits) + "," + object(fits) + "]", "[" + object(fits) + "," + object(over) + "]"},
			{"", jsonType, pad("["+object(fits)+"]", 16<<10), pad("["+object(fits)+"]", 16<<10+1)},
			{"", formType, "topic=a&data=" + fits, "topic=a&data=" + over},
			{"", formType, "topic=a&data=" + strings.Repeat("%78", 1024), "topic=a&data=" + strings.Repeat("%78", 1025)},
			{"?topic=a", ndjsonType, fits + "\r\n" + fits, over},
			{"", ndjsonType, object(fits) + "\n" + object(strings.Repeat(`\u0078`, 1024)), object(over)},
			{"?topic=a", eventsType, "event: e\nid: 5\ndata: " + fits + "\n\n", "data: " + over + "\n\n"},
			{"?topic=a", eventsType, ": " + over + "\nfoo: " + over + "\ndata: " + fits[:511] + "\ndata:" + fits[:512], "data: " + fits[:511] + "\ndata: " + fits[:513]},
		} {
			answer := post(t, p.url("/small"+c.query), c.media, c.fits, p.via)
			if answer.Status != http.StatusOK {
				t.Errorf("%.40s as %q, which fits, is answered %d %s", c.fits, c.media, answer.Status, answer.Body)
			}
			for range strings.Count(answer.Body, "-") {
				stream.next(t)
			}
			stream.skip(t)
			wantRefusal(t, post(t, p.url("/small"+c.query), c.media, c.over, p.via), http.StatusRequestEntityTooLarge, "bytes")
			unknown := startUpload(t, p.client, p.url("/small"+c.query), c.media) // of unknown length
			_, _ = io.WriteString(unknown.body, c.over)                           // it may be refused before its end
			wantRefusal(t, unknown.end(), http.StatusRequestEntityTooLarge, "bytes")
		}
		stream.wantNothing(t)
	})
}

func TestMaxSizeIsOneMebibyteByDefault(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	data := strings.Repeat("é", 1<<19)
	publish(t, s.url("/events?topic=a"), data)
	stream.Expect(t, data)
	wantRefusal(t, post(t, s.url("/events?topic=a"), "", data+"x"), http.StatusRequestEntityTooLarge, "1048576")
	stream.wantNothing(t)
}

func TestRequestBodyLimitOfTheSiteIs413(t *testing.T) {
	s := serveOnce(t, "request_body {\n max_size 1000\n}\n"+listenedRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for _, kind := range append(lineBodies, []struct{ query, media, message string }{{"?topic=a", "", "%s"}, {"", jsonType, `{"topic":"a","data":"%s"}`}}...) {
			body := fmt.Sprintf(kind.message, strings.Repeat("x", 2000))
			answer := post(t, p.url("/events"+kind.query), kind.media, body, p.via)
			if answer.Status != http.StatusRequestEntityTooLarge {
				t.Errorf("%q is answered %d %s", kind.media, answer.Status, answer.Body)
			}
			upload := startUpload(t, p.client, p.url("/events"+kind.query), kind.media)
			_, _ = io.WriteString(upload.body, body)
			if answer := upload.end(); answer.Status != http.StatusRequestEntityTooLarge {
				t.Errorf("%q of unknown length is answered %d %s", kind.media, answer.Status, answer.Body)
			}
		}
	})
}

// earlyRoutes refuse what the cases of earlyBodies send, long before its end.
const earlyRoutes = listenedRoute + `
	sse /token {
		publish {
			token secret
		}
	}
	sse /closed
	sse /small {
		publish {
			open
			max_size 16KiB
		}
	}
	sse /slow {
		publish {
			open
			rate 0.01 2
		}
	}`

var earlyBodies = []struct {
	path, media, begin, more string
	status                   int
}{
	{"/events?topic=a", ndjsonType, "\xff\n", "more\n", 400},
	{"/events?topic=a", eventsType, "event: gap\ndata: x\n\n", "data: more\n\n", 400},
	{"/events", ndjsonType, "{}\n", `{"topic":"a","data":"more"}` + "\n", 400},
	{"/events?topic=*", ndjsonType, "x\n", "more\n", 400},
	{"/small?topic=a", "", "x", strings.Repeat("x", 1000), 413},
	{"/small", jsonType, "[", strings.Repeat(" ", 10_000), 413},
	{"/token?topic=a", "", "x", "more", 401},
	{"/token?topic=a", ndjsonType, "x\n", "more\n", 401},
	{"/closed?topic=a", "", "x", "more", 403},
	{"/slow?topic=slow", ndjsonType, "1\n2\n3\n", "more\n", 429},
}

func TestEndlessBodyIsAnsweredEarly(t *testing.T) {
	for _, major := range []int{1, 2, 3} {
		s := serveOnce(t, earlyRoutes, withTLS)
		stream := s.listen(t)
		eachProtocol(t, s, func(t *testing.T, p protocol) {
			if p.major != major {
				return
			}
			for _, c := range earlyBodies {
				upload := startUpload(t, p.client, p.url(c.path), c.media)
				go func() {
					_, err := io.WriteString(upload.body, c.begin)
					for err == nil {
						_, err = io.WriteString(upload.body, c.more)
					}
				}()
				wantRefusal(t, upload.wait(soon), c.status)
			}
		})
		for i := range 2 {
			stream.Expect(t, fmt.Sprint(i+1)) // what /slow took
		}
		if major == 1 { // over the second HTTP/1 the rate is used up
			stream.wantNothing(t)
		}
		stream.Close()
		s.stop()
	}
}

// An answer that waits for the client to send the rest would wait for ever.
func TestBodyThatStopsIsAnsweredEarlyAndTheConnectionEnds(t *testing.T) {
	s := serveOnce(t, earlyRoutes)
	var group sync.WaitGroup
	for _, c := range earlyBodies {
		if c.status == http.StatusTooManyRequests || c.status == http.StatusRequestEntityTooLarge {
			continue
		}
		for _, body := range []string{
			fmt.Sprintf("Content-Length: 500000\r\n\r\n%s", c.begin),
			fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(c.begin), c.begin),
		} {
			conn := s.dial()
			group.Go(func() {
				fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n%s", c.path, c.media, body)
				_ = conn.SetReadDeadline(time.Now().Add(soon))
				got, err := io.ReadAll(conn)
				if err != nil {
					t.Errorf("%s: the connection does not end: %v", c.path, err)
				}
				if !strings.HasPrefix(string(got), fmt.Sprintf("HTTP/1.1 %d ", c.status)) || !strings.Contains(string(got), "Connection: close") {
					t.Errorf("%s is answered %q", c.path, got)
				}
			})
		}
	}
	group.Wait()
	conn := s.dial()
	fmt.Fprintf(conn, "POST /events?topic=a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1048580\r\n\r\n") // too large as announced, byte order mark or not
	_ = conn.SetReadDeadline(time.Now().Add(soon))
	if got, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 413 ") {
		t.Errorf("answered %q, %v", got, err)
	}
}

func TestRefusalComesBefore100Continue(t *testing.T) {
	s := serveOnce(t, earlyRoutes)
	for path, want := range map[string]string{
		"/token?topic=a":  "HTTP/1.1 401 Unauthorized\r\n",
		"/closed?topic=a": "HTTP/1.1 403 Forbidden\r\n",
		"/events?topic=a": "HTTP/1.1 100 Continue\r\n",
	} {
		conn := s.dial()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", path)
		_ = conn.SetReadDeadline(time.Now().Add(soon))
		if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || got != want {
			t.Errorf("%s is answered %q, %v", path, got, err)
		}
	}
}

func TestRefusedBodyThatWasReadKeepsTheConnection(t *testing.T) {
	s := serveOnce(t, openRoute)
	conn := s.dial()
	reader := bufio.NewReader(conn)
	for range 3 {
		fmt.Fprintf(conn, "POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		_ = conn.SetReadDeadline(time.Now().Add(soon))
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusBadRequest || response.Close {
			t.Errorf("answered %s, close %t", response.Status, response.Close)
		}
	}
}

func TestPublishersHaveARateAndABurst(t *testing.T) {
	s := serveOnce(t, withUsers(`
		sse /events {
			publish {
				open
				rate 0.1 3
			}
		}
		sse /anonymous {
			publish {
				open
				rate 0.1 3
			}
		}
		sse /default {
			publish {
				open
				rate 20
			}
		}`), globals("servers {\ntrusted_proxies static 127.0.0.1/32\n}"))
	from := func(ip string) e2etest.Option { return e2etest.Header("X-Forwarded-For", ip) }
	for _, c := range []struct {
		path string
		who  e2etest.Option
		same e2etest.Option // another that shares the rate
	}{
		{"/events", As("alice"), nil},
		{"/events", As("bob"), nil},
		{"/anonymous", from("192.0.2.1"), nil},
		{"/anonymous", from("192.0.2.2"), nil},
		{"/anonymous", from("2001:db8:0:1::1"), from("2001:db8:0:1:ffff::2")},
		{"/anonymous", from("2001:db8:0:2::1"), nil},
	} {
		for range 3 {
			publish(t, s.url(c.path+"?topic=a"), "x", c.who)
		}
		if c.same == nil {
			c.same = c.who
		}
		answer := post(t, s.url(c.path+"?topic=a"), "", "x", c.same)
		wantRefusal(t, answer, http.StatusTooManyRequests, "0.1")
		if after, err := strconv.Atoi(answer.Header.Get("Retry-After")); after < 1 || after > 10 {
			t.Errorf("Retry-After is %d, %v", after, err)
		}
	}
	// An array takes its number, or nothing; without one the burst is the rate.
	array := func(n int) string {
		return "[" + strings.Repeat(`{"topic":"a","data":1},`, n-1) + `{"topic":"a","data":1}]`
	}
	answer := post(t, s.url("/default"), jsonType, array(21), As("alice"))
	wantRefusal(t, answer, http.StatusRequestEntityTooLarge, "21", "20 or fewer")
	if after := answer.Header.Get("Retry-After"); after != "" {
		t.Errorf("what can never be published is to come back after %s", after)
	}
	if answer := post(t, s.url("/default"), jsonType, array(20), As("alice")); answer.Status != http.StatusOK {
		t.Errorf("an array of the burst is answered %d %s", answer.Status, answer.Body)
	}
	eventually(t, patience, "the rate allows more again", func() bool {
		return post(t, s.url("/default"), jsonType, array(10), As("alice")).Status == http.StatusOK
	})
}
