package sse_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// A model goes on as long as somebody listens, and is told with what came until then when nobody has for long.
func TestUnheardBodyEndsWith410AndWhatWasPublished(t *testing.T) {
	s := serveOnce(t, listenedRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for _, kind := range lineBodies[:3] {
			stream := s.listen(t)
			query := "?unheard=500ms"
			if kind.query != "" {
				query = kind.query + "&unheard=500ms"
			}
			body := startUpload(t, p.client, p.url("/events"+query), kind.media)
			began := time.Now()
			for n := 1; time.Since(began) < 1500*time.Millisecond; n++ { // much longer than 500ms
				body.write(fmt.Sprintf(kind.message, fmt.Sprint(n)))
				stream.Expect(t, fmt.Sprint(n))
				time.Sleep(300 * time.Millisecond)
			}
			body.write(fmt.Sprintf(kind.message, "last"))
			stream.Expect(t, "last")
			select {
			case <-body.done:
				t.Fatalf("while somebody listens the body is answered %+v, %v", body.answer, body.err)
			case <-time.After(time.Second): // in which nothing is published
			}
			stream.leave(t)
			r := wantRefusal(t, body.wait(soon), http.StatusGone, "500ms")
			if r.Published == nil || *r.Published < 4 || r.Line != nil {
				t.Errorf("answered %+v", r)
			}
		}
	})
}

// Who is told to stop may be in the middle of a sentence: the answer must reach it all the same.
func TestEndlessBodyThatNobodyHearsGetsItsAnswer(t *testing.T) {
	s := serveOnce(t, listenedRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for range 5 {
			body := startUpload(t, p.client, p.url("/events?topic=nobody&unheard=200ms"), ndjsonType)
			go func() {
				var err error
				for err == nil {
					_, err = io.WriteString(body.body, "more and more and more\n")
				}
			}()
			wantRefusal(t, body.wait(soon), http.StatusGone)
		}
	})
}

func TestBodyThatEndsInTimeIsNotGone(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	for _, kind := range lineBodies {
		query := "?unheard=1h"
		if kind.query != "" {
			query = kind.query + "&unheard=1h"
		}
		answer := post(t, s.url("/events"+query), kind.media, fmt.Sprintf(kind.message, "x"))
		if answer.Status != http.StatusOK {
			t.Errorf("answered %d %s", answer.Status, answer.Body)
		}
	}
}

func TestUnheardNeedsATimeAndABodyOfLines(t *testing.T) {
	s := serveOnce(t, listenedRoute)
	for _, value := range []string{"", "soon", "30", "-30s", "0s", "99ms", "25h", "30s&unheard=30s"} {
		wantRefusal(t, post(t, s.url("/events?topic=a&unheard="+value), eventsType, "data: x\n\n"),
			http.StatusBadRequest, "unheard")
	}
	for _, media := range []string{"", jsonType, formType} {
		wantRefusal(t, post(t, s.url("/events?topic=a&unheard=30s"), media, "x"), http.StatusBadRequest, "unheard", ndjsonType)
	}
	for _, name := range []string{"unherd", "Unheard", "unhearrd"} {
		wantRefusal(t, post(t, s.url("/events?topic=a&"+name+"=30s"), eventsType, "data: x\n\n"),
			http.StatusBadRequest, "write unheard")
	}
}

// A client of another instance hears it as well.
func TestBodyIsHeardOnOtherInstances(t *testing.T) {
	redis := e2etest.RedisServer(t)
	config := `{
		sse {
			broker redis ` + redis.URL() + `
		}
	}
	http://127.0.0.1:{{port}} {
		sse /events {
			publish {
				open
			}
		}
	}`
	here, there := e2etest.Start(t, config), e2etest.Start(t, config)
	for _, pattern := range []string{"answer/7", "answer/*"} {
		stream := e2etest.Subscribe(t, there.URL("/events?topic="+pattern))
		stream.Connected(t)
		body := startUpload(t, e2etest.H1(t), here.URL("/events?topic=answer/7&unheard=1500ms"), eventsType)
		body.write("data: hello\n\n")
		stream.Expect(t, "hello")
		select {
		case <-body.done:
			t.Fatalf("while somebody listens elsewhere the body is answered %+v, %v", body.answer, body.err)
		case <-time.After(4 * time.Second):
		}
		stream.Close()
		r := wantRefusal(t, body.wait(soon), http.StatusGone)
		if r.Published == nil || *r.Published != 1 {
			t.Errorf("answered %+v", r)
		}
	}
}
