package sse_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestStreamBeginsAtOnceWithItsHeadersAndPosition(t *testing.T) {
	s := serve(t, openRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := e2etest.Subscribe(t, p.url("/events?topic=news&client_id=me"), p.via, e2etest.KeepRaw())
		connected := stream.Connected(t)
		if stream.Response.ProtoMajor != p.major {
			t.Fatalf("spoke %s", stream.Response.Proto)
		}
		wantStreamHeaders(t, stream.Response.Header)
		want := "retry: 2000\nid: " + connected.ID + "\nevent: connected\n" +
			`data: {"status":"connected","client_id":"me","generated":false,"topics":["news"],"resume":"none"}` + "\n\n"
		if stream.Raw() != want {
			t.Errorf("the stream begins %q, want %q", stream.Raw(), want)
		}
		named := publish(t, p.url("/events?topic=news&event=update&retry=7000"), "one\r\ntwo\rthree\n", p.via)
		plain := publish(t, p.url("/events?topic=news"), "", p.via)
		stream.Expect(t, "one\ntwo\nthree\n")
		stream.Expect(t, "")
		want += "id: " + *named.ID + "\nretry: 7000\nevent: update\ndata: one\ndata: two\ndata: three\ndata: \n\n" +
			"id: " + *plain.ID + "\ndata: \n\n"
		if stream.Raw() != want {
			t.Errorf("the stream is %q, want %q", stream.Raw(), want)
		}
	})
}

func wantStreamHeaders(t *testing.T, header http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type":      "text/event-stream; charset=utf-8",
		"Cache-Control":     "no-cache, no-transform",
		"X-Accel-Buffering": "no",
		"Content-Encoding":  "",
		"Content-Length":    "",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestRetryToldIsTheConfiguredOne(t *testing.T) {
	for option, want := range map[string]string{"retry 750ms": "retry: 750\n", "retry 100ms": "retry: 100\n", "retry 1h": "retry: 3600000\n"} {
		s := serve(t, "sse /events {\n"+option+"\n}")
		stream := e2etest.Subscribe(t, s.url("/events"), e2etest.KeepRaw())
		stream.Connected(t)
		if !strings.HasPrefix(stream.Raw(), want) {
			t.Errorf("%s: the stream begins %q", option, stream.Raw())
		}
		stream.Close()
		s.stop()
	}
}

func TestHeadAnswersTheHeadersAndEnds(t *testing.T) {
	s := serve(t, openRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for range 2 { // over the same connection
			answer := e2etest.Send(t, http.MethodHead, p.url("/events?topic=news&client_id=x"), "", p.via)
			if answer.Status != http.StatusOK || answer.Body != "" {
				t.Errorf("answered %d with %q", answer.Status, answer.Body)
			}
			wantStreamHeaders(t, answer.Header)
		}
		if answer := e2etest.Send(t, http.MethodHead, p.url("/events?topic=a/**/b"), "", p.via); answer.Status != http.StatusBadRequest {
			t.Errorf("HEAD of what GET refuses is answered %d", answer.Status)
		}
		if n := receivers(t, p.url("/events?client_id=x")); n != 0 {
			t.Errorf("HEAD left %d clients behind", n)
		}
	})
}

func TestOtherMethodsAre405AndNameTheAllowed(t *testing.T) {
	s := serve(t, openRoute+"\nrespond never 418", withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for _, method := range []string{"PUT", "PATCH", "PROPFIND"} {
			answer := e2etest.Send(t, method, p.url("/events"), "", p.via)
			wantRefusal(t, answer, http.StatusMethodNotAllowed, "GET", "POST")
			if allow := answer.Header.Get("Allow"); allow != "GET, HEAD, POST, DELETE, OPTIONS" {
				t.Errorf("%s: Allow is %q", method, allow)
			}
		}
	})
	answer := e2etest.Send(t, http.MethodOptions, s.url("/events"), "")
	if answer.Status != http.StatusNoContent || answer.Header.Get("Allow") != "GET, HEAD, POST, DELETE, OPTIONS" {
		t.Errorf("OPTIONS is answered %d, Allow %q", answer.Status, answer.Header.Get("Allow"))
	}
}

