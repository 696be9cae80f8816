// Package e2e tests the real binary from outside: over HTTP, with a browser,
// through reloads and restarts.
package e2e

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }
