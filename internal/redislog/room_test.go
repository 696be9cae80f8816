package redislog

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

func TestAnEntryWithTheLargestIDEndsPublishingUntilTheKeyIsRemoved(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	i := start(t, server.URL())
	r := i.subscribe(hubtest.With("a"))
	i.publish("before", hub.Topics("a")...)
	do(t, client, "XADD "+defaultLog+" 18446744073709551615-18446744073709551615 topic a data last")
	r.awaitText("last")
	e2etest.Await(t, "the log to be down", func() bool { return !i.LogUp() })
	later := launch(t, newOptions(t, server.URL())) // one that finds it so
	later.awaitReady()
	e2etest.Await(t, "the log to be down there, too", func() bool { return later.LogInReach() && !later.LogUp() })
	for _, i := range []*instance{i, later} {
		awaitReads(t, client, 4) // by then presence has been told several times, which worked
		if i.LogUp() || !i.LogInReach() {
			t.Error("the log counts as up, or as out of reach")
		}
		lines := i.logs.FilterMessageSnippet("out of reach").All()
		if said := fmt.Sprint(lines); len(lines) != 1 || !strings.Contains(said, "DEL '"+defaultLog+"'") {
			t.Errorf("the log says %s", said)
		}
		if _, err := i.tryPublish(newPublication("no", hub.Topics("a")...)); !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("publishing gives %v", err)
		}
	}
	do(t, client, "DEL "+defaultLog)
	i.awaitUp()
	later.awaitUp()
	later.publish("after", hub.Topics("a")...)
	r.want("before", "last", hubtest.Gap("log_lost"), "after")
}

// The entry may be removed before an instance has read it; the stream remembers its ID.
func TestARemovedEntryWithTheLargestIDEndsPublishingAsWell(t *testing.T) {
	t.Parallel()
	server := e2etest.RedisServer(t)
	client := admin(t, server.URL())
	do(t, client, "XADD "+defaultLog+" 1-1 topic a data first")
	do(t, client, "XADD "+defaultLog+" 18446744073709551615-18446744073709551615 topic a data last")
	do(t, client, "XDEL "+defaultLog+" 18446744073709551615-18446744073709551615")
	i := start(t, server.URL())
	if _, err := i.tryPublish(newPublication("no", hub.Topics("a")...)); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("publishing gives %v", err)
	}
	e2etest.Await(t, "the log to be down", func() bool { return !i.LogUp() })
	do(t, client, "DEL "+defaultLog)
	i.awaitUp()
	i.publish("after", hub.Topics("a")...)
}
