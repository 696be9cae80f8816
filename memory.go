package sse

import (
	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/internal/memlog"
)

func init() { caddy.RegisterModule(MemoryBroker{}) }

// MemoryBroker keeps a hub's log in this process. There is nothing to install, and the log ends with the
// process. It is the default and has no options.
type MemoryBroker struct{}

// CaddyModule returns the Caddy module information.
func (MemoryBroker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "sse.brokers.memory", New: func() caddy.Module { return new(MemoryBroker) }}
}

// Identity implements [broker.Module].
func (MemoryBroker) Identity() string { return "memory" }

// Open implements [broker.Module].
func (MemoryBroker) Open(string) (broker.Log, error) {
	return memlog.Open(), nil
}
