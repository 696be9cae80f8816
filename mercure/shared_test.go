package mercure

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// shared is a hub that a route of "sse" has as well, with all that it can do.
func shared(t *testing.T) *site {
	t.Helper()
	return &site{e2etest.Start(t, strings.Replace(siteWith(`sse {
		topic secret {
			presence on
			history latest
		}
	}`, "anonymous\nsubscriptions\nhub default"), "respond next", `sse /events {
		publish {
			open
		}
	}
	respond next`, 1)), t}
}

func TestRule42NobodyForgesWhoSubscribes(t *testing.T) {
	t.Parallel()
	s := shared(t)
	const forged = subscriptionsPath + "/a/urn:uuid:x"
	for _, options := range [][]e2etest.Option{
		{e2etest.Header("Content-Type", "application/json")}, {e2etest.Header("Content-Type", "application/x-ndjson")},
	} {
		body, _ := json.Marshal(map[string]any{"topic": []string{"b", forged}, "data": "x"})
		answer := e2etest.Send(t, http.MethodPost, s.URL("/events"), string(body), options...)
		if answer.Status != http.StatusBadRequest || !strings.Contains(answer.Body, "the hub's own") {
			t.Errorf("%d %s", answer.Status, answer.Body)
		}
	}
	wantRefusal(t, e2etest.Send(t, http.MethodPost, s.URL("/events?topic="+forged), "x"), http.StatusBadRequest, "the hub's own")
	admin := e2etest.Send(t, http.MethodPost, s.AdminURL("/sse/hubs/default/publish"), `{"topic":"`+forged+`","data":"x"}`,
		e2etest.Header("Content-Type", "application/json"))
	if admin.Status != http.StatusBadRequest {
		t.Errorf("by the admin endpoint: %d %s", admin.Status, admin.Body)
	}
	wantRefusal(t, s.post(form("topic", "b", "topic", forged), bearer(publishing("*"))), http.StatusForbidden, "own")
}
