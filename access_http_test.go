package sse_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestTokensAreTakenFromTheHeaderTheCookieAndTheQuery(t *testing.T) {
	setSecrets(t)
	rsaFile, _ := writePublicKey(t, rsaKey().Public())
	key := ecKey(t)
	ecFile, _ := writePublicKey(t, key.Public())
	s := serve(t, `
		sse /events {
			jwt {
				`+hsKey+`
				key RS256 {file.`+rsaFile+`} rsa
				key ES256 {file.`+ecFile+`}
				cookie session
				query token
			}
			publish {
				token {env.SSE_TEST_PUBLISH}
			}
		}`, withTLS)
	const claims = `{"sse":{"subscribe":["news"]}}`
	hs := signed(claims)
	rs := compact(`{"alg":"RS256","kid":"rsa"}`, claims, withRSA(rsaKey()))
	es := compact(`{"alg":"ES256","kid":"whatever"}`, claims, withEC(key))
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		header := func(value string) []e2etest.Option { return With(e2etest.Header("Authorization", value)) }
		for name, c := range map[string]struct {
			query   string
			options []e2etest.Option
		}{
			"header":                            {"", header("Bearer " + hs)},
			"header, in small letters":          {"", header("bearer " + rs)},
			"header, with blanks":               {"", header("BEARER   " + es)},
			"cookie":                            {"", With(cookie(rs))},
			"cookie, quoted":                    {"", With(cookie(`"` + es + `"`))},
			"query":                             {"&token=" + hs, nil},
			"header, before a bad cookie":       {"&token=bad", append(header("Bearer "+hs), cookie("bad"))},
			"cookie, before a bad query":        {"&token=bad", With(cookie(hs))},
			"cookie, beside Basic":              {"", append(header("Basic YTpi"), cookie(hs))},
			"query, beside another cookie":      {"&token=" + es, With(e2etest.Header("Cookie", "other=bad"))},
			"query, beside an empty cookie":     {"&token=" + es, With(cookie(""))},
			"cookie, beside an empty header":    {"", append(header("Bearer "), cookie(hs))},
			"header, beside a foreign scheme's": {"&token=" + hs, header("Negotiate " + hs)},
		} {
			stream := e2etest.Subscribe(t, p.url("/events?topic=news"+c.query), append(c.options, p.via)...)
			stream.Connected(t)
			publish(t, p.url("/events?topic=news"), name, bearer(publishSecret), p.via)
			stream.Expect(t, name)
			stream.Close()
		}
	})
}

func TestPublicTopicsNeedNoToken(t *testing.T) {
	setSecrets(t)
	s := serve(t, `
		sse /events {
			jwt {
				`+hsKey+`
				public news status/* open/**
			}
			publish {
				token {env.SSE_TEST_PUBLISH}
			}
		}
		sse /fixed {
			topics news {query.topic}
			jwt {
				`+hsKey+`
				public news
			}
		}`)
	mallory := granting("mallory", list("other"), nil)
	for query, public := range map[string]bool{
		"topic=news": true, "topic=status/a": true, "topic=status/*": true, "topic=news&topic=status/a&topic=open/a/b": true,
		"topic=open/**": true, "topic=open/*/x": true, "topic=open/*/**": true, "topic=status/": true,
		"topic=status": false, "topic=status/a/b": false, "topic=status/**": false, "topic=open": false, "topic=*": false,
		"topic=news/1": false, "topic=New": false, "": false, "topic=news&topic=x": false,
	} {
		if !public {
			wantRefusal(t, refusedGet(t, s.url("/events?"+query)), http.StatusUnauthorized, "needs a token")
			continue
		}
		e2etest.Subscribe(t, s.url("/events?"+query)).Connected(t)
		e2etest.Subscribe(t, s.url("/events?"+query), bearer(mallory)).Connected(t)
	}
	e2etest.Subscribe(t, s.url("/fixed")).Connected(t)
	wantRefusal(t, refusedGet(t, s.url("/fixed?topic=other")), http.StatusUnauthorized, `"other" needs a token`)
	e2etest.Subscribe(t, s.url("/fixed?topic=other"), bearer(mallory)).Connected(t)
	e2etest.Subscribe(t, s.url("/events"), bearer(mallory)).Connected(t) // what is addressed to a user needs no grant
}

