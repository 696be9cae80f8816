package sse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// upload is a POST whose body is written bit by bit.
type upload struct {
	t      testing.TB
	body   *io.PipeWriter
	leave  context.CancelFunc
	done   chan struct{} // closed when there is an answer, or none to come
	answer e2etest.Answer
	err    error
}

// startUpload begins a POST of a body of unknown length.
func startUpload(t testing.TB, client *http.Client, url, contentType string, headers ...string) *upload {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	u := &upload{t: t, body: writer, leave: cancel, done: make(chan struct{})}
	go func() {
		defer close(u.done)
		response, err := client.Do(request)
		if err != nil {
			u.err = err
			reader.CloseWithError(err)
			return
		}
		defer response.Body.Close()
		content, err := io.ReadAll(response.Body)
		u.answer = e2etest.Answer{Status: response.StatusCode, Header: response.Header, Body: string(content)}
		u.err = err
		reader.CloseWithError(errAnswered)
	}()
	t.Cleanup(func() {
		u.breakOff()
		<-u.done
	})
	return u
}

var errAnswered = errors.New("the request was answered")

func (u *upload) write(text string) {
	u.t.Helper()
	if _, err := io.WriteString(u.body, text); err != nil {
		u.t.Fatalf("writing the body: %v", err)
	}
}

// end ends the body properly and returns the answer.
func (u *upload) end() e2etest.Answer {
	u.t.Helper()
	_ = u.body.Close()
	return u.wait(patience)
}

// breakOff goes away in the middle of the body.
func (u *upload) breakOff() {
	u.leave()
	_ = u.body.CloseWithError(context.Canceled) // HTTP/3 waits for it
}

// wait returns the answer, which must come within limit.
func (u *upload) wait(limit time.Duration) e2etest.Answer {
	u.t.Helper()
	select {
	case <-u.done:
	case <-time.After(limit):
		u.t.Fatalf("no answer within %v", limit)
	}
	if u.err != nil {
		u.t.Fatalf("no answer: %v", u.err)
	}
	return u.answer
}

// lineBodies are the kinds of body that are published as they arrive, and how each writes a message.
var lineBodies = []struct{ query, media, message string }{
	{"?topic=a", ndjsonType, "%s\n"},
	{"", ndjsonType, `{"topic":"a","data":"%s"}` + "\n"},
	{"?topic=a", eventsType, "data: %s\n\n"},
	{"?topic=a", eventsType + ";charset=utf-8", "data: %s\r\n\r\n"},
	{"?topic=a", eventsType, "data: %s\r\r"},
}

func TestMessagesArePublishedAsTheyArrive(t *testing.T) {
	s := serveOnce(t, listenedRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := s.listen(t)
		for _, kind := range lineBodies {
			body := startUpload(t, p.client, p.url("/events"+kind.query), kind.media)
			var last eventstream.Event
			for i := range 3 {
				body.write(fmt.Sprintf(kind.message, fmt.Sprint("message ", i)))
				last = stream.Expect(t, fmt.Sprint("message ", i)) // while the body goes on
			}
			answer := body.end()
			if want := fmt.Sprintf(`{"published":3,"last_id":"%s"}`+"\n", last.ID); answer.Status != http.StatusOK || answer.Body != want {
				t.Errorf("%s is answered %d %s, want %s", kind.media, answer.Status, answer.Body, want)
			}
		}
		stream.wantNothing(t)
	})
}

// What follows in the same packet may be no message yet, or never.
func TestAMessageDoesNotWaitForWhatFollowsIt(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream, client := s.listen(t), e2etest.H1(t)
	follows := map[string][]string{
		ndjsonType: {"\n", "\r\n\n", "hal", "\n\nhal"},
		eventsType: {"\n", ": comment\n\n", "id: 5\n\n", "event: a\n\n", "retry: 5\n\n", "retry: 5\n\ndata: hal", "\r\n\r\n"},
	}
	for _, kind := range lineBodies {
		for _, rest := range follows[strings.TrimSuffix(kind.media, ";charset=utf-8")] {
			if strings.HasSuffix(kind.message, "\r\r") && strings.HasPrefix(rest, "\n") {
				continue // it would belong to the last CR
			}
			body := startUpload(t, client, s.url("/events"+kind.query), kind.media)
			body.write(fmt.Sprintf(kind.message, "first") + fmt.Sprintf(kind.message, "second") + rest)
			stream.Expect(t, "first")
			stream.Expect(t, "second")
			body.breakOff()
		}
	}
	stream.wantNothing(t)
}

