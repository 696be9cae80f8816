package e2e

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMessageArrives(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, `
http://127.0.0.1:{{port}} {
	sse /events {
		publish {
			open
		}
	}
}
`)
	stream := e2etest.Subscribe(t, server.URL("/events?topic=news"))
	if got := stream.Connected(t); got.Status != "connected" || got.Resume != "none" || got.ClientID == "" {
		t.Errorf("connected: %+v", got)
	}
	e2etest.Publish(t, server.URL("/events?topic=news"), "hello")
	stream.Expect(t, "hello")
}
