package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// adminClient and the others are what the admin endpoint tells.
type (
	adminClient struct {
		ClientID string    `json:"client_id"`
		User     string    `json:"user"`
		Topics   []string  `json:"topics"`
		Since    time.Time `json:"since"`
		Queued   int       `json:"queued"`
	}
	adminTopic struct {
		Topic   string `json:"topic"`
		Clients int    `json:"clients"`
		Kept    int    `json:"kept"`
	}
	adminMessage struct {
		ID    string    `json:"id"`
		Event string    `json:"event"`
		Data  string    `json:"data"`
		Bytes int       `json:"bytes"`
		Time  time.Time `json:"time"`
	}
	adminPage struct {
		Clients []adminClient `json:"clients"`
		Topics  []adminTopic  `json:"topics"`
		Next    string        `json:"next"`
	}
	adminHub struct {
		Name        string    `json:"name"`
		Broker      string    `json:"broker"`
		Up          bool      `json:"up"`
		Since       time.Time `json:"broker_since"`
		Error       string    `json:"broker_error"`
		Clients     int       `json:"clients"`
		Connections int       `json:"connections"`
		Published   int       `json:"messages_published"`
		Sent        int       `json:"messages_sent"`
		Reconnects  int       `json:"reconnects"`
		Gaps        int       `json:"gaps"`
	}
)

// askAdmin gets a path of the admin endpoint, which must answer 200 with JSON.
func askAdmin(t testing.TB, server *e2etest.Server, path string, into any) {
	t.Helper()
	answer := e2etest.Send(t, http.MethodGet, server.AdminURL(path), "")
	if answer.Status != http.StatusOK || answer.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("GET %s: %d, %q: %s", path, answer.Status, answer.Header.Get("Content-Type"), answer.Body)
	}
	decodeLoosely(t, answer, into)
}

// wantAdminError checks that an answer is an error as Caddy's admin API words them.
func wantAdminError(t testing.TB, what string, answer e2etest.Answer, status int, words ...string) {
	t.Helper()
	var body struct {
		Error string `json:"error"`
	}
	decodeLoosely(t, answer, &body)
	if answer.Status != status || answer.Header.Get("Content-Type") != "application/json" || body.Error == "" {
		t.Errorf("%s: answered %d as %q: %s; want %d", what, answer.Status, answer.Header.Get("Content-Type"), answer.Body, status)
	}
	for _, word := range words {
		if !strings.Contains(body.Error, word) {
			t.Errorf("%s: the error %q does not speak of %q", what, body.Error, word)
		}
	}
}

// hubs returns what GET /sse/hubs says, by name.
func hubs(t testing.TB, server *e2etest.Server) map[string]adminHub {
	t.Helper()
	var answer struct {
		Hubs []adminHub `json:"hubs"`
	}
	askAdmin(t, server, "/sse/hubs", &answer)
	byName := map[string]adminHub{}
	for _, hub := range answer.Hubs {
		byName[hub.Name] = hub
	}
	if !slices.IsSortedFunc(answer.Hubs, func(a, b adminHub) int { return cmp.Compare(a.Name, b.Name) }) {
		t.Errorf("the hubs are not in order: %+v", answer.Hubs)
	}
	return byName
}

