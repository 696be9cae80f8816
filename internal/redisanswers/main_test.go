package redisanswers

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// TestMain fails the package if a test leaves a goroutine or a process behind.
func TestMain(m *testing.M) { e2etest.Main(m) }
