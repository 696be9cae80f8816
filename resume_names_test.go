package sse_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// bound are options of a route whose answers are those of the user in a header.
const bound = `
	bind   {header.X-User}
	key    {header.Idempotency-Key}
	name   json id
	lookup /chat/*/stream`

func TestKeysAttachAndNamesFindTheNewestAnswer(t *testing.T) {
	goOn := make(chan struct{})
	m := newModel(t, func(w http.ResponseWriter, _ *http.Request, say func(string)) {
		<-goOn
		eventStream(w)
		say("data: one\n\n")
		<-goOn
	})
	s := serve(t, m.before(bound))
	const question = `{"id":"run","ask":"why"}`
	answered := make(chan *http.Response)
	post := func() {
		answered <- ask(t, http.MethodPost, s.url("/chat"), question, "X-User", "alice", "Idempotency-Key", "k")
	}
	go post()
	eventually(t, patience, "the upstream is asked", func() bool { return m.calls.Load() == 1 })
	go post() // the same key waits for the same answer
	named := func(user string, method string) *http.Response {
		return ask(t, method, s.url("/chat/run/stream"), "", "X-User", user)
	}
	go func() { answered <- named("alice", http.MethodGet) }()
	goOn <- struct{}{}
	var id string
	for range 3 {
		answer := <-answered
		if id == "" {
			id = idOf(t, answer)
		}
		wantText(t, idOf(t, answer), id)
		wantText(t, until(t, bufio.NewReader(answer.Body), "one"), "id: "+id+".1\ndata: one\n")
	}
	if other := named("bob", http.MethodGet); other.StatusCode != http.StatusNoContent {
		t.Errorf("another one's name is answered %s", other.Status)
	}
	wantRefusal(t, get(t, s.url("/chat?sse_stream="+id), e2etest.Header("X-User", "bob")), http.StatusNotFound)
	reused := ask(t, http.MethodPost, s.url("/chat"), "another", "X-User", "alice", "Idempotency-Key", "k")
	if reused.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a key with another body is answered %s", reused.Status)
	}
	named("bob", http.MethodDelete)
	status := ask(t, http.MethodGet, s.url("/chat/run/stream?sse_status"), "", "X-User", "alice")
	wantText(t, all(t, status), `{"state":"live","events":1,"bytes":11}`+"\n")
	named("alice", http.MethodDelete)
	eventually(t, patience, "the upstream is cancelled", func() bool {
		status := ask(t, http.MethodGet, s.url("/chat/run/stream?sse_status"), "", "X-User", "alice")
		return strings.Contains(all(t, status), "stopped")
	})
	if over := named("alice", http.MethodGet); over.StatusCode != http.StatusNoContent {
		t.Errorf("the name of what is over is answered %s", over.Status)
	}
	again := ask(t, http.MethodPost, s.url("/chat"), question, "X-User", "alice", "Idempotency-Key", "k")
	wantText(t, all(t, again), events(id, 1, "one"))
	if n := m.calls.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
	close(goOn)
}

func TestNamesInBodiesThatAreNoNames(t *testing.T) {
	m := newModel(t, func(w http.ResponseWriter, r *http.Request, say func(string)) {
		eventStream(w)
		say("data: one\n\n")
		<-r.Context().Done()
	})
	s := serve(t, m.before(bound+"\nmax_body 1KiB"))
	for name, body := range map[string]string{
		"missing":  `{"ask":"why"}`,
		"nested":   `{"id":{"id":"run"}}`,
		"repeated": `{"id":"run","id":"run"}`,
		"no JSON":  `id=run`,
		"broken":   `{"id":"run"`,
		"a number": `{"id":7}`,
		"empty":    ``,
	} {
		answer := ask(t, http.MethodPost, s.url("/chat"), body, "X-User", "alice")
		id := idOf(t, answer)
		if found := ask(t, http.MethodGet, s.url("/chat/run/stream"), "", "X-User", "alice"); found.StatusCode != 204 {
			t.Errorf("%s: it has a name", name)
		}
		ask(t, http.MethodDelete, s.url("/chat?sse_stream="+id), "", "X-User", "alice")
	}
	long := strings.Repeat("x", 900)
	answer := ask(t, http.MethodPost, s.url("/chat"), `{"id":"`+long+`"}`, "X-User", "alice", "Idempotency-Key", long)
	found := ask(t, http.MethodGet, s.url("/chat/"+long+"/stream"), "", "X-User", "alice")
	wantText(t, idOf(t, found), idOf(t, answer))
	found.Body.Close()
	ask(t, http.MethodDelete, s.url("/chat/"+long+"/stream"), "", "X-User", "alice")
	large := ask(t, http.MethodPost, s.url("/chat"), `{"id":"`+long+long+`"}`, "X-User", "alice")
	if at := large.Header.Get("Content-Location"); at != "" {
		t.Errorf("a request with a large body is kept at %s", at)
	}
	large.Body.Close()
	nobody := ask(t, http.MethodPost, s.url("/chat"), `{"id":"run"}`) // whose bind is empty
	id := idOf(t, nobody)
	if found := ask(t, http.MethodGet, s.url("/chat/run/stream"), "", "Accept", "text/event-stream"); idOf(t, found) == id {
		t.Error("a name of nobody's is found")
	}
}

func TestZippedStreamsAreReadAndOtherAnswersStayZipped(t *testing.T) {
	m := newModel(t, func(w http.ResponseWriter, r *http.Request, _ func(string)) {
		wantText(t, r.Header.Get("Accept-Encoding"), "gzip")
		if eventStream(w); r.URL.Path == "/json" {
			w.Header().Set("Content-Type", "application/json")
		}
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		for n := range 3 {
			fmt.Fprintf(zip, "data: %d\n\n", n)
			_ = zip.Flush()
			_ = http.NewResponseController(w).Flush()
		}
		if r.URL.Path != "/cut" {
			_ = zip.Close()
		}
	})
	s := serve(t, m.before(""))
	answer := ask(t, http.MethodPost, s.url("/chat"), "why", "Accept-Encoding", "br, gzip;q=0.5")
	wantText(t, answer.Header.Get("Content-Encoding"), "")
	wantText(t, all(t, answer), events(idOf(t, answer), 1, "0", "1", "2"))
	answer = ask(t, http.MethodPost, s.url("/cut"), "why", "Accept-Encoding", "gzip")
	if got := all(t, answer); !strings.Contains(got, `"code":"upstream"`) {
		t.Errorf("of what lacks its end there is %q", got)
	}
	answer = ask(t, http.MethodPost, s.url("/json"), "why", "Accept-Encoding", "gzip")
	wantText(t, answer.Header.Get("Content-Encoding"), "gzip")
	zip, err := gzip.NewReader(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := bufio.NewReader(zip).ReadString('2')
	if wantText(t, got, "data: 0\n\ndata: 1\n\ndata: 2"); err != nil {
		t.Error(err)
	}
}

func TestZippedStreamsMayBeCutAnywhere(t *testing.T) {
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(zip, "data: a\n\n")
	_ = zip.Flush()
	_, _ = io.WriteString(zip, "data: b\n\n")
	_ = zip.Close()
	m := newModel(t, func(w http.ResponseWriter, r *http.Request, say func(string)) {
		eventStream(w)
		w.Header().Set("Content-Encoding", "gzip")
		at, _ := strconv.Atoi(r.URL.Query().Get("at"))
		say(zipped.String()[:at])
		if r.URL.Path == "/goes-on" {
			say(zipped.String()[at:])
		}
	})
	s := serve(t, m.before(""))
	for at := range zipped.Len() {
		answer := ask(t, http.MethodPost, s.url(fmt.Sprint("/goes-on?at=", at)), "why", "Accept-Encoding", "gzip")
		wantText(t, all(t, answer), events(idOf(t, answer), 1, "a", "b"))
		answer = ask(t, http.MethodPost, s.url(fmt.Sprint("/ends?at=", at)), "why", "Accept-Encoding", "gzip")
		if got := all(t, answer); strings.Count(got, `"code":"upstream"`) != 1 {
			t.Errorf("of what lacks its end from byte %d on there is %q", at, got)
		}
	}
}

func TestHandlersBehindSeeTheRequestAsItWas(t *testing.T) {
	m := newModel(t, func(w http.ResponseWriter, r *http.Request, say func(string)) {
		eventStream(w)
		say(fmt.Sprintf("data: %s %s %s\n\n", r.URL.Path, r.Header.Get("X-Var"), r.Header.Get("X-Original")))
	})
	s := serve(t, fmt.Sprintf(`
		vars who {header.X-User}
		map {path} {my.mapped} {
			default mapped
		}
		sse_resume
		handle_path /api/* {
			reverse_proxy %s {
				header_up X-Var {vars.who}-{my.mapped}
				header_up X-Original {http.request.orig_uri.path}
				header_down X-Status {rp.status_code}
			}
		}
		handle {
			respond "none of it"
		}`, m.Listener.Addr()))
	answer := ask(t, http.MethodPost, s.url("/api/chat"), "why", "X-User", "alice")
	wantText(t, answer.Header.Get("X-Status"), "200")
	wantText(t, all(t, answer), events(idOf(t, answer), 1, "/chat alice-mapped /api/chat"))
	wantText(t, all(t, ask(t, http.MethodPost, s.url("/other"), "why")), "none of it")
}

func TestErrorsOfHandlersBehindAreHandledAsWithout(t *testing.T) {
	s := serve(t, fmt.Sprintf(`
		sse_resume
		reverse_proxy 127.0.0.1:%d
		handle_errors {
			respond "handled {err.status_code}" 503
		}`, e2etest.FreePort(t)))
	answer := ask(t, http.MethodPost, s.url("/chat"), "why")
	if answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("answered %s", answer.Status)
	}
	wantText(t, all(t, answer), "handled 502")
}

