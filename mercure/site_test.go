package mercure

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

// patience bounds each wait; it is long because tests load the machine.
const patience = 30 * time.Second

// The secrets of the tests.
const (
	publisherKey  = "publishers of these tests sign with this"
	subscriberKey = "subscribers of these tests sign with this"
)

// keys are the options that every hub here has.
const keys = `publisher_jwt "` + publisherKey + `"
	subscriber_jwt "` + subscriberKey + `" HS256
`

// site is a Caddy with one hub.
type site struct {
	*e2etest.Server
	t *testing.T
}

// serve runs a site whose hub has these options beside its keys. What is for no hub is answered "next".
func serve(t *testing.T, options string, more ...e2etest.ServerOption) *site {
	t.Helper()
	return &site{e2etest.Start(t, siteWith("", options), more...), t}
}

// inMemory are the options of most hubs here.
const inMemory = "anonymous\n transport local\n"

func siteWith(global, options string) string {
	return fmt.Sprintf(`{
	skip_install_trust
	%s
}
http://127.0.0.1:{{port}} {
	mercure {
		%s
		%s
	}
	respond next
}`, global, keys, options)
}

// shared is a site whose hub a route of "sse" shares, at /events, where all may publish.
func shared(t *testing.T, options string) *site {
	t.Helper()
	return &site{e2etest.Start(t, strings.Replace(siteWith("", options+"\nhub default"), "respond next", `sse /events {
		publish {
			open
		}
	}
	respond next`, 1)), t}
}

// signed returns a token with these claims.
func signed(key, claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"typ":"JWT","alg":"HS256"}`)) + "." + encode([]byte(claims))
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(text))
	return text + "." + encode(mac.Sum(nil))
}

// publishing and subscribing return tokens that grant these selectors.
func publishing(selectors ...string) string {
	return signed(publisherKey, `{"mercure":{"publish":`+list(selectors)+`}}`)
}

func subscribing(selectors ...string) string {
	return signed(subscriberKey, `{"mercure":{"subscribe":`+list(selectors)+`}}`)
}

func list(texts []string) string {
	return `["` + strings.Join(texts, `","`) + `"]`
}

// bearer sends a token in the header.
func bearer(token string) e2etest.Option { return e2etest.Header("Authorization", "Bearer "+token) }

// hub returns the URL of the hub with parameters: names and values, in turn.
func (s *site) hub(pairs ...string) string {
	if len(pairs) == 0 {
		return s.URL(Path)
	}
	return s.URL(Path) + "?" + form(pairs...)
}

// form encodes names and values, which come in turn.
func form(pairs ...string) string {
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	return values.Encode()
}

const formContent = "application/x-www-form-urlencoded"

// post sends a form to the hub.
func (s *site) post(body string, options ...e2etest.Option) e2etest.Answer {
	s.t.Helper()
	options = append([]e2etest.Option{e2etest.Header("Content-Type", formContent)}, options...)
	return e2etest.Send(s.t, http.MethodPost, s.hub(), body, options...)
}

// publish publishes a form, which has to be taken, and returns the ID.
func (s *site) publish(pairs ...string) string {
	s.t.Helper()
	answer := s.post(form(pairs...), bearer(publishing("*")))
	if answer.Status != http.StatusOK {
		s.t.Fatalf("publishing %v: %d: %s", pairs, answer.Status, answer.Body)
	}
	return answer.Body
}

// subscribe subscribes to these selectors.
func (s *site) subscribe(selectors []string, options ...e2etest.Option) *e2etest.Stream {
	s.t.Helper()
	return e2etest.Subscribe(s.t, s.topics(selectors...), append(options, e2etest.KeepRaw())...)
}

// topics returns the URL by which to subscribe to these selectors.
func (s *site) topics(selectors ...string) string {
	pairs := make([]string, 0, 2*len(selectors))
	for _, name := range selectors {
		pairs = append(pairs, "topic", name)
	}
	return s.hub(pairs...)
}

// refusal is the body of an error.
type refusal struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

// wantRefusal fails the test unless the answer is a problem with this status whose detail has the words.
func wantRefusal(t testing.TB, answer e2etest.Answer, status int, words ...string) {
	t.Helper()
	if answer.Status != status {
		t.Errorf("answered %d, want %d: %s", answer.Status, status, answer.Body)
		return
	}
	var r refusal
	answer.Decode(t, &r)
	if media := answer.Header.Get("Content-Type"); media != "application/problem+json" || r.Status != status {
		t.Errorf("%s is no problem of status %d: %s", media, status, answer.Body)
	}
	for _, word := range words {
		if !strings.Contains(r.Detail, word) {
			t.Errorf("%q does not tell of %q", r.Detail, word)
		}
	}
	challenge := answer.Header.Get("WWW-Authenticate")
	if status == http.StatusUnauthorized && !strings.HasPrefix(challenge, "Bearer") {
		t.Errorf("the 401 has the challenge %q", challenge)
	}
}

// get makes a GET whose answer ends.
func (s *site) get(url string, options ...e2etest.Option) e2etest.Answer {
	s.t.Helper()
	return e2etest.Send(s.t, http.MethodGet, url, "", options...)
}

// wantTexts fails the test unless the next events have these data, in this order. It returns them.
func wantTexts(t testing.TB, s *e2etest.Stream, texts ...string) (events []eventstream.Event) {
	t.Helper()
	for _, text := range texts {
		events = append(events, s.Expect(t, text))
	}
	return events
}
