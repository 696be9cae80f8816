package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// chatSite has a hub in memory and a hub in Redis, and the health of both on a site of their own.
func chatSite(redis string) string {
	return `
{
	sse {
		hub chat {
			broker redis ` + redis + `
		}
	}
}
` + openSite + `
http://127.0.0.1:{{chat}} {
	sse /events {
		hub chat
		publish {
			open
		}
	}
	sse_health /healthz
	sse_health /readyz ready
	sse_health /livez live
}
`
}

// healths are the answers of the three parts of health, on the admin endpoint and on a site.
type healths struct {
	t      *testing.T
	server *e2etest.Server
}

func (h healths) want(health, ready, live int) {
	h.t.Helper()
	words := map[bool]string{true: "true", false: "false"}
	parts := []struct {
		member, admin, site string
		status              int
	}{{"healthy", "/sse/health", "/healthz", health}, {"ready", "/sse/health/ready", "/readyz", ready}, {"live", "/sse/health/live", "/livez", live}}
	e2etest.Await(h.t, fmt.Sprint("health ", health, ", ready ", ready, ", live ", live), func() bool {
		for _, part := range parts {
			member := fmt.Sprintf(`"%s":%s`, part.member, words[part.status == http.StatusOK])
			admin := e2etest.Send(h.t, http.MethodGet, h.server.AdminURL(part.admin), "")
			site := e2etest.Send(h.t, http.MethodGet, h.server.Expand("http://127.0.0.1:{{chat}}"+part.site), "")
			if admin.Status != part.status || !strings.Contains(admin.Body, member) ||
				site.Status != part.status || site.Body != "{"+member+"}\n" { // without details
				return false
			}
		}
		return true
	})
}

// brokers returns what the admin endpoint says of each hub's broker.
func (h healths) brokers() (down []string, states map[string]adminHub) {
	h.t.Helper()
	var told struct {
		Down []string
		Hubs []adminHub
	}
	answer := e2etest.Send(h.t, http.MethodGet, h.server.AdminURL("/sse/health"), "")
	if err := json.Unmarshal([]byte(answer.Body), &told); err != nil {
		h.t.Fatalf("%s: %v", answer.Body, err)
	}
	states = map[string]adminHub{}
	for _, hub := range told.Hubs {
		states[hub.Name] = hub
	}
	return told.Down, states
}

func TestHealthTellsWhichBrokerIsDownAndWhyAndSinceWhen(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	redis := e2etest.RedisServer(t)
	redis.Stop()
	server := e2etest.Start(t, chatSite(redis.URL()))
	health := healths{t, server}
	health.want(503, 503, 200)
	redis.Restart()
	health.want(200, 200, 200)
	lagOf := func(hub string) string { return scrape(t, server)[`caddy_sse_broker_lag_seconds{hub="`+hub+`"}`] }
	e2etest.Await(t, "no lag", func() bool { return lagOf("chat") == "0" })
	if none := lagOf("default"); none != "" {
		t.Errorf("the lag of a hub in memory is %q", none)
	}
	up := hubs(t, server)["chat"]
	if !up.Up || up.Error != "" || time.Since(up.Since).Abs() > patience {
		t.Errorf("a hub whose broker is up is shown as %+v", up)
	}

	redis.Stop()
	health.want(503, 200, 200)
	first := hubs(t, server)["chat"]
	var down []string
	var states map[string]adminHub
	e2etest.Await(t, "the newest reason", func() bool {
		down, states = health.brokers()
		return strings.Contains(states["chat"].Error, "connect")
	})
	chat := states["chat"]
	if fmt.Sprint(down) != "[chat]" || chat.Up || chat.Broker != "redis" || chat.Since != first.Since ||
		!chat.Since.After(up.Since) || !states["default"].Up || states["default"].Error != "" {
		t.Errorf("down are %v: %+v", down, states)
	}
	if now := hubs(t, server)["chat"]; now.Up || now.Since != chat.Since || now.Error == "" {
		t.Errorf("among the hubs it is %+v, in the health %+v", now, chat)
	}
	if value := scrape(t, server)[`caddy_sse_broker_up{hub="chat"}`]; value != "0" {
		t.Errorf("caddy_sse_broker_up is %q", value)
	}
	if lag, err := strconv.ParseFloat(lagOf("chat"), 64); err != nil || lag <= 0 || lag > 60 {
		t.Errorf("without Redis the lag is %q", lagOf("chat"))
	}
	if err := server.Reload(strings.Replace(chatSite(redis.URL()), "hub chat {\n\t\t\tbroker", "hub chat {\n\t\t\tmax_clients 9\n\t\t\tbroker", 1)); err != nil {
		t.Fatal(err)
	}
	health.want(503, 200, 200) // a reload is no exit, and no new broker
	redis.Restart()
	health.want(200, 200, 200)
}

