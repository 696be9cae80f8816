// Package origin tells which pages may use a route: by the Origin header that browsers send, and by the headers of
// CORS (Fetch, section 3.3). It knows nothing of what the route is for.
package origin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// List are the origins whose pages may use a route with credentials; "*" is any origin without them.
type List []string

// SetHeaders lets pages of these origins read the answer, an error, too, and of its headers those that are exposed.
func (l List) SetHeaders(w http.ResponseWriter, r *http.Request, exposed string) {
	if len(l) == 0 {
		return
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	switch {
	case origin == "":
		return
	case l.lists(origin):
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Allow-Credentials", "true")
	case l[0] == "*":
		header.Set("Access-Control-Allow-Origin", "*")
	default:
		return
	}
	header.Set("Access-Control-Expose-Headers", exposed)
}

// Preflight answers OPTIONS: it says what a page may send, if [List.SetHeaders] lets it send anything.
func Preflight(w http.ResponseWriter, r *http.Request, methods, headers string) {
	header := w.Header()
	header.Set("Allow", methods)
	if header.Get("Access-Control-Allow-Origin") != "" && r.Header.Get("Access-Control-Request-Method") != "" {
		header.Set("Access-Control-Allow-Methods", methods)
		header.Set("Access-Control-Allow-Headers", headers)
		header.Set("Access-Control-Max-Age", "86400")
	}
	w.WriteHeader(http.StatusNoContent)
}

// LibraryHeaders are what libraries add to every request of a page, such as htmx and those that trace.
const LibraryHeaders = "X-Requested-With, X-Request-Id, X-Correlation-Id, " +
	"HX-Boosted, HX-Current-URL, HX-History-Restore-Request, HX-Prompt, HX-Request, HX-Target, HX-Trigger, " +
	"HX-Trigger-Name, traceparent, tracestate, baggage, sentry-trace, b3, X-B3-TraceId, X-B3-SpanId, " +
	"X-B3-ParentSpanId, X-B3-Sampled, X-B3-Flags, X-Datadog-Trace-Id, X-Datadog-Parent-Id, X-Datadog-Origin, " +
	"X-Datadog-Sampling-Priority, Request-Id, Request-Context, newrelic, uber-trace-id"

// Any reports whether any origin is listed.
func (l List) Any() bool { return slices.Contains(l, "*") }

// Own reports whether the request comes from a page of this site, or of a listed origin, as the browser says.
func (l List) Own(r *http.Request) bool { return l.Allows(r, r.Header.Get("Origin")) }

// Allows reports whether an origin is this site's, for which the request is, or a listed one. Behind a proxy that
// ends TLS, the site's own scheme is not known here.
func (l List) Allows(r *http.Request, origin string) bool {
	if l.lists(origin) {
		return true
	}
	scheme, host, _ := strings.Cut(origin, "://")
	secure := strings.EqualFold(scheme, "https")
	if host == "" || !secure && (r.TLS != nil || !strings.EqualFold(scheme, "http")) {
		return false
	}
	return strings.EqualFold(withoutDefaultPort(scheme, host), withoutDefaultPort(scheme, r.Host))
}

// lists reports whether an origin is listed by name.
func (l List) lists(origin string) bool {
	return origin != "*" && slices.ContainsFunc(l, func(listed string) bool {
		return listed == origin || sameButForPort(listed, origin)
	})
}

// sameButForPort reports whether two origins are one, of which one or both name the port that their scheme has
// anyway.
func sameButForPort(a, b string) bool {
	scheme, hostA, _ := strings.Cut(a, "://")
	hostB, ok := strings.CutPrefix(b, scheme+"://")
	return ok && withoutDefaultPort(scheme, hostA) == withoutDefaultPort(scheme, hostB)
}

// withoutDefaultPort returns a host without the port that its scheme has anyway.
func withoutDefaultPort(scheme, host string) string {
	switch strings.ToLower(scheme) {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
}

// Foreign reports whether the request comes from a page of another site, which may not make it. A request
// without an Origin does not come from a page.
func (l List) Foreign(r *http.Request) bool {
	return r.Header.Get("Origin") != "" && !l.Own(r) && !l.Any()
}

// Check refuses what can't stand in a [List].
func Check(origin string) error {
	if origin != "*" && !IsOrigin(origin) {
		return fmt.Errorf("%q is not an origin as browsers send it, such as https://app.example.com "+
			"(no wildcard, nothing behind it), nor *", origin)
	}
	return nil
}

// webviews are the schemes of pages that come with an app, or an extension, and from no server.
var webviews = []string{"capacitor", "ionic", "tauri", "chrome-extension"}

// IsOrigin reports whether a browser could send this as an Origin, but for a default port. Anything else would
// never equal one.
func IsOrigin(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Hostname() == "" || u.Scheme+"://"+u.Host != origin ||
		strings.ContainsFunc(origin, notOriginRune) {
		return false
	}
	if u.Port() == "" {
		known := u.Scheme == "http" || u.Scheme == "https" || slices.Contains(webviews, u.Scheme)
		return known && !strings.HasSuffix(origin, ":")
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	canonical := err == nil && strconv.FormatUint(port, 10) == u.Port()
	return canonical && (u.Scheme == "http" || u.Scheme == "https")
}

func notOriginRune(r rune) bool {
	return r == '*' || r > unicode.MaxASCII || unicode.IsUpper(r)
}
