package sse_test

import (
	"compress/gzip"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

var coded = e2etest.Header("Content-Encoding", "gzip")

func TestGzipBodiesAreDecoded(t *testing.T) {
	s := serveOnce(t, listenedRoute, withTLS)
	file, err := os.ReadFile("testdata/gzip.sse.gz")
	if err != nil {
		t.Fatal(err)
	}
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		stream := s.listen(t)
		answer := post(t, p.url("/events?topic=a"), eventsType, string(file), coded, p.via)
		if answer.Status != http.StatusOK || !strings.Contains(answer.Body, `"published":4,`) {
			t.Fatalf("answered %d %s", answer.Status, answer.Body)
		}
		for range 3 {
			if event := stream.next(t); !strings.Contains(string(event.Data), `"choices"`) {
				t.Errorf("got %q", event.Data)
			}
		}
		stream.Expect(t, "[DONE]")
		for _, coding := range []string{"gzip", "GZIP", "x-gzip"} {
			post(t, p.url("/events?topic=a"), "", e2etest.Gzip(t, coding), e2etest.Header("Content-Encoding", coding), p.via)
			stream.Expect(t, coding)
		}
		post(t, p.url("/events"), jsonType, e2etest.Gzip(t, "\xEF\xBB\xBF"+`{"topic":"a","data":"b"}`), coded, p.via)
		stream.Expect(t, "b")
		post(t, p.url("/events?topic=a"), "", "as it is", e2etest.Header("Content-Encoding", "identity"), p.via)
		stream.Expect(t, "as it is")
		for _, coding := range []string{"br", "zstd", "deflate", "gzip, gzip", "x"} {
			answer := post(t, p.url("/events?topic=a"), "", e2etest.Gzip(t, "x"), e2etest.Header("Content-Encoding", coding), p.via)
			wantRefusal(t, answer, http.StatusUnsupportedMediaType, coding, "gzip")
			if accepted := answer.Header.Get("Accept-Encoding"); accepted != "gzip" {
				t.Errorf("Accept-Encoding is %q", accepted)
			}
		}
		stream.wantNothing(t)
	})
}

