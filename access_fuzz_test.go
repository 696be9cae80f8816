package sse

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzTokensOf shows where tokens are taken from: the header first, then the cookies, then the query, and
// from nowhere else.
func FuzzTokensOf(f *testing.F) {
	for _, seed := range [][3]string{
		{"Bearer a", "session=b", "token=c"},
		{"bearer  a ", "", ""},
		{"Basic YTpi", `session="b"; session=d`, "token=c&token=d"},
		{"", "Session=b; session=", "token="},
		{"Bearer", "session", "%zz"},
		{"Bearer\ta", "session=a b", "token=a%20b;x"},
		{"BEARER a, Bearer b", "session=\x00", "token=%00"},
		{"", "a=1; session=b", "t%6Fken=c"},
		{"", strings.Repeat("session=b; ", 50), ""},
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
		tokens, byCookie := c.tokensOf(r)
		if slices.Contains(tokens, "") || len(tokens) > maxCookies {
			t.Errorf("tokens are %q", tokens)
		}
		header := ""
		if len(authorization) > 7 && strings.EqualFold(authorization[:7], "Bearer ") {
			header = strings.TrimSpace(authorization[7:])
		}
		switch {
		case header != "":
			if !slices.Equal(tokens, []string{header}) || byCookie {
				t.Errorf("from the header %q: %q, by cookie %t", authorization, tokens, byCookie)
			}
		case byCookie:
			for _, token := range tokens {
				if !strings.Contains(cookie, token) || !strings.Contains(cookie, "session=") {
					t.Errorf("from the cookie %q: %q", cookie, token)
				}
			}
		case len(tokens) > 0:
			values, _ := url.ParseQuery(query)
			if len(tokens) > 1 || !slices.Contains(values["token"], tokens[0]) {
				t.Errorf("from the query %q: %q", query, tokens)
			}
		}
		none := &JWTConfig{}
		if other, byCookie := none.tokensOf(r); len(other) > 0 && other[0] != header || byCookie {
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
		"https://[::1]:8080", "https://listed.example:443", "https://listed.example:80", "capacitor://example.com", "https://example.com%00.evil", "https:/example.com", "https:example.com",
	} {
		f.Add(seed, "example.com")
	}
	f.Add("http://[::1]:8080", "[::1]:8080")
	f.Add("http://127.0.0.1:8080", "127.0.0.1:8080")
	f.Fuzz(func(t *testing.T, origin, host string) {
		h := origins{"https://listed.example"}
		r := &http.Request{Header: http.Header{"Origin": {origin}}, Host: host}
		own := h.own(r)
		// What is let in begins with a scheme and ends with the very host, but for the scheme's own port.
		scheme, rest, _ := strings.Cut(origin, "://")
		port := map[string]string{"http": ":80", "https": ":443"}[strings.ToLower(scheme)]
		plain := func(host string) string { return strings.ToLower(strings.TrimSuffix(host, port)) }
		listed := strings.TrimSuffix(origin, ":443") == "https://listed.example"
		if own && !listed && (port == "" || plain(rest) != plain(host)) {
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

// FuzzURLRules shows that a parameter of ours, or of the route, is never taken for another, and that what is
// refused is said to be what.
func FuzzURLRules(f *testing.F) {
	for _, query := range []string{
		"topic=a", "topics=a", "topic[]=a", "channel=a", "room=a", "clientId=a", "&&&", "%zz", "tpoic", "=", "\xff=1", "%00=1", "lastEventId=1",
	} {
		f.Add(query, "/a")
	}
	for _, path := range []string{"", "/", "//", "/a/", "/a/../b", "/.", "/a/./b", "/...", "a"} {
		f.Add("", path)
	}
	rules := newURLRules("token", "a/{http.request.uri.query.room}", "{http.request.uri.path.1}")
	f.Fuzz(func(t *testing.T, query, path string) {
		r := (&http.Request{URL: &url.URL{Path: path, RawQuery: query}}).WithContext(t.Context())
		values, refusal := rules.read(r, getParameters)
		if refusal == nil {
			for _, segment := range strings.Split(path, "/")[1:] {
				if segment == "." || segment == ".." || segment == "" && path != "/" {
					t.Errorf("the path %q passes", path)
				}
			}
			for name := range values {
				if strings.EqualFold(name, "topic") && name != "topic" || name == "topics" {
					t.Errorf("%q passes", name)
				}
			}
			return
		}
		named, err := url.ParseQuery(query)
		for _, own := range append([]string{"room", "token"}, ownParameters...) {
			delete(named, own)
		}
		if err == nil && len(named) == 0 && isClean(path) {
			t.Errorf("%q %q is refused: %s", path, query, refusal.Detail)
		}
	})
}