func TestStreamIsNeverCompressed(t *testing.T) {
	s := serve(t, "encode zstd gzip {\n minimum_length 1\n}\nheader X-Site yes\n"+openRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := e2etest.Subscribe(t, p.url("/events?topic=a"), p.via, e2etest.Header("Accept-Encoding", "gzip, zstd"))
		stream.Connected(t)
		wantStreamHeaders(t, stream.Response.Header)
		if stream.Response.Header.Get("X-Site") != "yes" {
			t.Error("a header of the site is missing")
		}
		publish(t, p.url("/events?topic=a"), "readable")
		stream.Expect(t, "readable")
	})
}

// The server's timeouts are for ordinary requests; a stream lasts.
func TestServerTimeoutsDoNotEndStreams(t *testing.T) {
	s := serve(t, `
		sse /events {
			heartbeat 500ms
			publish {
				open
			}
		}`, withTLS, globals(`
		servers {
			timeouts {
				read_header 3s
				read_body 3s
				write 3s
				idle 3s
			}
		}`))
	streams := lasting(t, s, "/events?topic=a")
	for _, stream := range streams {
		eventually(t, patience, "heartbeats for longer", func() bool {
			return strings.Count(stream.Raw(), ": heartbeat\n") >= 9 || ended(stream)
		})
	}
	publish(t, s.url("/events?topic=a"), "still there")
	for _, stream := range streams {
		stream.Expect(t, "still there")
	}
}

func TestHeartbeatGoesToSilentClientsOnly(t *testing.T) {
	s := serve(t, `
		sse /events {
			heartbeat 5s
			publish {
				open
			}
		}
		sse /off {
			heartbeat off
		}`)
	silent := e2etest.Subscribe(t, s.url("/events?topic=silent"), e2etest.KeepRaw())
	busy := e2etest.Subscribe(t, s.url("/events?topic=busy"), e2etest.KeepRaw())
	off := e2etest.Subscribe(t, s.url("/off"), e2etest.KeepRaw())
	off.Connected(t)
	silent.Connected(t)
	begin := silent.Raw()
	eventually(t, patience, "two heartbeats", func() bool {
		publish(t, s.url("/events?topic=busy&ephemeral"), "x")
		return strings.HasPrefix(silent.Raw(), begin+": heartbeat\n: heartbeat\n")
	})
	if strings.Contains(busy.Raw(), "heartbeat") {
		t.Error("a client that gets messages gets heartbeats too")
	}
	if strings.Contains(off.Raw(), "heartbeat") {
		t.Error("heartbeat off sends one")
	}
}

func TestWithoutConnectedEventTheStreamBeginsWithItsPositionOnly(t *testing.T) {
	s := serve(t, `
		sse /events {
			connected_event off
			publish {
				open
			}
		}`)
	stream := e2etest.Subscribe(t, s.url("/events?topic=a"), e2etest.KeepRaw())
	first := publish(t, s.url("/events?topic=a"), "first")
	stream.Expect(t, "first")
	head, _, _ := strings.Cut(stream.Raw(), "\n\n")
	id, ok := strings.CutPrefix(head, "retry: 2000\nid: ")
	if !ok || strings.Contains(id, "\n") {
		t.Fatalf("the stream begins %q", head)
	}
	again := e2etest.Subscribe(t, s.url("/events?topic=a"), e2etest.LastEventID(id), e2etest.KeepRaw())
	if event := again.Expect(t, "first"); event.ID != *first.ID {
		t.Errorf("resumed from the position told and got the ID %q", event.ID)
	}
	if strings.Contains(again.Raw(), "event: ") {
		t.Errorf("an exact resume is told as %q", again.Raw())
	}

	lost := e2etest.Subscribe(t, s.url("/events?topic=a"), e2etest.LastEventID("unknown"), e2etest.KeepRaw())
	if event, err := lost.Next(patience); err != nil || event.Name != "gap" || !strings.Contains(string(event.Data), `{"reason":"`) {
		t.Errorf("the gap is told as %+v, %v", event, err)
	}
	lost.Expect(t, "first")
}

