package sse

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
)

// newTestLog returns a memory broker that feeds a hub.
func newTestLog(t testing.TB, h *hub.Hub) *memoryLog {
	broker, err := MemoryBroker{}.Open("test")
	if err != nil {
		t.Fatal(err)
	}
	broker.Start(h, func() {})
	return broker.(*memoryLog)
}
