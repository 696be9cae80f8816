package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// threeHubs is a site whose routes use a hub each, with a broker of each kind. The number of the reload
// changes all hubs and routes.
func threeHubs(redis string, reload int) string {
	return strings.NewReplacer("REDIS", redis, "HISTORY", fmt.Sprint(100+reload), "HEARTBEAT", fmt.Sprint(20+reload)).Replace(`
{
	sse {
		history HISTORY
		hub chat {
			broker bolt {{dir}}/chat.db
			history HISTORY
			max_clients 3
		}
		hub joined {
			broker redis REDIS
			history HISTORY
		}
	}
}
http://127.0.0.1:{{port}} {
	sse /events {
		heartbeat HEARTBEATs
		publish {
			open
		}
	}
	sse /chat {
		hub chat
		heartbeat HEARTBEATs
		publish {
			open
		}
	}
	sse /joined {
		hub joined
		heartbeat HEARTBEATs
		publish {
			open
		}
	}
}
`)
}

// TestNumbersOfAScriptedRunAreExactInEveryHubAcrossReloads does the same in all hubs, but for what only
// one of them has a limit for, with a reload after each step.
func TestNumbersOfAScriptedRunAreExactInEveryHubAcrossReloads(t *testing.T) {
	t.Parallel()
	redis := e2etest.RedisServer(t).URL()
	server := e2etest.Start(t, threeHubs(redis, 0))
	reloads := 0
	reload := func() {
		t.Helper()
		reloads++
		if err := server.Reload(threeHubs(redis, reloads)); err != nil {
			t.Fatal(err)
		}
	}
	series := func(name, hub, label string) string {
		if label != "" {
			label = "," + label
		}
		return fmt.Sprintf(`caddy_sse_%s{hub="%s"%s}`, name, hub, label)
	}
	for hub, path := range map[string]string{"default": "/events", "chat": "/chat", "joined": "/joined"} {
		address := server.URL(path + "?topic=news")
		clients := func(n string) {
			t.Helper()
			e2etest.Await(t, n+" clients are there", func() bool { return scrape(t, server)[series("clients", hub, "")] == n })
		}
		ann, bob := e2etest.Subscribe(t, address+"&client_id=ann"), e2etest.Subscribe(t, address+"&client_id=bob")
		begin := ann.Connected(t).ID
		bob.Connected(t)
		reload()
		for i := range 5 {
			e2etest.Publish(t, address, fmt.Sprint(i))
			ann.Expect(t, fmt.Sprint(i))
			bob.Expect(t, fmt.Sprint(i))
		}
		e2etest.Publish(t, address, "[1]", e2etest.Header("Idempotency-Key", "k"))
		e2etest.Publish(t, address, "[1]", e2etest.Header("Idempotency-Key", "k")) // is the same one
		ann.Expect(t, "[1]")
		bob.Expect(t, "[1]")
		reload()
		bob.Close()
		clients("1")
		back := e2etest.Subscribe(t, address+"&client_id=bob", e2etest.LastEventID(begin))
		for range 6 {
			if _, err := back.Next(patience); err != nil {
				t.Fatal(err)
			}
		}
		lost := e2etest.Subscribe(t, address+"&client_id=cy", e2etest.LastEventID("nobodys-7"))
		lost.Connected(t)
		clients("3")
		if hub == "chat" {
			if answer := e2etest.Send(t, http.MethodGet, address, ""); answer.Status != http.StatusServiceUnavailable {
				t.Errorf("one too many is answered %d", answer.Status)
			}
		}
		if answer := e2etest.Send(t, http.MethodGet, address+"&topic=a/**/b", ""); answer.Status != http.StatusBadRequest {
			t.Errorf("nonsense is answered %d", answer.Status)
		}
		e2etest.Await(t, "all that was sent is counted", func() bool { return scrape(t, server)[series("messages_sent_total", hub, "")] == "24" })
		reload()
		e2etest.Send(t, http.MethodDelete, server.AdminURL("/sse/hubs/"+hub+"/clients/cy"), "")
		clients("2")
		reload()
	}
	got := scrape(t, server)
	for hub, limited := range map[string]string{"default": "0", "chat": "1", "joined": "0"} {
		for name, want := range map[string]string{
			series("clients", hub, ""):                                    "2",
			series("connections_total", hub, `result="accepted"`):         "4",
			series("connections_total", hub, `result="limited"`):          limited,
			series("connections_total", hub, `result="refused"`):          "1",
			series("resumes_total", hub, `result="complete"`):             "1",
			series("resumes_total", hub, `result="gap"`):                  "1",
			series("messages_published_total", hub, ""):                   "6",
			series("messages_sent_total", hub, ""):                        "24", // 2 × 6 live, 2 × 6 kept
			series("messages_dropped_total", hub, `reason="slow_client"`): "0",
			series("messages_dropped_total", hub, `reason="malformed"`):   "0",
			series("disconnects_total", hub, `reason="left"`):             "1",
			series("disconnects_total", hub, `reason="closed"`):           "1",
			series("disconnects_total", hub, `reason="slow_client"`):      "0",
			series("disconnects_total", hub, `reason="shutdown"`):         "0",
			series("delivery_seconds_count", hub, ""):                     "12",
			series("delivery_seconds_bucket", hub, `le="+Inf"`):           "12",
			series("broker_up", hub, ""):                                  "1",
		} {
			if got[name] != want {
				t.Errorf("%s is %q, want %q", name, got[name], want)
			}
		}
		if size := got[series("history_bytes", hub, "")]; size == "0" || size == "" {
			t.Errorf("the history of %s has %q bytes", hub, size)
		}
	}
	wantWarning(t, server, "client refused")
	if size := got[series("broker_file_bytes", "chat", "")]; size == "0" || size == "" || got[series("broker_file_bytes", "default", "")] != "" {
		t.Errorf("the file has %q bytes", size)
	}
}