func TestEphemeralMessagesHaveNoIDAndAreNotReplayed(t *testing.T) {
	s := serve(t, openRoute)
	stream := e2etest.Subscribe(t, s.url("/events?topic=a"))
	start := stream.Connected(t).ID
	for _, query := range []string{"ephemeral", "ephemeral=true", "ephemeral=1"} {
		answer := e2etest.Publish(t, s.url("/events?topic=a&"+query), query)
		if answer.Body != `{"id":null,"receivers":1}`+"\n" {
			t.Errorf("an ephemeral message is answered %s", answer.Body)
		}
		if event := stream.Expect(t, query); event.ID != "" {
			t.Errorf("an ephemeral message has the ID %q", event.ID)
		}
	}
	publish(t, s.url("/events?topic=a&ephemeral=false"), "kept")
	if event := stream.Expect(t, "kept"); event.ID == "" {
		t.Error("ephemeral=false has no ID")
	}
	again := e2etest.Subscribe(t, s.url("/events?topic=a"), e2etest.LastEventID(start))
	again.Expect(t, "kept")
}

func TestGetRefusesWhatItCannotReadAndSaysWhy(t *testing.T) {
	s := serve(t, openRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for query, word := range map[string]string{
			"client_id=a%20b":                        "client_id",
			"client_id=" + strings.Repeat("a", 129):  "client_id",
			"client_id=%C3%A9":                       "client_id",
			"topic=":                                 "empty",
			"topic=a%00b":                            "control",
			"topic=a%0Ab":                            "control",
			"topic=a%C2%85b":                         "control", // NEL, a control character beyond ASCII
			"topic=%FF":                              "UTF-8",
			"topic=" + strings.Repeat("%C3%A9", 129): "256",
			"topic=" + strings.Repeat("a", 257):      "256",
			"topic=**/a":                             "**",
			"topic=a/**/b":                           "**",
			"topic=**/**":                            "**",
			"topic=%zz":                              "query",
			"topic=a;topic=b":                        "query",
		} {
			wantRefusal(t, get(t, p.url("/events?"+query), p.via), http.StatusBadRequest, word)
		}
	})
}

func TestRequestsNeverGoOnToTheNextHandler(t *testing.T) {
	s := serve(t, openRoute+"\nrespond next 418")
	for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "DELETE"} {
		path := "/events?topic=**/x" // refused on GET and POST alike
		if answer := e2etest.Send(t, method, s.url(path), ""); answer.Status == http.StatusTeapot {
			t.Errorf("%s goes on to the next handler", method)
		}
	}
	if answer := get(t, s.url("/elsewhere")); answer.Status != http.StatusTeapot {
		t.Errorf("a path of others is answered %d", answer.Status)
	}
}

// The HTTP server would read what a request says is to come before it answers.
func TestABodyThatDoesNotComeIsNotWaitedFor(t *testing.T) {
	s := serve(t, `
		sse /events {
			direct_writes off
			publish {
				open
			}
		}
		sse /direct`)
	for _, request := range []string{"HEAD /events", "HEAD /direct", "GET /events", "GET /direct"} {
		for _, body := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
			conn := s.dial()
			fmt.Fprintf(conn, "%s?topic=a HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n\r\n", request, body)
			_ = conn.SetReadDeadline(time.Now().Add(soon))
			in := bufio.NewReader(conn)
			line, err := in.ReadString('\n')
			for ; err == nil && line != "event: connected\n"; line, err = in.ReadString('\n') {
			}
			if head := strings.HasPrefix(request, "HEAD"); head != (err == io.EOF) || !head && err != nil {
				t.Errorf("%s with %s: %v", request, body, err)
			}
			_ = conn.Close()
		}
	}
	awaitReceivers(t, s, 0)
}