func TestPatternsNeedAGrantThatCoversAllTheyMatch(t *testing.T) {
	setSecrets(t)
	s := serve(t, jwtRoute)
	for grants, patterns := range map[string]string{ // those they cover stand before the bar
		"a/*":    "a/b a/* | a/** */b a a/b/c * ** */*",
		"a/**":   "a/b a/* a/** a/*/c a/b/** | a ** */b */**",
		"*":      "a * | ** */* a/b",
		"**":     "a * ** */** a/**",
		"*/b":    "a/b */b | a/* */* b",
		"a b/c":  "a b/c | b/* * b c",
		"a/* b*": "a/x b* | b bc b/x",
	} {
		token := granting("", strings.Fields(grants), nil)
		covered, others, _ := strings.Cut(patterns, "|")
		for pattern := range strings.FieldsSeq(covered) {
			e2etest.Subscribe(t, s.url("/events?topic="+url.QueryEscape(pattern)), bearer(token)).Connected(t)
		}
		for pattern := range strings.FieldsSeq(others) {
			wantRefusal(t, refusedGet(t, s.url("/events?topic="+url.QueryEscape(pattern)), bearer(token)), http.StatusForbidden, pattern)
		}
	}
}

// A route's own topics are granted to nobody by standing there.
func TestTopicsOfTheRouteNeedGrantsToo(t *testing.T) {
	setSecrets(t)
	s := serve(t, `
		sse /events {
			topics news orders/{query.order} logs/*
			jwt {
				`+hsKey+`
			}
		}`)
	wantRefusal(t, refusedGet(t, s.url("/events")), http.StatusUnauthorized, "needs a token")
	wantRefusal(t, refusedGet(t, s.url("/events"), bearer(granting("", list("news"), nil))), http.StatusForbidden, "logs/*")
	token := granting("", list("news", "logs/**", "orders/1"), nil)
	e2etest.Subscribe(t, s.url("/events"), bearer(token)).Connected(t)
	e2etest.Subscribe(t, s.url("/events?order=1"), bearer(token)).Connected(t)
	wantRefusal(t, refusedGet(t, s.url("/events?order=2"), bearer(token)), http.StatusForbidden, "orders/2")
}

func TestStreamEndsWithItsTokenAndGoesOnWithAFreshOne(t *testing.T) {
	setSecrets(t)
	s := serve(t, jwtRoute, withTLS)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		exp := time.Now().Truncate(time.Second).Add(5 * time.Second)
		stream := e2etest.Subscribe(t, p.url("/events?topic=a&client_id=x"), p.via, bearer(grantingUntil(exp, "alice", list("a"), nil)))
		stream.Connected(t)
		say := func(text string) { publish(t, p.url("/events?topic=a"), text, p.via, bearer(publishSecret)) }
		say("before")
		last := stream.Expect(t, "before")

		event, err := stream.Next(patience)
		if err != nil || event.Name != "expired" {
			t.Fatalf("the stream ends with %q: %v", event.Name, err)
		}
		if early, late := time.Until(exp), time.Since(exp); early > 0 || late > 5*time.Second {
			t.Errorf("it ended %v after the token", late)
		}
		if event.ID != "" && event.ID != last.ID {
			t.Errorf("the event expired has the ID %q", event.ID)
		}
		if _, err := stream.Next(patience); !errors.Is(err, io.EOF) {
			t.Errorf("after that: %v", err)
		}
		wantRefusal(t, refusedGet(t, p.url("/events?topic=a&client_id=x"), p.via, e2etest.LastEventID(stream.LastID()),
			bearer(grantingUntil(exp, "alice", list("a"), nil))), http.StatusUnauthorized, "expired")

		say("between")
		again := e2etest.Subscribe(t, p.url("/events?topic=a&client_id=x"), p.via, e2etest.LastEventID(stream.LastID()),
			bearer(granting("alice", list("a"), nil)))
		if resume := again.Connected(t).Resume; resume != "complete" {
			t.Errorf("resume is %q", resume)
		}
		say("after")
		again.Expect(t, "between")
		again.Expect(t, "after")
	})
}