func TestLastMessageNeedsNoLineEndIfTheBodyIsComplete(t *testing.T) {
	s := serveOnce(t, listenedRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := s.listen(t)
		for _, kind := range lineBodies {
			whole := fmt.Sprintf(kind.message, "first") + fmt.Sprintf(kind.message, "last")
			for cut := strings.TrimRight(whole, "\r\n"); len(cut) <= len(whole); cut = whole[:len(cut)+1] {
				answer := post(t, p.url("/events"+kind.query), kind.media, cut, p.via)
				if answer.Status != http.StatusOK || !strings.Contains(answer.Body, `"published":2,`) {
					t.Errorf("%q is answered %d %s", cut, answer.Status, answer.Body)
				}
				stream.Expect(t, "first")
				stream.Expect(t, "last")
				if len(cut) == len(whole) {
					break
				}
			}
		}
		stream.wantNothing(t)
	})
}

func TestMessageCutShortByABrokenConnectionIsNotPublished(t *testing.T) {
	s := serveOnce(t, listenedRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := s.listen(t)
		for _, kind := range lineBodies {
			whole := fmt.Sprintf(kind.message, "first") + fmt.Sprintf(kind.message, "last")
			body := startUpload(t, p.client, p.url("/events"+kind.query), kind.media)
			body.write(strings.TrimRight(whole, "\r\n"))
			stream.Expect(t, "first") // it stays published
			body.breakOff()
			<-body.done
			if event, err := stream.Next(200 * time.Millisecond); err == nil {
				t.Errorf("%s: %q was published", kind.media, event.Data)
			}
		}
		stream.wantNothing(t)
	})
}

// A plain socket shows when the server has noticed: it closes the connection, and says nothing.
func TestConnectionWithHalfABodyEndsWithoutAnAnswer(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	for _, kind := range lineBodies {
		first := fmt.Sprintf(kind.message, "first")
		partial := strings.TrimRight(fmt.Sprintf(kind.message, "last"), "\r\n")
		for _, body := range []string{
			fmt.Sprintf("Content-Length: 9999\r\n\r\n%s%s", first, partial),
			fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s%s\r\n", len(first+partial), first, partial),
			fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s%s\r\n0\r\n", len(first+partial), first, partial),
			fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\nfff\r\n%s%s", first, partial),
		} {
			conn := s.dial()
			fmt.Fprintf(conn, "POST /events%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n%s", kind.query, kind.media, body)
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			stream.Expect(t, "first")
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
				t.Errorf("the half body %q is answered %q, %v", body, got, err)
			}
		}
	}
	for _, media := range []string{"", jsonType, formType} { // and whole bodies are nothing by half
		conn := s.dial()
		fmt.Fprintf(conn, "POST /events?topic=a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: 5\r\n\r\nfour", media)
		_ = conn.CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
			t.Errorf("a half body is answered %q, %v", got, err)
		}
	}
	stream.wantNothing(t)
}

func TestEventStreamBodyIsReadAsBrowsersReadOne(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	body := "\xEF\xBB\xBF: comment\n\n" +
		"id: 5\nevent: update\nretry: 100\ndata: one\n\n" + // the id is dropped
		"data\n\n" + // empty data
		"data:two\ndata:  three\nfoo: bar\n\n" +
		"event: nothing\nid: 6\n\n" + // no data, no message
		"retry: 200\n\n" + // goes with the next message
		"data: four\r\rdata: five\r\n\r\n" +
		"retry: x\nretry: -1\nretry: 1.5\ndata: six\n\n" +
		"event: a\nevent: b\ndata: seven\n\n" +
		"Data: no field\n data: nor this\n\n" +
		"id: \x00\ndata: eight"
	answer := post(t, s.url("/events?topic=a&event=standard"), eventsType, body)
	if answer.Status != http.StatusOK || !strings.Contains(answer.Body, `"published":8,`) {
		t.Errorf("answered %d %s", answer.Status, answer.Body)
	}
	for _, want := range []eventstream.Event{
		{Name: "update", Data: []byte("one"), HasRetry: true, Retry: 100},
		{Name: "standard"},
		{Name: "standard", Data: []byte("two\n three")},
		{Name: "standard", Data: []byte("four"), HasRetry: true, Retry: 200},
		{Name: "standard", Data: []byte("five")},
		{Name: "standard", Data: []byte("six")},
		{Name: "b", Data: []byte("seven")},
		{Name: "standard", Data: []byte("eight")},
	} {
		event := stream.Expect(t, string(want.Data))
		if event.Name != want.Name || event.HasRetry != want.HasRetry || event.Retry != want.Retry || !strings.Contains(event.ID, "-") {
			t.Errorf("got %+v, want %+v", event, want)
		}
	}
	stream.wantNothing(t)
}

