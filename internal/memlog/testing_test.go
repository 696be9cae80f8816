package memlog

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
)

// newTestLog returns a memory broker that feeds a hub.
func newTestLog(t testing.TB, h *hub.Hub) *Log {
	log := Open()
	log.Start(h, func() {})
	return log
}