// Messages in a gzip body are published as they arrive, if their publisher flushes.
func TestGzipBodiesArePublishedAsTheyArrive(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	for _, kind := range lineBodies {
		body := startUpload(t, e2etest.H1(t), s.url("/events"+kind.query), kind.media, "Content-Encoding", "gzip")
		w := gzip.NewWriter(body.body)
		for i := range 3 {
			text := fmt.Sprint("message ", i)
			if _, err := fmt.Fprintf(w, kind.message, text); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			stream.Expect(t, text)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if answer := body.end(); answer.Status != http.StatusOK || !strings.Contains(answer.Body, `"published":3,`) {
			t.Errorf("answered %d %s", answer.Status, answer.Body)
		}
	}
}

func TestAGzipBombIs413AndBadGzip400(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	bomb := e2etest.Gzip(t, strings.Repeat("x", 64<<20))
	for _, kind := range []struct{ query, media string }{
		{"?topic=a", ""}, {"?topic=a", ndjsonType}, {"", ndjsonType}, {"", jsonType}, {"?topic=a", eventsType},
	} {
		body := bomb
		if kind.media == eventsType {
			body = e2etest.Gzip(t, "data: "+strings.Repeat("x", 64<<20))
		}
		wantRefusal(t, post(t, s.url("/events"+kind.query), kind.media, body, coded), http.StatusRequestEntityTooLarge)
		for _, bad := range []string{"hello", bomb[:100]} {
			wantRefusal(t, post(t, s.url("/events"+kind.query), kind.media, bad, coded), http.StatusBadRequest, "gzip")
		}
	}
	stream.wantNothing(t)
	// A body of many messages may be larger than one of them.
	line := strings.Repeat("x", 256<<10)
	answer := post(t, s.url("/events?topic=a"), ndjsonType, e2etest.Gzip(t, strings.Repeat(line+"\n", 8)), coded)
	if answer.Status != http.StatusOK || !strings.Contains(answer.Body, `"published":8,`) {
		t.Errorf("answered %d %s", answer.Status, answer.Body)
	}
}

func TestAContentTypeMayHaveAParameterTwice(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	for _, parameters := range []string{"; charset=utf-8; charset=UTF-8", ";", "; x", "; charset"} {
		answer := post(t, s.url("/events?topic=a"), eventsType+parameters, "data: a\n\ndata: b\n\n")
		if answer.Status != http.StatusOK || !strings.Contains(answer.Body, `"published":2,`) {
			t.Errorf("answered %d %s", answer.Status, answer.Body)
		}
		stream.Expect(t, "a")
		stream.Expect(t, "b")
	}
	stream.wantNothing(t)
}

func TestAByteOrderMarkIsNoPartOfABody(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	const mark = "\xEF\xBB\xBF"
	for _, kind := range []struct{ query, media, body string }{
		{"?topic=a", "", "x"},
		{"?topic=a", ndjsonType, "x\n"},
		{"?topic=a", eventsType, "data: x\n\n"},
		{"", ndjsonType, `{"topic":"a","data":"x"}`},
		{"", jsonType, `{"topic":"a","data":"x"}`},
		{"", jsonType, `[{"topic":"a","data":"x"}]`},
		{"", formType, "topic=a&data=x"},
	} {
		if answer := post(t, s.url("/events"+kind.query), kind.media, mark+kind.body); answer.Status != http.StatusOK {
			t.Errorf("%+v is answered %s", kind, answer.Body)
		}
		stream.Expect(t, "x")
	}
	publish(t, s.url("/events?topic=a"), "x"+mark)
	stream.Expect(t, "x"+mark)
	stream.wantNothing(t)
}

// An answer of 200 tells of a message, or of a body in which there was nothing at all.
func TestABodyWithoutAMessageIs400(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	for _, body := range []string{"\n", ": comment\n\n", "hello", "event: a\n\n", "retry: 5000\n\n", "id: 1\n\n", `{"data":"x"}`, "Data: x\n\n"} {
		r := wantRefusal(t, post(t, s.url("/events?topic=a"), eventsType, body), http.StatusBadRequest, "no message", "data:")
		if r.Published == nil || *r.Published != 0 {
			t.Errorf("%q is answered %+v", body, r)
		}
	}
	for _, query := range []string{"?topic=a", ""} {
		wantRefusal(t, post(t, s.url("/events"+query), ndjsonType, "\n\r\n"), http.StatusBadRequest, "no message")
	}
	for _, body := range []string{"", "\xEF\xBB\xBF"} {
		for _, media := range []string{eventsType, ndjsonType} {
			if n := publish(t, s.url("/events?topic=a"), body, e2etest.Header("Content-Type", media)).Published; *n != 0 {
				t.Errorf("%d were published", *n)
			}
		}
	}
	stream.wantNothing(t)
}

func TestLinesOfBlanksAreDataInFormAOnly(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	post(t, s.url("/events?topic=a"), ndjsonType, "a\n \n\t\n\nb")
	for _, want := range []string{"a", " ", "\t", "b"} {
		stream.Expect(t, want)
	}
	body := startUpload(t, e2etest.H1(t), s.url("/events"), ndjsonType)
	body.write(` {"topic":"a","data":"c"}` + "\n \t\n") // what follows is no message to wait for
	stream.Expect(t, "c")
	body.write("\t\r\n" + `{"topic":"a","data":"d"}` + "\n   ")
	stream.Expect(t, "d")
	if answer := body.end(); !strings.Contains(answer.Body, `"published":2,`) {
		t.Errorf("answered %s", answer.Body)
	}
	stream.wantNothing(t)
}

func TestNamesWithinDataAreNoneOfOurs(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	const message = `{"topic":"a","data":{"b":1,"b":{"c":2,"c":3}}}`
	for media, body := range map[string]string{jsonType: message, ndjsonType: message + "\n"} {
		post(t, s.url("/events"), media, body)
		stream.Expect(t, `{"b":1,"b":{"c":2,"c":3}}`)
	}
	post(t, s.url("/events"), jsonType, "["+message+"]")
	stream.Expect(t, `{"b":1,"b":{"c":2,"c":3}}`)
}

func TestAnEventStreamsRetryIsBroughtWithinItsBounds(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	stream := s.listen(t)
	post(t, s.url("/events?topic=a"), eventsType, "retry: 0\ndata: a\n\nretry: 999999999\ndata: b\n\nretry: 5000\ndata: c\n\n")
	for _, c := range []struct {
		data string
		want int64
	}{{"a", 100}, {"b", 60_000}, {"c", 5000}} {
		if event := stream.Expect(t, c.data); event.Retry != c.want {
			t.Errorf("%s has a retry of %d, want %d", c.data, event.Retry, c.want)
		}
	}
}

func TestAnArrayHoldsAtMost10000Messages(t *testing.T) {
	s := serveOnce(t, openRoute)
	array := func(n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(`{"topic":"a","data":1},`, n), ",") + "]"
	}
	if answer := post(t, s.url("/events"), jsonType, array(10_000)); answer.Status != http.StatusOK {
		t.Errorf("answered %d %s", answer.Status, answer.Body)
	}
	wantRefusal(t, post(t, s.url("/events"), jsonType, array(10_001)), http.StatusRequestEntityTooLarge, "10000", "NDJSON")
}
