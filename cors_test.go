package sse_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

const page = "https://app.example.com"

func corsSite(t *testing.T) *site {
	t.Helper()
	return serveOnce(t, `
		header Vary Accept
		sse /listed {
			cors_origins https://app.example.com http://localhost:3000
			max_clients_per_ip 1
			publish {
				token secret
			}
		}
		sse /any {
			cors_origins *
			publish {
				token secret
			}
		}
		sse /none {
			publish {
				token secret
			}
		}`, withTLS)
}

// corsOf returns the headers that decide what a page may do with an answer.
func corsOf(header http.Header) (origin, credentials string, varies bool) {
	return header.Get("Access-Control-Allow-Origin"), header.Get("Access-Control-Allow-Credentials"),
		slices.ContainsFunc(header.Values("Vary"), func(v string) bool { return strings.Contains(v, "Origin") })
}

func TestAnswersOfEveryKindCarryTheCORSHeaders(t *testing.T) {
	s := corsSite(t)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for _, c := range []struct{ path, origin, wantOrigin, wantCredentials string }{
			{"/listed", page, page, "true"},
			{"/listed", "http://localhost:3000", "http://localhost:3000", "true"},
			{"/listed", "https://evil.example", "", ""},
			{"/listed", "https://app.example.com.evil.example", "", ""},
			{"/listed", "https://APP.example.com", "", ""},
			{"/listed", "null", "", ""},
			{"/listed", "", "", ""},
			{"/any", page, "*", ""},
			{"/any", "null", "*", ""},
			{"/none", page, "", ""},
		} {
			with := []e2etest.Option{p.via}
			if c.origin != "" {
				with = append(with, e2etest.Header("Origin", c.origin))
			}
			stream := e2etest.Subscribe(t, p.url(c.path), with...)
			stream.Connected(t)
			answers := map[string]e2etest.Answer{
				"GET":      {Status: 200, Header: stream.Response.Header},
				"HEAD":     e2etest.Send(t, http.MethodHead, p.url(c.path), "", with...),
				"GET 400":  get(t, p.url(c.path+"?topic="), with...),
				"POST":     post(t, p.url(c.path+"?topic=a"), "", "x", append(with, bearer("secret"))...),
				"POST 400": post(t, p.url(c.path), "", "x", append(with, bearer("secret"))...),
				"POST 401": post(t, p.url(c.path+"?topic=a"), "", "x", with...),
				"405":      e2etest.Send(t, http.MethodPut, p.url(c.path), "", with...),
			}
			if c.path == "/listed" {
				answers["GET 429"] = get(t, p.url(c.path), with...)
			}
			stream.Close()
			for what, answer := range answers {
				if _, status, ok := strings.Cut(what, " "); ok && !strings.HasPrefix(http.StatusText(answer.Status), http.StatusText(map[string]int{"400": 400, "401": 401, "429": 429}[status])) {
					t.Errorf("%s %s is answered %d", what, c.path, answer.Status)
				}
				origin, credentials, varies := corsOf(answer.Header)
				if origin != c.wantOrigin || credentials != c.wantCredentials {
					t.Errorf("%s %s from %q: allowed are %q, credentials %q", what, c.path, c.origin, origin, credentials)
				}
				if listed := c.path == "/listed"; listed && !varies {
					t.Errorf("%s %s from %q: Vary is %q", what, c.path, c.origin, answer.Header.Values("Vary"))
				}
				exposed := answer.Header.Get("Access-Control-Expose-Headers")
				if (exposed == "Retry-After") != (c.wantOrigin != "") {
					t.Errorf("%s %s from %q: exposed are %q", what, c.path, c.origin, exposed)
				}
			}
			eventually(t, patience, "the client is gone", func() bool {
				return publish(t, p.url("/any?broadcast"), "", bearer("secret")).Receivers == 0.0
			})
		}
	})
}

func TestPreflightSaysWhatAPageMaySend(t *testing.T) {
	s := corsSite(t)
	eachProtocol(t, s, func(t *testing.T, p protocol) {
		for _, c := range []struct {
			path, origin string
			may          bool
		}{
			{"/listed", page, true}, {"/listed", "https://evil.example", false}, {"/any", "https://evil.example", true}, {"/none", page, false},
		} {
			answer := e2etest.Send(t, http.MethodOptions, p.url(c.path+"?topic=a"), "", p.via,
				e2etest.Header("Origin", c.origin),
				e2etest.Header("Access-Control-Request-Method", "POST"),
				e2etest.Header("Access-Control-Request-Headers", "authorization, content-type, idempotency-key"))
			if answer.Status != http.StatusNoContent || answer.Body != "" {
				t.Errorf("answered %d %q", answer.Status, answer.Body)
			}
			methods := answer.Header.Get("Access-Control-Allow-Methods")
			headers := strings.ToLower(answer.Header.Get("Access-Control-Allow-Headers"))
			if !c.may {
				if methods != "" || headers != "" || answer.Header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s from %s: allowed are %q, %q", c.path, c.origin, methods, headers)
				}
				continue
			}
			for _, name := range []string{"authorization", "content-type", "idempotency-key", "last-event-id", "cache-control"} {
				if !strings.Contains(headers, name) {
					t.Errorf("%s: the header %s is not allowed", c.path, name)
				}
			}
			if !strings.Contains(methods, "POST") || !strings.Contains(methods, "GET") || answer.Header.Get("Access-Control-Max-Age") == "" {
				t.Errorf("%s: the answer's headers are %v", c.path, answer.Header)
			}
		}
	})
}