func TestAdminRefusesWhatItDoesNotKnow(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, openSite)
	const hub = "/sse/hubs/default"
	for _, c := range []struct {
		method, path string
		status       int
		words        []string
	}{
		{"GET", "/sse/nothing", 404, nil},
		{"GET", "/sse/hubs/default", 404, nil},
		{"GET", "/sse/hubs/", 404, nil},
		{"GET", "/sse/assets/", 404, nil},
		{"GET", "/sse/assets/nothing.js", 404, nil},
		{"GET", "/sse/assets/..%2findex.html", 404, nil},
		{"PUT", "/sse/hubs", 405, []string{"GET"}},
		{"POST", "/sse/", 405, []string{"GET"}},
		{"POST", "/sse/health", 405, []string{"GET"}},
		{"POST", hub + "/topics", 405, []string{"GET", "DELETE"}},
		{"DELETE", hub + "/topics", 400, []string{"topic"}},
		{"DELETE", hub + "/topics?topic=a/*", 400, []string{"topic"}},
		{"DELETE", hub + "/topics?topics=a", 400, []string{"topics", "topic, key"}},
		{"DELETE", "/sse/hubs/nobody/topics?topic=a", 404, []string{"nobody"}},
		{"GET", hub + "/publish", 405, []string{"POST"}},
		{"GET", hub + "/clients/ann", 405, []string{"DELETE"}},
		{"POST", hub + "/clients", 405, []string{"GET", "DELETE"}},

		{"GET", "/sse/hubs/nobody/clients", 404, []string{"nobody"}},
		{"GET", "/sse/hubs/nobody/topics", 404, []string{"nobody"}},
		{"GET", "/sse/hubs/nobody/messages?topic=a", 404, []string{"nobody"}},
		{"DELETE", "/sse/hubs/nobody/clients/ann", 404, []string{"nobody"}},
		{"POST", "/sse/hubs/nobody/publish", 404, []string{"nobody"}},

		{"GET", "/sse/hubs?limit=1", 400, []string{"limit"}},
		{"GET", "/sse/health?x", 400, []string{"x"}},
		{"GET", "/sse/health/ready?x", 400, []string{"x"}},
		{"GET", "/sse/health/well", 404, nil},
		{"GET", hub + "/clients?client_id=ann", 400, []string{"client_id", "topic, user, limit, after"}},
		{"GET", hub + "/clients?Topic=a", 400, []string{"Topic"}},
		{"GET", hub + "/clients?topic=a&topic=b", 400, []string{"topic"}},
		{"GET", hub + "/clients?topic=%zz", 400, nil},
		{"GET", hub + "/topics?topic=a", 400, []string{"topic"}},
		{"GET", hub + "/messages?topic=a&after=1", 400, []string{"after"}},
		{"DELETE", hub + "/clients/ann?force=1", 400, []string{"force"}},
		{"POST", hub + "/publish?topic=a", 400, []string{"topic"}},

		{"GET", hub + "/clients?limit=0", 400, []string{"limit", "1000"}},
		{"GET", hub + "/clients?limit=-1", 400, nil},
		{"GET", hub + "/clients?limit=1001", 400, nil},
		{"GET", hub + "/clients?limit=99999999999999999999", 400, nil},
		{"GET", hub + "/clients?limit=ten", 400, nil},
		{"GET", hub + "/topics?limit=1001", 400, nil},
		{"GET", hub + "/messages?topic=a&limit=1001", 400, nil},
		{"GET", hub + "/clients?after=x", 400, []string{"after"}},
		{"GET", hub + "/clients?after=-1", 400, []string{"after"}},
		{"GET", hub + "/messages", 400, []string{"topic"}},
		{"GET", hub + "/messages?topic=a/*", 400, []string{"topic"}},
		{"GET", hub + "/messages?topic=a%00b", 400, []string{"topic"}},

		{"DELETE", hub + "/clients/nobody", 404, []string{"nobody"}},
		{"DELETE", hub + "/clients?client_id=nobody", 404, []string{"nobody"}},
		{"DELETE", hub + "/clients", 400, []string{"client_id"}},
		{"DELETE", hub + "/clients/a%2fb", 400, []string{"client_id"}},
		{"DELETE", hub + "/clients/" + strings.Repeat("a", 129), 400, []string{"client_id"}},
	} {
		answer := e2etest.Send(t, c.method, server.AdminURL(c.path), "{}")
		wantAdminError(t, c.method+" "+c.path, answer, c.status, c.words...)
		if c.status == http.StatusMethodNotAllowed && answer.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
	if log := server.Log(); strings.Contains(log, `"level":"error"`) {
		t.Error("somebody's mistake was logged as an error of the server's")
	}
}

