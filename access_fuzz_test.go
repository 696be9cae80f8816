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
