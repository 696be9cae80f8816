package mercure

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-sse/caddy-sse/internal/origin"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// collection is a list of subscriptions.
type collection struct {
	Context       string         `json:"@context"`
	ID            string         `json:"id"`
	Type          string         `json:"type"`
	LastEventID   string         `json:"lastEventID"`
	Subscriptions []subscription `json:"subscriptions"`
}

// subscriptionAPI answers requests for the API's paths by method.
func (h *Handler) subscriptionAPI(w http.ResponseWriter, r *http.Request) error {
	const methods = "GET, HEAD, OPTIONS"
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return h.serveSubscriptions(w, r)
	case http.MethodOptions:
		origin.Preflight(w, r, methods, allowedHeaders)
		return nil
	}
	w.Header().Set("Allow", methods)
	return problem.Write(w, problem.New(http.StatusMethodNotAllowed, "use GET to see who subscribes"))
}

// serveSubscriptions answers who subscribes to what: all, those of a topic selector, or one.
func (h *Handler) serveSubscriptions(w http.ResponseWriter, r *http.Request) error {
	if h.live.WaitReady(r.Context()) != nil { // its place in the log is not known yet
		return problem.Write(w, problem.New(http.StatusServiceUnavailable, "the server is going down; ask again"))
	}
	body, refusal := h.readSubscriptions(r)
	if refusal != nil {
		h.live.LogRefusal(h.logger, r, refusal)
		return problem.Write(w, refusal)
	}
	hash := sha256.Sum256(body)
	tag := `"` + hex.EncodeToString(hash[:16]) + `"`
	header := w.Header()
	header.Set("ETag", tag)
	header.Set("Cache-Control", "private, must-revalidate")
	if slices.Contains(strings.FieldsFunc(r.Header.Get("If-None-Match"), isListSpace), tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	header.Set("Content-Type", "application/ld+json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may have gone
	}
	return nil
}

func isListSpace(r rune) bool { return r == ',' || r == ' ' || r == '\t' }

// readSubscriptions returns the answer to a request, in JSON.
func (h *Handler) readSubscriptions(r *http.Request) ([]byte, *problem.Problem) {
	path := r.URL.EscapedPath()
	names, ok := namesIn(path)
	if !ok {
		return nil, problem.New(http.StatusNotFound, "there is nothing at this path; subscriptions are at %s, "+
			"and below at /{topic} and /{topic}/{subscriber}", subscriptionsPath)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "the query can't be read: %v", err)
	}
	who, refusal := h.authorizeSubscriber(r, query)
	switch {
	case refusal != nil:
		return nil, refusal
	case !who.known:
		return nil, unauthorized("", "to see who subscribes needs a token that grants it")
	case !who.granted.Match(path) && !who.granted.Match(pathOf(names...)):
		return nil, problem.New(http.StatusForbidden,
			"the token's mercure.subscribe does not match %s", pathOf(names...))
	}
	all, lastEventID, err := h.served.roster.list(r.Context(), func(topic, subscriber string) bool {
		return (len(names) < 1 || topic == names[0]) && (len(names) < 2 || subscriber == names[1])
	})
	if err != nil {
		return nil, problem.New(http.StatusServiceUnavailable,
			"who subscribes on other instances is not known at the moment; ask again")
	}
	if len(names) < 2 {
		return toJSON(collection{ldContext, pathOf(names...), collectionType, lastEventID, all}), nil
	}
	if len(all) == 0 {
		return nil, problem.New(http.StatusNotFound, "nobody of that name subscribes to that topic")
	}
	one := all[0]
	one.Context, one.LastEventID = ldContext, lastEventID
	return toJSON(one), nil
}

// namesIn returns the topic and the subscriber that a path names; ok is false if it is no path of the API.
func namesIn(path string) (names []string, ok bool) {
	rest, ok := strings.CutPrefix(path, subscriptionsPath)
	if rest == "" || !ok {
		return nil, ok
	}
	segments := strings.Split(rest, "/")
	if segments[0] != "" || len(segments) > 3 {
		return nil, false
	}
	for _, segment := range segments[1:] {
		name, err := url.PathUnescape(segment)
		if err != nil || name == "" {
			return nil, false
		}
		names = append(names, name)
	}
	return names, true
}

// toJSON encodes what always encodes, for programs and not for pages.
func toJSON(value any) []byte {
	var encoded bytes.Buffer
	encoder := json.NewEncoder(&encoded)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value)
	return bytes.TrimSuffix(encoded.Bytes(), []byte("\n"))
}