func TestAdminServesTheDashboard(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, openSite)
	for path, media := range map[string]string{
		"/sse/":                 "text/html; charset=utf-8",
		"/sse/assets/app.js":    "text/javascript; charset=utf-8",
		"/sse/assets/style.css": "text/css; charset=utf-8",
	} {
		answer := e2etest.Send(t, http.MethodGet, server.AdminURL(path), "")
		if answer.Status != http.StatusOK || answer.Header.Get("Content-Type") != media {
			t.Errorf("GET %s: %d, %q", path, answer.Status, answer.Header.Get("Content-Type"))
		}
		for _, elsewhere := range []string{`src="http`, `href="http`, "url(http", `from "http`, "@import"} {
			if strings.Contains(answer.Body, elsewhere) {
				t.Errorf("%s needs something from elsewhere: %s", path, elsewhere)
			}
		}
		if head := e2etest.Send(t, http.MethodHead, server.AdminURL(path), ""); head.Status != http.StatusOK || head.Body != "" {
			t.Errorf("HEAD %s: %d %q", path, head.Status, head.Body)
		}
	}
}

func TestAdminShowsClientsTopicsAndMessages(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, strings.Replace(openSite, "sse /events {", "sse /events {\n\t\tuser {query.user}", 1))
	for _, query := range []string{"client_id=ann&user=alice&topic=news&topic=room/*", "client_id=bob&topic=news", "client_id=cy&user=alice&topic=other"} {
		e2etest.Subscribe(t, server.URL("/events?"+query)).Connected(t)
	}
	for _, data := range []string{"one", "two\nlines", strings.Repeat("☃", 5000)} {
		e2etest.Publish(t, server.URL("/events?topic=news&event=update"), data)
	}
	e2etest.Publish(t, server.URL("/events?topic=kept"), "nobody listens")
	e2etest.Publish(t, server.URL("/events?user=alice"), "this is no topic")

	ids := func(query string) string {
		var page adminPage
		askAdmin(t, server, "/sse/hubs/default/clients"+query, &page)
		var ids []string
		for _, c := range page.Clients {
			ids = append(ids, c.ClientID)
		}
		return strings.Join(ids, " ")
	}
	for query, want := range map[string]string{
		"": "ann bob cy", "?topic=news": "ann bob", "?topic=" + url.QueryEscape("room/*"): "ann", "?topic=room/1": "", "?user=alice": "ann cy",
		"?user=alice&topic=news": "ann", "?user=nobody": "", "?topic=news&limit=1": "ann", "?after=18446744073709551615": "",
	} {
		if got := ids(query); got != want {
			t.Errorf("clients%s are %q, want %q", query, got, want)
		}
	}
	var page adminPage
	askAdmin(t, server, "/sse/hubs/default/clients", &page)
	ann := page.Clients[0]
	if ann.User != "alice" || !slices.Equal(ann.Topics, []string{"news", "room/*"}) || time.Since(ann.Since).Abs() > patience {
		t.Errorf("the client is shown as %+v", ann)
	}

	e2etest.Subscribe(t, server.URL("/events?client_id=silent")).Connected(t)
	all := e2etest.Send(t, http.MethodGet, server.AdminURL("/sse/hubs/default/clients"), "").Body
	if !strings.Contains(all, `{"client_id":"silent","user":"","topics":[],`) {
		t.Errorf("a client without user and topics is shown as %s", all)
	}

	askAdmin(t, server, "/sse/hubs/default/topics", &page)
	want := []adminTopic{{"kept", 0, 1}, {"news", 2, 3}, {"other", 1, 0}, {"room/*", 1, 0}}
	if !slices.Equal(page.Topics, want) || page.Next != "" {
		t.Errorf("the topics are %+v and %q, want %+v", page.Topics, page.Next, want)
	}
	page = adminPage{}
	askAdmin(t, server, "/sse/hubs/default/topics?limit=2&after=kept", &page)
	if !slices.Equal(page.Topics, want[1:3]) || page.Next != "other" {
		t.Errorf("a page of topics is %+v and %q", page.Topics, page.Next)
	}

	var answer struct {
		Messages []adminMessage `json:"messages"`
	}
	askAdmin(t, server, "/sse/hubs/default/messages?topic=news&limit=2", &answer)
	if len(answer.Messages) != 2 {
		t.Fatalf("got %d messages", len(answer.Messages))
	}
	two, big := answer.Messages[0], answer.Messages[1]
	if two.Data != "two\nlines" || two.Event != "update" || two.ID == "" || two.Bytes != 9 {
		t.Errorf("the message is shown as %+v", two)
	}
	if big.Bytes != 15_000 || big.Data != strings.Repeat("☃", 4096/3) {
		t.Errorf("of a large message with %d bytes %d are shown", big.Bytes, len(big.Data))
	}
	askAdmin(t, server, "/sse/hubs/default/messages?topic=unheard", &answer)
	if answer.Messages == nil || len(answer.Messages) != 0 {
		t.Errorf("a topic without messages has %v", answer.Messages)
	}
}