// wantWarning checks that the log has a warning that begins like this.
func wantWarning(t testing.TB, server *e2etest.Server, begin string) {
	t.Helper()
	for line := range strings.Lines(server.Log()) {
		var e struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &e) == nil && e.Level == "warn" && strings.HasPrefix(e.Msg, begin) {
			return
		}
	}
	t.Errorf("the log has no warning %q", begin)
}

// TestTheEndOfAStreamIsOneLineInTheLog also shows that no payload is in the log, at its most talkative.
func TestTheEndOfAStreamIsOneLineInTheLog(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, "{\n\tdebug\n}\n"+openSite)
	address := server.URL("/events?topic=news")
	stream := e2etest.Subscribe(t, address+"&client_id=ann")
	stream.Connected(t)
	for range 3 {
		e2etest.Publish(t, address, "the-payload")
		stream.Expect(t, "the-payload")
	}
	e2etest.Send(t, http.MethodPost, address, "\xffthe-payload")
	stream.Close()
	type entry struct {
		Level, Logger, Msg, Hub, User, Reason string
		ClientID                              string `json:"client_id"`
		Duration                              float64
		Messages, Bytes                       int
	}
	var ends []entry
	e2etest.Await(t, "the end is logged", func() bool {
		ends = nil
		for line := range strings.Lines(server.Log()) {
			var e entry
			if json.Unmarshal([]byte(line), &e) == nil && e.Msg == "client disconnected" {
				ends = append(ends, e)
			}
		}
		return len(ends) > 0
	})
	e := ends[0]
	if len(ends) != 1 || e.Level != "debug" || e.Logger != "sse" || e.Hub != "default" || e.ClientID != "ann" || e.Reason != "left" ||
		e.Messages != 3 || e.Bytes < 3*len("the-payload") || e.Duration <= 0 || e.Duration > patience.Seconds() {
		t.Errorf("the log has %+v", ends)
	}
	if strings.Contains(server.Log(), "the-payload") {
		t.Error("a payload is in the log")
	}
}
