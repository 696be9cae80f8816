package origin

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

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
		h := List{"https://listed.example"}
		r := &http.Request{Header: http.Header{"Origin": {origin}}, Host: host}
		own := h.Own(r)
		// What is let in begins with a scheme and ends with the very host, but for the scheme's own port.
		scheme, rest, _ := strings.Cut(origin, "://")
		port := map[string]string{"http": ":80", "https": ":443"}[strings.ToLower(scheme)]
		plain := func(host string) string { return strings.ToLower(strings.TrimSuffix(host, port)) }
		listed := strings.TrimSuffix(origin, ":443") == "https://listed.example"
		if own && !listed && (port == "" || plain(rest) != plain(host)) {
			t.Errorf("on %q the origin %q passes for its own", host, origin)
		}
		if h.Foreign(r) == (own || origin == "") {
			t.Errorf("%q is both own and foreign, or neither", origin)
		}
		any := List{"*"}
		if any.Foreign(r) || any.Own(r) && origin == "*" {
			t.Errorf("with *, %q is foreign, or own", origin)
		}
		if IsOrigin(origin) {
			u, err := url.Parse(origin)
			if err != nil || u.Scheme+"://"+u.Host != origin || strings.ContainsAny(origin, "*?#@\\ \x00") {
				t.Errorf("cors_origins may hold %q", origin)
			}
		}
	})
}