// Whoever reads pages finds every field of the contract on each of them.
func TestAdminPagesLeaveNothingOut(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, openSite)
	wantPage := func(path string, words ...string) {
		t.Helper()
		body := e2etest.Send(t, http.MethodGet, server.AdminURL("/sse/hubs/default/"+path), "").Body
		for _, word := range words {
			if !strings.Contains(body, word) {
				t.Errorf("%s has no %s: %s", path, word, body)
			}
		}
	}
	wantPage("clients", `"clients":[]`, `"next":""`)
	wantPage("topics", `"topics":[]`, `"next":""`)
	e2etest.Subscribe(t, server.URL("/events?client_id=ann")).Connected(t)
	wantPage("clients", `"client_id":"ann","user":"","topics":[],`, `"next":""`)
}

func TestAdminPagesAreCompleteWhileClientsComeAndGo(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, openSite)
	var staying []string
	subscribe := func(id string) *e2etest.Stream {
		stream := e2etest.Subscribe(t, server.URL("/events?topic=news&client_id="+id))
		stream.Connected(t)
		return stream
	}
	var leaving []*e2etest.Stream
	for i := range 30 {
		staying = append(staying, fmt.Sprintf("stays-%d", i))
		subscribe(staying[i])
		leaving = append(leaving, subscribe(fmt.Sprintf("leaves-%d", i)))
	}

	var got []string
	seen := map[string]bool{}
	after := ""
	for n := range 100 {
		var page adminPage
		askAdmin(t, server, "/sse/hubs/default/clients?topic=news&limit=7"+after, &page)
		for _, c := range page.Clients {
			if seen[c.ClientID] {
				t.Errorf("%s came twice", c.ClientID)
			}
			seen[c.ClientID] = true
			if strings.HasPrefix(c.ClientID, "stays") {
				got = append(got, c.ClientID)
			}
		}
		if page.Next == "" {
			break
		}
		after = "&after=" + page.Next
		if n < len(leaving) { // some of pages gone by, some of pages to come
			leaving[n].Close()
			leaving[len(leaving)-1-n].Close()
			subscribe(fmt.Sprintf("comes-%d", n))
		}
	}
	if !slices.Equal(got, staying) {
		t.Errorf("the pages showed %v, want %v", got, staying)
	}
}

// scrapeWithMetrics is scrape once all streams that end have ended.
func scrapeWithMetrics(t testing.TB, server *e2etest.Server) map[string]string {
	t.Helper()
	e2etest.Await(t, "the last connection is gone", func() bool { return hubs(t, server)["default"].Clients == 2 })
	return scrape(t, server)
}

