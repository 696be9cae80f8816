package events_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) { e2etest.Main(m) }

// event is what a handler gets of an event.
type event struct {
	Type   string         `json:"type"`
	Source string         `json:"source"`
	Time   time.Time      `json:"time"`
	Data   map[string]any `json:"data"`
}

func TestWatcherSeesWhoComesAndGoes(t *testing.T) {
	server := start(t, "")
	watcher := e2etest.Subscribe(t, server.URL("/operators"))
	own := watcher.Connected(t).ClientID
	next := func() event {
		t.Helper()
		got, err := watcher.Next(patience)
		if err != nil {
			t.Fatal(err)
		}
		var e event
		if err := json.Unmarshal(got.Data, &e); err != nil {
			t.Fatalf("%s: %v", got.Data, err)
		}
		return e
	}
	if e := next(); e.Type != "sse.connected" || e.Data["client_id"] != own || e.Data["hub"] != "operators" {
		t.Errorf("the first event is %+v", e)
	}
	ann := e2etest.Subscribe(t, server.URL("/events?topic=news&topic=room/*&client_id=ann"))
	begin := ann.Connected(t).ID
	wantEvent(t, next(), "sse.connected", map[string]any{
		"hub": "default", "client_id": "ann", "user": "", "topics": []any{"news", "room/*"}, "resume": "none",
	})
	for _, data := range []string{"hello", "you"} {
		e2etest.Publish(t, server.URL("/events?topic=news"), data)
		ann.Expect(t, data)
	}
	ann.Close()
	gone := next()
	seconds, _ := gone.Data["seconds"].(float64)
	if bytes, _ := gone.Data["bytes"].(float64); seconds <= 0 || seconds > patience.Seconds() || bytes < float64(len("helloyou")) {
		t.Errorf("the client that left is said to have %+v", gone.Data)
	}
	wantEvent(t, gone, "sse.disconnected", map[string]any{
		"hub": "default", "client_id": "ann", "user": "", "reason": "left", "messages": 2.0,
		"seconds": gone.Data["seconds"], "bytes": gone.Data["bytes"],
	})

	// A reload has its own handlers; the stream goes on, and is told of by them.
	again := e2etest.Subscribe(t, server.URL("/events?topic=news&client_id=ann"), e2etest.LastEventID(begin))
	again.Connected(t)
	if e := next(); e.Data["resume"] != "complete" {
		t.Errorf("coming back is told as %+v", e)
	}
	if err := server.Reload(strings.Replace(caddyfile(t), "sse /events {", "sse /events {\n\t\theartbeat 20s", 1)); err != nil {
		t.Fatal(err)
	}
	e2etest.Send(t, http.MethodDelete, server.AdminURL("/sse/hubs/default/clients/ann"), "")
	if e := next(); e.Type != "sse.disconnected" || e.Data["reason"] != "closed" || e.Data["messages"] != 2.0 {
		t.Errorf("the closed client is told of as %+v", e)
	}
}

func TestEventsCarryWhatTheirTableSays(t *testing.T) {
	redis := e2etest.RedisServer(t)
	url, events := application(t)
	server := start(t, url, "sse {", "sse {\n\t\tbroker redis "+redis.URL())
	awaited := func(name string) event {
		t.Helper()
		for {
			select {
			case e := <-events:
				if e.Type == name {
					return e
				}
			case <-time.After(patience):
				t.Fatalf("there was no %s", name)
			}
		}
	}
	table := fields(t)
	e2etest.Subscribe(t, server.URL("/events?topic=news")).Close()
	seen := map[string]event{"sse.connected": awaited("sse.connected"), "sse.disconnected": awaited("sse.disconnected")}
	redis.Stop()
	seen["sse.broker_down"] = awaited("sse.broker_down")
	redis.Restart()
	seen["sse.broker_up"] = awaited("sse.broker_up")
	for name, e := range seen {
		if got := slices.Sorted(maps.Keys(e.Data)); !slices.Equal(got, table[name]) {
			t.Errorf("%s has the fields %v, and its table says %v", name, got, table[name])
		}
		if e.Source != "sse" || e.Data["hub"] != "default" || time.Since(e.Time).Abs() > 2*patience {
			t.Errorf("%s is told as %+v", name, e)
		}
	}
	if len(table) != len(seen) {
		t.Errorf("the table has %d events", len(table))
	}
	if reason, _ := seen["sse.broker_down"].Data["error"].(string); reason == "" {
		t.Error("nobody says why the broker is down")
	}
}

