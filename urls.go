package sse

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// The parameters of a query that mean something here.
var (
	getParameters = []string{
		"topic", "client_id", "last_event_id", "lastEventId", "lastEventID", "since", "format", "limit", "wait", "presence",
	}
	postParameters = []string{
		"topic", "client_id", "user", "broadcast", "event", "key", "retry", "ephemeral", "unheard",
	}
)

// purgeParameters mean something to a DELETE.
var purgeParameters = []string{"topic", "client_id", "user", "key"}

// plainWords are those of ours that other words, which are somebody else's, are nearer to than others.
var plainWords = []string{"since", "format", "limit"}

// ownParameters are all of them.
var ownParameters = slices.Concat(postParameters, getParameters[2:])

// otherWords are parameters that other servers have for one of ours.
var otherWords = map[string]string{"channel": "topic", "channels": "topic"}

// urlRules say what the URLs of a route's requests may be.
type urlRules struct {
	// named are the parameters that the route's own config names. What they mean is the route's business.
	named []string
	// cleanPath says that something may be taken from the path: topics, client_id or user.
	cleanPath bool
}

// newURLRules makes the rules of a route. The values are those of its options that may have placeholders.
func newURLRules(tokenParameter string, values ...string) urlRules {
	rules := urlRules{named: []string{tokenParameter}}
	for _, value := range values {
		rules.name(value)
		rules.cleanPath = rules.cleanPath || slices.ContainsFunc(option.Placeholders(value), mayComeFromPath)
	}
	return rules
}

// name adds the parameters that an option takes from the query.
func (u *urlRules) name(value string) {
	for _, key := range option.Placeholders(value) {
		if name, ok := strings.CutPrefix(key, "http.request.uri.query."); ok {
			u.named = append(u.named, name)
		}
	}
}

// notFromPath are placeholders that hold nothing of a path. Others may: those of regular expressions and of
// vars and map, for example.
var notFromPath = []string{
	"http.request.uri.query", "http.request.orig_uri.query", "http.request.header.", "http.request.cookie.",
	"http.request.host", "http.request.remote", "http.request.tls.", "http.auth.", "http.reverse_proxy.",
	"env.", "file.", "system.", "time.",
}

func mayComeFromPath(key string) bool {
	return !slices.ContainsFunc(notFromPath, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// read returns the parameters of a request whose URL is in order. A parameter that is nearly one of ours is
// refused, since the request would mean something else without it. All others are somebody else's.
func (u urlRules) read(r *http.Request, ours []string) (url.Values, *problem.Problem) {
	if u.cleanPath && !hasCleanPath(r) {
		return nil, problem.New(http.StatusBadRequest,
			"the path has an empty segment, . or .., and a guard in front may have read it otherwise; leave them out")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "the query can't be read: %v", err)
	}
	for name := range query {
		if slices.Contains(ownParameters, name) || slices.Contains(u.named, name) {
			continue
		}
		if meant := nearest(name, ours); meant != "" {
			return nil, problem.New(http.StatusBadRequest,
				"the parameter %s in the URL means nothing here; write %s", printable(name), meant)
		}
	}
	return query, nil
}

// printable quotes the name of a parameter, unless that is a plain word.
func printable(name string) string {
	if plainWord.MatchString(name) {
		return name
	}
	return fmt.Sprintf("%q", name)
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_.\[\]-]+$`)

// hasCleanPath reports whether the path of a request, as it came and as it was rewritten, has no segment that
// is empty, "." or "..". Its encoding does not matter.
func hasCleanPath(r *http.Request) bool {
	original, rewritten := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	return isClean(r.URL.Path) && (!rewritten || isClean(original.URL.Path))
}

func isClean(path string) bool {
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if segment == "." || segment == ".." || segment == "" && len(path) > 1 {
			return false
		}
	}
	return true
}

// nearest returns which of our parameters a name is meant to be; "" if none.
func nearest(name string, ours []string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "[]"))
	if word, ok := otherWords[name]; ok && slices.Contains(ours, word) {
		return word
	}
	for _, own := range ours {
		slips := 2
		if len(own) <= 4 || slices.Contains(plainWords, own) {
			slips = 1 // most short words are near to each other
		}
		if near(name, strings.ToLower(own), slips) {
			return own
		}
	}
	return ""
}

// near reports whether one word becomes the other by so many slips: a letter more, a letter less, another
// letter, or two that have changed places.
func near(a, b string, slips int) bool {
	for a != "" && b != "" && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	switch {
	case len(a)+len(b) == 0:
		return true
	case slips == 0 || len(a)-len(b) > slips || len(b)-len(a) > slips:
		return false
	case a == "" || b == "":
		return true
	}
	swapped := len(a) > 1 && len(b) > 1 && a[0] == b[1] && a[1] == b[0]
	return near(a[1:], b, slips-1) || near(a, b[1:], slips-1) || near(a[1:], b[1:], slips-1) ||
		swapped && near(a[2:], b[2:], slips-1)
}
