package sse

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzTokenOf shows where tokens are taken from: the header first, then the cookie, then the query, and
// from nowhere else.
func FuzzTokenOf(f *testing.F) {
	for _, seed := range [][3]string{
		{"Bearer a", "session=b", "token=c"},
		{"bearer  a ", "", ""},
		{"Basic YTpi", `session="b"; session=d`, "token=c&token=d"},
		{"", "Session=b; session=", "token="},
		{"Bearer", "session", "%zz"},
		{"Bearer\ta", "session=a b", "token=a%20b;x"},
		{"BEARER a, Bearer b", "session=\x00", "token=%00"},
		{"", "a=1; session=b", "t%6Fken=c"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	c := &JWTConfig{Cookie: "session", Query: "token"}
	f.Fuzz(func(t *testing.T, authorization, cookie, query string) {
		r := &http.Request{Header: http.Header{}, URL: &url.URL{RawQuery: query}}
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		if cookie != "" {
			r.Header.Set("Cookie", cookie)
		}
		token, byCookie := c.tokenOf(r)
		header := ""
		if len(authorization) > 7 && strings.EqualFold(authorization[:7], "Bearer ") {
			header = strings.TrimSpace(authorization[7:])
		}
		switch {
		case header != "":
			if token != header || byCookie {
				t.Errorf("from the header %q: %q, by cookie %t", authorization, token, byCookie)
			}
		case byCookie:
			if token == "" || !strings.Contains(cookie, token) || !strings.Contains(cookie, "session=") {
				t.Errorf("from the cookie %q: %q", cookie, token)
			}
		case token != "":
			values, _ := url.ParseQuery(query)
			if !slices.Contains(values["token"], token) {
				t.Errorf("from the query %q: %q", query, token)
			}
		}
		none := &JWTConfig{}
		if other, byCookie := none.tokenOf(r); other != header || byCookie {
			t.Errorf("without cookie and query configured: %q", other)
		}
	})
}

// FuzzOrigin shows that the site's own origin and those listed pass, in no other spelling than that of
// their host's letters.
func FuzzOrigin(f *testing.F) {
	for _, seed := range []string{
		"https://example.com", "https://EXAMPLE.com", "http://example.com", "https://example.com:443", "https://example.com.", "null", "",
		"*", "https://listed.example", "https://listed.example/", "https://listed.example@example.com", "//example.com", "https://example.com\\.evil",
		"https://example.com#", "https://example.com?", "javascript://example.com", "https://example.com https://evil.example", "https://\x00",
		"https://[::1]:8080", "https://example.com%00.evil", "https:/example.com", "https:example.com",
	} {
		f.Add(seed, "example.com")
	}
	f.Add("http://[::1]:8080", "[::1]:8080")
	f.Add("http://127.0.0.1:8080", "127.0.0.1:8080")
	f.Fuzz(func(t *testing.T, origin, host string) {
		h := origins{"https://listed.example"}
		r := &http.Request{Header: http.Header{"Origin": {origin}}, Host: host}
		own := h.own(r)
		// What is let in begins with a scheme and ends with the very host.
		_, rest, _ := strings.Cut(origin, "://")
		if own && origin != "https://listed.example" && (host == "" || !strings.EqualFold(rest, host)) {
			t.Errorf("on %q the origin %q passes for its own", host, origin)
		}
		if h.foreign(r) == (own || origin == "") {
			t.Errorf("%q is both own and foreign, or neither", origin)
		}
		any := origins{"*"}
		if any.foreign(r) || any.own(r) && origin == "*" {
			t.Errorf("with *, %q is foreign, or own", origin)
		}
		if isOrigin(origin) {
			u, err := url.Parse(origin)
			if err != nil || u.Scheme+"://"+u.Host != origin || strings.ContainsAny(origin, "*?#@\\ \x00") {
				t.Errorf("cors_origins may hold %q", origin)
			}
		}
	})
}