// While a process that exits still serves, for shutdown_delay, load balancers are to send nothing new.
func TestAProcessThatExitsIsNotReady(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	site := chatSite(e2etest.RedisServer(t).URL())
	server := e2etest.Start(t, strings.Replace(site, "{\n\tsse", "{\n\tshutdown_delay 60s\n\tsse", 1))
	health := healths{t, server}
	health.want(200, 200, 200)
	if err := server.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	health.want(200, 503, 200)
	server.Kill()
}

func TestHealthIsForReadingOnly(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, "http://127.0.0.1:{{port}} {\n\tsse_health /healthz\n}\n")
	if answer := e2etest.Send(t, http.MethodPost, server.URL("/healthz"), ""); answer.Status != 405 || answer.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST is answered %d, Allow %q", answer.Status, answer.Header.Get("Allow"))
	}
	if answer := e2etest.Send(t, http.MethodHead, server.URL("/healthz"), ""); answer.Status != 200 || answer.Body != "" ||
		answer.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("HEAD is answered %d, %v", answer.Status, answer.Header)
	}
}

// What Redis loses is told to who runs it, and counted, not only to clients.
func TestALogThatWasLostIsLoggedAndCounted(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	redis := e2etest.RedisServer(t)
	server := e2etest.Start(t, chatSite(redis.URL()))
	events := server.Expand("http://127.0.0.1:{{chat}}/events?topic=news")
	stream := e2etest.Subscribe(t, events)
	stream.Connected(t)
	e2etest.Publish(t, events, "one")
	stream.Expect(t, "one")
	if _, err := redis.Do(patience, "FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	if event, err := stream.Next(patience); err != nil || event.Name != "gap" {
		t.Fatalf("the client is told %+v, %v", event, err)
	}
	e2etest.Await(t, "a warning", func() bool {
		for line := range strings.Lines(server.Log()) {
			if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, "the log has lost messages") &&
				strings.Contains(line, `"hub":"chat"`) && strings.Contains(line, `"reason":"log_lost","clients":1`) {
				return true
			}
		}
		return false
	})
	if n := scrape(t, server)[`caddy_sse_gaps_total{hub="chat",reason="log_lost"}`]; n != "1" {
		t.Errorf("%q gaps are counted", n)
	}
}

func TestRefusedPublishesGapsAndTopicsAreCounted(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	server := e2etest.Start(t, openSite+`
http://127.0.0.1:{{closed}} {
	sse /events
}
`)
	events := server.URL("/events?topic=news")
	e2etest.Subscribe(t, events, e2etest.LastEventID("of-another-log")).Connected(t)
	e2etest.Publish(t, server.URL("/events?topic=kept"), "one")
	e2etest.Send(t, http.MethodPost, events+"&event=gap", "x")
	e2etest.Send(t, http.MethodPost, events, strings.Repeat("x", 2<<20))
	e2etest.Send(t, http.MethodPost, server.Expand("http://127.0.0.1:{{closed}}/events?topic=news"), "x")
	e2etest.Send(t, http.MethodPost, server.AdminURL("/sse/hubs/default/publish"), "{}", e2etest.Header("Content-Type", "application/json"))
	scraped := scrape(t, server)
	for series, want := range map[string]string{
		`publish_refused_total{hub="default",status="400"}`:  "2",
		`publish_refused_total{hub="default",status="403"}`:  "1",
		`publish_refused_total{hub="default",status="413"}`:  "1",
		`publish_refused_total{hub="default",status="503"}`:  "0",
		`gaps_total{hub="default",reason="unknown_id"}`:      "1",
		`gaps_total{hub="default",reason="log_lost"}`:        "0",
		`topics{hub="default"}`:                              "2",
		`connections_total{hub="default",result="accepted"}`: "1",
		`messages_published_total{hub="default"}`:            "1",
	} {
		if got := scraped["caddy_sse_"+series]; got != want {
			t.Errorf("%s is %q, want %s", series, got, want)
		}
	}
	versions := 0
	for series, value := range scraped {
		if strings.HasPrefix(series, `caddy_sse_build_info{version="`) && !strings.HasSuffix(series, `=""}`) && value == "1" {
			versions++
		}
	}
	if versions != 1 {
		t.Errorf("%d versions run", versions)
	}
}