func TestNDJSONLinesAreData(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	lines := []string{`{"topic": "b"}`, "not JSON", "  spaces ", `"x"`, "\x00", "a\rb", "last"}
	body := "\n\r\n" + lines[0] + "\r\n" + lines[1] + "\n\n\n" + strings.Join(lines[2:], "\n")
	answer := post(t, s.url("/events?topic=a&event=e&retry=900"), ndjsonType, body)
	if answer.Status != http.StatusOK || !strings.Contains(answer.Body, `"published":7,`) {
		t.Errorf("answered %d %s", answer.Status, answer.Body)
	}
	for _, want := range lines {
		if event := stream.Expect(t, strings.ReplaceAll(want, "\r", "\n")); event.Name != "e" || event.Retry != 900 {
			t.Errorf("got %+v", event)
		}
	}
	stream.wantNothing(t)
}

func TestFailedLineIsAnsweredWithItsStatusAndWhatCameBefore(t *testing.T) {
	s := serveOnce(t, listenedRoute+`
		sse /strict {
			publish {
				open
				topics a b/*
				max_size 100
			}
		}`, withTLS)
	long := strings.Repeat("x", 101)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := s.listen(t)
		for _, c := range []struct {
			path, media, body string
			status, published int
			line              int
			word              string
		}{
			{"/events?topic=a", eventsType, "data: 1\n\ndata: 2\n\nevent: gap\ndata: 3\n\ndata: 4\n\n", 400, 2, 5, "reserved"},
			{"/events?topic=a", eventsType, ": c\n\ndata: \xff\n\n", 400, 0, 3, "UTF-8"},
			{"/events?topic=a", eventsType, "event: \x00\ndata: 1", 400, 0, 1, "event"},
			{"/events?topic=a", ndjsonType, "1\n2\n\n\xff\n4\n", 400, 2, 4, "UTF-8"},
			{"/events", ndjsonType, `{"topic":"a","data":1}` + "\n{", 400, 1, 2, "JSON"},
			{"/strict", ndjsonType, `{"topic":"b/1","data":1}` + "\n" + `{"topic":"b","data":2}` + "\n", 403, 1, 2, `"b"`},
			{"/strict", ndjsonType, `{"broadcast":true,"data":2}` + "\n", 403, 0, 1, "broadcast"},
			{"/strict?topic=a", ndjsonType, long + "\n", 413, 0, 1, "100"},
			{"/strict?topic=a", ndjsonType, long + long, 413, 0, 1, "100"},
			{"/strict", ndjsonType, `{"topic":"a","data":"` + long + `"}`, 413, 0, 1, "100"},
			{"/strict?topic=a", eventsType, "data: 1\n\n:\ndata: " + long + "\n\n", 413, 1, 3, "100"},
		} {
			r := wantRefusal(t, post(t, p.url(c.path), c.media, c.body, p.via), c.status, c.word)
			if r.Published == nil || *r.Published != c.published || r.Line == nil || *r.Line != c.line {
				t.Errorf("%q is answered %+v", c.body, r)
			}
			for i := range c.published {
				stream.Expect(t, fmt.Sprint(i+1))
			}
		}
		stream.wantNothing(t)
	})
}

func TestRateWithinABodyIsAnswered429AtItsLine(t *testing.T) {
	s := serveOnce(t, listenedRoute+`
		sse /slow {
			publish {
				open
				rate 0.1 3
			}
		}`)
	stream := s.listen(t)
	answer := post(t, s.url("/slow?topic=a"), ndjsonType, "1\n2\n3\n4\n5\n")
	r := wantRefusal(t, answer, http.StatusTooManyRequests)
	if r.Published == nil || *r.Published != 3 || r.Line == nil || *r.Line != 4 {
		t.Errorf("answered %+v", r)
	}
	if after := answer.Header.Get("Retry-After"); after != "10" && after != "9" {
		t.Errorf("Retry-After is %q", after)
	}
	for i := range 3 {
		stream.Expect(t, fmt.Sprint(i+1))
	}
	stream.wantNothing(t)
}

func TestManyLinesAtOnceKeepTheirOrder(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	var body strings.Builder
	const n = 5000
	for i := range n {
		fmt.Fprintf(&body, "%d\n", i)
	}
	answer := post(t, s.url("/events?topic=a"), ndjsonType, body.String())
	if answer.Status != http.StatusOK || !strings.Contains(answer.Body, fmt.Sprintf(`"published":%d,`, n)) {
		t.Fatal(answer.Body)
	}
	for i := range n {
		stream.Expect(t, fmt.Sprint(i))
	}
}
