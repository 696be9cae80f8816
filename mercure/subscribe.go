package mercure

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// earliest is the cursor before all that is kept, and what a client is told that may have missed something.
const earliest = "earliest"

// subscribe answers GET with a stream of updates, and HEAD with the headers of that, but Last-Event-ID.
func (h *Handler) subscribe(w http.ResponseWriter, r *http.Request) error {
	if h.live.WaitReady(r.Context()) != nil {
		panic(http.ErrAbortHandler) // EventSource reconnects after a cut, but not after an answer
	}
	defer live.IgnoreBody(w, r)()
	s, refusal := h.subscription(r)
	if refusal != nil {
		return h.live.Refuse(w, r, h.logger, refusal)
	}
	came := s.LastEventID != "" || s.Since.All
	err := h.live.Serve(w, r, s, live.StreamOptions{
		Direct: *h.DirectWrites,
		Header: func(header http.Header, c *hub.Client, welcome hub.Welcome) {
			if h.Subscriptions {
				h.served.roster.add(c)
			}
			switch {
			case welcome.Resume == hub.ResumeComplete:
				header.Set("Last-Event-ID", s.LastEventID)
			case came:
				header.Set("Last-Event-ID", earliest)
			}
		},
		Hello: func(*hub.Client, hub.Welcome) []byte { return []byte(":\n") },
	})
	if err != nil {
		return h.live.TurnAway(w, r, h.logger, err)
	}
	return nil
}

// subscription reads what a client asks for.
func (h *Handler) subscription(r *http.Request) (s hub.Subscription, refusal *problem.Problem) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return s, problem.New(http.StatusBadRequest, "the query can't be read: %v", err)
	}
	who, refusal := h.authorizeSubscriber(r, query)
	if refusal != nil {
		return s, refusal
	}
	names := query["topic"]
	switch n := len(names); {
	case n == 0:
		return s, problem.New(http.StatusBadRequest,
			"no topic; name what to subscribe to, as ?topic=https://example.com/books/1")
	case n > h.MaxTopics:
		return s, problem.New(http.StatusBadRequest,
			"%d topics are too many for one client; the limit is %d", n, h.MaxTopics)
	}
	selectors, err := hub.ParseSelectors(names...)
	if err != nil {
		return s, problem.New(http.StatusBadRequest, "%v", err)
	}
	s.Subscriber = hub.Subscriber{
		ClientID: uuid.NewString(), Generated: true, Unseen: true,
		Source:        live.SourceOf(r),
		Selectors:     selectors,
		Granted:       who.granted,
		Form:          hub.Updates,
		ClientOptions: h.options,
	}
	if h.Subscriptions {
		s.Info = who.payload
	}
	s.Expires = who.expires
	s.Gzip = h.Compress == "gzip" && live.AcceptsGzip(r)
	s.LastEventID = strings.Trim(cursorOf(r), " \t")
	if s.LastEventID == earliest {
		s.LastEventID, s.Since = "", hub.Since{All: true}
	}
	return s, nil
}

// fromFetch returns what a header says that was set by fetch, as libraries do: in bytes of Latin-1. EventSource itself
// writes UTF-8.
func fromFetch(value string) string {
	if utf8.ValidString(value) {
		return value
	}
	text := make([]rune, len(value))
	for i := range len(value) {
		text[i] = rune(value[i])
	}
	return string(text)
}

// cursorOf returns the ID of the update that a client has seen last; empty for none. The header counts before the
// query. There, libraries add theirs behind an older one, and spell it in several ways.
func cursorOf(r *http.Request) (id string) {
	if id = r.Header.Get("Last-Event-ID"); strings.TrimSpace(id) != "" {
		return fromFetch(id)
	}
	for field := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, value, _ := strings.Cut(field, "=")
		name, _ = url.QueryUnescape(name)
		if !strings.EqualFold(name, "lastEventID") && !strings.EqualFold(name, "Last-Event-ID") {
			continue
		}
		if value, _ = url.QueryUnescape(value); strings.TrimSpace(value) != "" {
			id = value
		}
	}
	return id
}
