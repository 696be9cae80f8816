package redislog

import (
	"testing"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/broker/brokertest"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// conformingModule opens logs in a real Redis, as the broker redis does. Each has keys and a line of its own.
type conformingModule struct {
	Options
	line *e2etest.Proxy
}

func (m *conformingModule) Identity() string { return "redis " + m.Prefix }

func (m *conformingModule) Open(hub string) (broker.Log, error) { return Open(hub, m.Options), nil }

func TestConformance(t *testing.T) { conform(t, e2etest.RedisServer(t)) }

func TestConformanceOnValkey(t *testing.T) { conform(t, e2etest.ValkeyServer(t)) }

func conform(t *testing.T, server *e2etest.Redis) {
	brokertest.Run(t, brokertest.Subject{
		Module: func(t testing.TB) broker.Module {
			line := e2etest.NewProxy(t, server.Addr())
			return &conformingModule{line: line, Options: newOptions(t, line.URL(), func(o *Options) {
				o.Prefix, o.Logger = hub.NewEpoch(), zap.NewNop()
			})}
		},
		Persistent: true,
		Shared:     true,
		Break: func(_ testing.TB, m broker.Module) (mend func()) {
			module := m.(*conformingModule)
			module.line.Cut()
			return module.line.Heal
		},
	})
}
