package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// presenceSite is a site on a log in Redis, whose rooms have presence.
func presenceSite(redis string) string {
	return `
{
	sse {
		broker redis ` + redis + `
		topic room/* {
			presence on
		}
	}
}
` + openSite
}

// awaitThere waits until so many clients are at a topic. It returns how long that took.
func awaitThere(t *testing.T, server *e2etest.Server, topic string, clients int) time.Duration {
	t.Helper()
	began := time.Now()
	e2etest.Await(t, fmt.Sprintf("%d clients at %s", clients, topic), func() bool {
		answer, err := e2etest.Do(t.Context(), "GET", server.URL("/events?presence="+topic), "")
		return err == nil && answer.Status == 200 && clientsIn(answer.Body) == clients
	})
	return time.Since(began)
}

// clientsIn returns how many clients an answer or an event tells of; -1 if it tells of none.
func clientsIn(text string) int {
	now := struct{ Clients int }{-1}
	_ = json.Unmarshal([]byte(text), &now)
	return now.Clients
}

func TestClientsOfAKilledInstanceHaveLeft(t *testing.T) {
	e2etest.NotAboutStreams(t)
	t.Parallel()
	redis := e2etest.RedisServer(t)
	here, there := e2etest.Start(t, presenceSite(redis.URL())), e2etest.Start(t, presenceSite(redis.URL()))
	watch := e2etest.Subscribe(t, here.URL("/events?topic=room/1"))
	watch.Connected(t)
	const n = 50
	for i := range n {
		e2etest.Subscribe(t, there.URL(fmt.Sprintf("/events?topic=room/1&client_id=c%d", i))).Connected(t)
	}
	awaitThere(t, here, "room/1", n+1)
	awaitThere(t, there, "room/1", n+1)
	there.Kill()
	if took := awaitThere(t, here, "room/1", 1); took > 15*time.Second {
		t.Errorf("the clients of an instance that was killed were there for %v", took)
	}
	for told := 0; told != 1; {
		event, err := watch.Next(patience)
		if err != nil {
			t.Fatal(err)
		}
		if event.Name == "presence" {
			told = clientsIn(string(event.Data))
		}
	}
	there.Restart()
	e2etest.Subscribe(t, there.URL("/events?topic=room/1&client_id=c0")).Connected(t)
	awaitThere(t, here, "room/1", 2)
}