// Handlers of different events that post to one address share a queue: nobody leaves before they have come.
func TestEventsArePostedInTheirOrder(t *testing.T) {
	const clients = 30
	url, events := application(t)
	server := start(t, url)
	for range clients {
		e2etest.Subscribe(t, server.URL("/events?topic=news")).Close()
	}
	there := map[any]bool{}
	for range 2 * clients {
		select {
		case e := <-events:
			id, comes := e.Data["client_id"], e.Type == "sse.connected"
			if there[id] == comes {
				t.Errorf("%s of client %v, who is there: %t", e.Type, id, there[id])
			}
			there[id] = comes
		case <-time.After(patience):
			t.Fatal("an event is missing")
		}
	}
}

func TestReasonsAreThoseOfTheMetric(t *testing.T) {
	server := start(t, "")
	row := regexp.MustCompile("(?m)^\\| \\| `reason` \\| (.*) \\|$").FindStringSubmatch(readme(t))
	if row == nil {
		t.Fatal("the table has no reasons")
	}
	said := names(regexp.MustCompile(`\([^)]*\)`).ReplaceAllString(row[1], ""))
	scrape := e2etest.Send(t, http.MethodGet, server.AdminURL("/metrics"), "").Body
	var counted []string
	for _, m := range regexp.MustCompile(`caddy_sse_disconnects_total\{hub="default",reason="(.*?)"\}`).FindAllStringSubmatch(scrape, -1) {
		if m[1] != "answered" { // a call that polls has no events
			counted = append(counted, m[1])
		}
	}
	slices.Sort(said)
	if slices.Sort(counted); !slices.Equal(said, counted) || len(said) == 0 {
		t.Errorf("the table says %v, the metric %v", said, counted)
	}
}

// application is one that events are posted to, one at a time.
func application(t *testing.T) (url string, events chan event) {
	events = make(chan event, 100)
	var posting atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		defer posting.Add(-1)
		if posting.Add(1) > 1 {
			t.Error("two events are posted at once")
		}
		body, _ := io.ReadAll(r.Body)
		var e event
		if err := json.Unmarshal(body, &e); err != nil || r.Header.Get("Content-Type") != "application/cloudevents+json" {
			t.Errorf("posted as %s: %s", r.Header.Get("Content-Type"), body)
		}
		events <- e
	}))
	t.Cleanup(server.Close)
	return server.URL, events
}

func wantEvent(t testing.TB, got event, name string, data map[string]any) {
	t.Helper()
	if got.Type != name || fmt.Sprint(got.Data) != fmt.Sprint(data) {
		t.Errorf("got %s %v\nwant %s %v", got.Type, got.Data, name, data)
	}
}

// fields returns what the README says of the events: by name, their fields.
func fields(t testing.TB) map[string][]string {
	t.Helper()
	table := map[string][]string{}
	event := ""
	for line := range strings.Lines(readme(t)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.Contains(cells[2], "`") {
			continue
		}
		if name := names(cells[1]); len(name) == 1 {
			event = name[0]
		}
		table[event] = append(table[event], names(cells[2])...)
	}
	delete(table, "") // the head
	for _, names := range table {
		slices.Sort(names)
	}
	return table
}

// names returns what stands between backquotes.
func names(text string) (found []string) {
	for _, m := range regexp.MustCompile("`([a-z_.]+)`").FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

func readme(t testing.TB) string {
	t.Helper()
	content, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// start runs the example as its README says, but for the port; with somewhere to post events to other
// than its own route, and with further replacements.
func start(t *testing.T, postTo string, replace ...string) *e2etest.Server {
	t.Helper()
	conf := caddyfile(t)
	if postTo != "" {
		conf = strings.ReplaceAll(conf, "http://127.0.0.1:{{port}}/operators", postTo)
	}
	return e2etest.Start(t, strings.NewReplacer(replace...).Replace(conf), e2etest.Program("./examples/events/caddy"))
}

func caddyfile(t testing.TB) string {
	t.Helper()
	content, err := os.ReadFile("Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(content), ":8080", ":{{port}}")
}