// A token that runs out while its client catches up cuts the replay short, and what comes after is for
// when the client is back.
func TestExpiryDuringAReplayLosesNothing(t *testing.T) {
	setSecrets(t)
	s := serve(t, jwtRoute, globals("sse {\nhistory 10000 1h\n}\n"))
	const n = 2000
	text := strings.Repeat("x", 10_000)
	start := *publish(t, s.url("/events?topic=a"), "0", bearer(publishSecret)).ID
	publish(t, s.url("/events?topic=a"), strings.Repeat(text+"\n", n), bearer(publishSecret), e2etest.Header("Content-Type", "application/x-ndjson"))

	exp := time.Now().Truncate(time.Second).Add(5 * time.Second)
	conn := s.dial()
	_, err := fmt.Fprintf(conn, "GET /events?topic=a HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nLast-Event-ID: %s\r\nAuthorization: Bearer %s\r\n\r\n",
		s.port, start, grantingUntil(exp, "", list("a"), nil))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(exp.Add(2 * time.Second))) // with the replay stuck in its socket
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	decoder := eventstream.NewDecoder(response.Body, 1<<20)
	got, last, expired := 0, start, false
	for {
		event, err := decoder.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		expired = event.Name == "expired"
		if event.Name == "" {
			got, last = got+1, event.ID
		}
	}
	if !expired || got == 0 || got == n {
		t.Fatalf("the stream ends after %d messages, with the event expired: %t", got, expired)
	}
	again := e2etest.Subscribe(t, s.url("/events?topic=a"), e2etest.LastEventID(last), bearer(granting("", list("a"), nil)))
	if resume := again.Connected(t).Resume; resume != "complete" {
		t.Errorf("resume is %q", resume)
	}
	for ; got < n; got++ {
		again.Expect(t, text)
	}
	publish(t, s.url("/events?topic=a"), "end", bearer(publishSecret))
	again.Expect(t, "end")
}

func TestTokenWithoutExpiryOrWithAFarOneLasts(t *testing.T) {
	setSecrets(t)
	s := serve(t, jwtRoute)
	for _, exp := range []string{"", `"exp":99999999999,`, `"exp":1e15,`, `"exp":4611686018427387000,`} {
		stream := e2etest.Subscribe(t, s.url("/events?topic=a"), bearer(signed(`{`+exp+`"sse":{"subscribe":["a"]}}`)))
		stream.Connected(t)
		publish(t, s.url("/events?topic=a"), "lasts", bearer(publishSecret))
		stream.Expect(t, "lasts")
	}
}

func TestAcceptedTokensAreNotLogged(t *testing.T) {
	setSecrets(t)
	s := serveLogged(t, `
		sse /events {
			max_clients_per_ip 3
			jwt {
				`+hsKey+`
				cookie session
				query token
			}
			publish {
				token {env.SSE_TEST_PUBLISH}
				rate 1000 1
			}
		}`)
	token := granting("alice", list("**"), list("**", "@broadcast"))
	var streams []*e2etest.Stream
	for _, options := range [][]e2etest.Option{With(bearer(token)), With(cookie(token)), nil} {
		query := "?topic=a"
		if options == nil {
			query += "&token=" + token
		}
		stream := e2etest.Subscribe(t, s.url("/events"+query), options...)
		stream.Connected(t)
		streams = append(streams, stream)
	}
	wantRefusal(t, refusedGet(t, s.url("/events?topic=a&token="+token), cookie(token)), http.StatusTooManyRequests)
	publish(t, s.url("/events?topic=a&token="+token), "the-payload", bearer(token), e2etest.Header("Idempotency-Key", "the-key"))
	for _, stream := range streams {
		stream.Expect(t, "the-payload")
		stream.Close()
	}
	post(t, s.url("/events?topic=a&token="+token), "application/json", "[the-payload", bearer(token))
	post(t, s.url("/events"), "application/json", `[{"topic":"a","data":"the-payload"},{"topic":"b","data":"the-payload"}]`, bearer(token)) // over the burst
	if err := s.load(); err != nil {                                                                                                        // reloads log, too
		t.Fatal(err)
	}
	s.wantNowhere(token, tokenSecret, publishSecret, "the-payload", "the-key")
}