func TestResumeOptionsThatMakeNoSense(t *testing.T) {
	for options, words := range map[string]string{
		"key {header.Idempotency-Key}":         "bind",
		"name json id":                         "bind",
		"bind none\nkey same":                  "same for all",
		"bind none\nname":                      "write: name",
		"bind none\nname json":                 "write: name",
		"lookup /chat/*":                       "no names",
		"bind none\nname json id\nlookup chat": "neither a path",
		"bind none\nname json id\nlookup /*/*": "more than one",
		"bind none\nname json id\nlookup /a*":  "whole segment",
		"on_abandon 5s":                        "cancel <duration> | finish",
		"on_abandon cancel never":              "not a duration",
		"ttl 0":                                "more than 0",
		"max_live 0":                           "1 or more",
		"max_bytes none":                       "not a size",
		"ids keep":                             "not replace",
		"hub other":                            "not defined",
		"resume on":                            "unknown option",
	} {
		_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(
			[]byte(":8080 {\nsse_resume {\n"+options+"\n}\n}"), nil)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v; want %q in it", options, err, words)
		}
	}
}

func TestResumeOptionsAreTheSameInJSON(t *testing.T) {
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(`:8080 {
		sse_resume /chat {
			hub default
			`+bound+`
			ids replace
			on_abandon finish
			ttl 1m
			max_time 2m
			max_bytes 1MiB
			max_total 2MiB
			max_live 5
			max_body 1KiB
			heartbeat off
		}
	}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	const want = `"handler":"sse_resume","heartbeat":-1,"hub":"default","ids":"replace",` +
		`"key":"{http.request.header.Idempotency-Key}","lookup":"/chat/*/stream","max_body":1024,` +
		`"max_bytes":1048576,"max_live":5,"max_time":120000000000,"max_total":2097152,"name":"json id",` +
		`"on_abandon":-1,"ttl":60000000000`
	if !strings.Contains(string(adapted), want) {
		t.Errorf("adapted to %s\nwant %s in it", adapted, want)
	}
}