// wantClosed checks that a stream says `closed` and ends in good order.
func wantClosed(t testing.TB, s *e2etest.Stream) {
	t.Helper()
	event, err := s.Next(patience)
	if err != nil || event.Name != "closed" || string(event.Data) != `{"status":"closed"}` {
		t.Errorf("got the event %q %s, %v; want closed", event.Name, event.Data, err)
	}
	if err := s.Ended(patience); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestOperatorMayPublishAnything(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, "http://127.0.0.1:{{port}} {\n\tsse /events {\n\t\tuser {query.user}\n\t}\n}")
	stream := e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=ann&user=alice"))
	stream.Connected(t)
	publish := func(body string, options ...e2etest.Option) e2etest.Answer {
		return e2etest.Send(t, http.MethodPost, server.AdminURL("/sse/hubs/default/publish"), body, append([]e2etest.Option{e2etest.Header("Content-Type", "application/json")}, options...)...)
	}
	for i, target := range []string{`"topic":"news"`, `"topic":["news","other"]`, `"client_id":"ann"`, `"user":"alice"`, `"broadcast":true`} {
		answer := publish(fmt.Sprintf(`{%s,"event":"test","data":"%d"}`, target, i))
		var receipt struct {
			ID        string `json:"id"`
			Receivers int    `json:"receivers"`
		}
		decodeLoosely(t, answer, &receipt)
		event := stream.Expect(t, fmt.Sprint(i))
		if answer.Status != http.StatusOK || receipt.ID != event.ID || receipt.Receivers != 1 {
			t.Errorf("publishing to %s: %d: %s", target, answer.Status, answer.Body)
		}
	}
	answer := publish(`[{"topic":"news","data":"a"},{"topic":"news","data":{"b":1}}]`)
	stream.Expect(t, "a")
	stream.Expect(t, `{"b":1}`)
	if answer.Status != http.StatusOK {
		t.Errorf("an array: %d: %s", answer.Status, answer.Body)
	}
	for body, status := range map[string]int{
		`{"data":"to nobody"}`:                                         400,
		`{"topic":"room/*","data":""}`:                                 400,
		`{"topic":"news","data":"","event":"connected"}`:               400,
		`{"topics":"news","data":""}`:                                  400,
		`{"topic":"news","data":"` + strings.Repeat("x", 2<<20) + `"}`: 413,
	} {
		if answer := publish(body); answer.Status != status || answer.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("publishing %.40s: %d: %s", body, answer.Status, answer.Body)
		}
	}
	if got := hubs(t, server)["default"]; got.Published != 7 {
		t.Errorf("%d messages are counted as published", got.Published)
	}
}

func TestCountersAreExactAcrossReloads(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, openSite)
	stream := e2etest.Subscribe(t, server.URL("/events?topic=news"))
	stream.Connected(t)
	for i := range 4 {
		data := fmt.Sprint(i)
		e2etest.Publish(t, server.URL("/events?topic=news"), data)
		id := stream.Expect(t, data).ID
		back := e2etest.Subscribe(t, server.URL("/events?topic=news"), e2etest.LastEventID(id))
		back.Connected(t)
		back.Close()
		if err := server.Reload(strings.Replace(openSite, "sse /events {", fmt.Sprintf("sse /events {\n\t\theartbeat %ds", 20+i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	var got adminHub
	e2etest.Await(t, "the last client has left", func() bool { got = hubs(t, server)["default"]; return got.Clients == 1 })
	want := adminHub{
		Name: "default", Broker: "memory", Up: true, Since: got.Since,
		Clients: 1, Connections: 5, Published: 4, Sent: 4, Reconnects: 4,
	}
	if got != want {
		t.Errorf("the hub is %+v\nwant %+v", got, want)
	}
	scraped := scrape(t, server)
	for series, value := range map[string]string{
		`caddy_sse_clients{hub="default"}`:                                     "1",
		`caddy_sse_connections_total{hub="default",result="accepted"}`:         "5",
		`caddy_sse_resumes_total{hub="default",result="complete"}`:             "4",
		`caddy_sse_resumes_total{hub="default",result="gap"}`:                  "0",
		`caddy_sse_messages_published_total{hub="default"}`:                    "4",
		`caddy_sse_messages_sent_total{hub="default"}`:                         "4",
		`caddy_sse_messages_conflated_total{hub="default"}`:                    "0",
		`caddy_sse_messages_dropped_total{hub="default",reason="slow_client"}`: "0",
		`caddy_sse_delivery_seconds_count{hub="default"}`:                      "4",
		`caddy_sse_broker_up{hub="default"}`:                                   "1",
	} {
		if scraped[series] != value {
			t.Errorf("%s is %q, want %q", series, scraped[series], value)
		}
	}
}
