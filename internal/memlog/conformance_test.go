package memlog

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/broker/brokertest"
)

// module opens logs in memory, as the broker memory does.
type module struct{}

func (module) Identity() string { return "memory" }

func (module) Open(string) (broker.Log, error) { return Open(), nil }

func TestConformance(t *testing.T) {
	brokertest.Run(t, brokertest.Subject{Module: func(testing.TB) broker.Module { return module{} }})
}
