package sse

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/option"
)

// App holds the hubs: the state that routes share and that outlives config reloads.
type App struct {
	// The hubs by name. "default" always exists, with the defaults if it is not given here.
	Hubs map[string]*HubConfig `json:"hubs,omitempty"`

	context caddy.Context
	events  *caddyevents.App
	logger  *zap.Logger
	used    map[string]*live.Hub         // by routes of this config
	offers  map[*live.Hub]*live.Settings // what Start has offered
}

// HubConfig is what one hub keeps and how much it takes.
type HubConfig struct {
	// The broker, which orders and keeps the hub's log. Default: memory.
	BrokerRaw json.RawMessage `json:"broker,omitempty" caddy:"namespace=sse.brokers inline_key=type"`
	// How many messages are kept per topic (or client, or user). Default: 1000; negative: none.
	HistoryCount int `json:"history_count,omitempty"`
	// How long a message is kept. Default: 1h.
	HistoryAge caddy.Duration `json:"history_age,omitempty"`
	// How many bytes of messages are kept in all; the topics published to longest ago give way.
	// Default: 256 MiB.
	HistoryBytes int64 `json:"history_bytes,omitempty"`
	// How many clients may be connected; more are answered 503. Default: 0, no limit.
	MaxClients int `json:"max_clients,omitempty"`
	// Over how long clients are told to spread their return when the process exits. Default: 5s;
	// negative: they all come back after their retry.
	DrainSpread caddy.Duration `json:"drain_spread,omitempty"`

	broker broker.Module
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "sse", New: func() caddy.Module { return new(App) }}
}

// Provision sets the app up. It touches no hub yet: routes ask for the ones they use.
func (a *App) Provision(ctx caddy.Context) error {
	a.context, a.logger = ctx, ctx.Logger()
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	a.events = events.(*caddyevents.App)
	a.used = make(map[string]*live.Hub)
	if err := register(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if a.Hubs == nil {
		a.Hubs = make(map[string]*HubConfig)
	}
	if _, defined := a.Hubs[defaultHub]; !defined {
		a.Hubs[defaultHub] = nil
	}
	for name, hub := range a.Hubs {
		if hub == nil { // as null in JSON
			hub = new(HubConfig)
			a.Hubs[name] = hub
		}
		if err := hub.provision(ctx); err != nil {
			return fmt.Errorf("hub %s: %w", name, err)
		}
	}
	return nil
}

const defaultHub = "default"

func (c *HubConfig) provision(ctx caddy.Context) error {
	if c.BrokerRaw == nil {
		c.broker = new(MemoryBroker)
	} else {
		module, err := ctx.LoadModule(c, "BrokerRaw")
		if err != nil {
			return fmt.Errorf("loading the broker: %w", err)
		}
		c.broker = module.(broker.Module)
	}
	option.Default(&c.HistoryCount, 1000)
	option.Default(&c.HistoryAge, caddy.Duration(time.Hour))
	option.Default(&c.HistoryBytes, 256<<20)
	option.Default(&c.DrainSpread, caddy.Duration(5*time.Second))
	return nil
}

// Validate refuses settings that make no sense.
func (a *App) Validate() error {
	for name, hub := range a.Hubs {
		if err := checkHubName(name); err != nil {
			return err
		}
		switch {
		case hub.HistoryBytes < 0:
			return fmt.Errorf("hub %s: history_bytes must be more than 0", name)
		case hub.HistoryAge < 0:
			return fmt.Errorf("hub %s: history_age must be more than 0", name)
		case hub.MaxClients < 0:
			return fmt.Errorf("hub %s: max_clients must be 0 (no limit) or more", name)
		}
	}
	return nil
}

func (c *HubConfig) limits() hub.Limits {
	return hub.Limits{
		History: hub.HistoryLimits{
			Count: max(0, c.HistoryCount),
			Age:   time.Duration(c.HistoryAge),
			Bytes: c.HistoryBytes,
		},
		MaxClients:  c.MaxClients,
		DrainSpread: max(0, time.Duration(c.DrainSpread)),
	}
}

// emit tells those who listen to Caddy's events of one.
func (a *App) emit(name string, data map[string]any) {
	if a.events.ShouldEmit(name) {
		ctx := a.context // which ends before the last clients of a hub do that is no longer used
		ctx.Context = context.WithoutCancel(ctx.Context)
		a.events.Emit(ctx, name, data)
	}
}

// Start offers this config's settings to the hubs that its routes use. They hold once the config
// before it has stopped. What fails here leaves everything as it was.
func (a *App) Start() error {
	a.offers = make(map[*live.Hub]*live.Settings)
	for name, hub := range a.used {
		config := a.Hubs[name]
		o := &live.Settings{Limits: config.limits(), Module: config.broker, Logger: a.logger, Emit: a.emit}
		if err := hub.Offer(o); err != nil {
			a.withdraw()
			return fmt.Errorf("hub %s: %w", name, err)
		}
		a.offers[hub] = o
	}
	return nil
}

// Stop takes the settings back. Clients are none of its business: they live on in the next config,
// or end with the process or the last route.
func (a *App) Stop() error {
	a.withdraw()
	return nil
}

// Cleanup takes the settings back, too: if a later part of the config fails, Stop is not called.
func (a *App) Cleanup() error {
	a.withdraw()
	return nil
}

func (a *App) withdraw() {
	for hub, o := range a.offers {
		hub.Withdraw(o)
	}
	a.offers = nil
}

// use returns the hub of that name for a route, which gives it back with releaseHub.
func (a *App) use(name string) (*live.Hub, error) {
	if a.Hubs[name] == nil {
		return nil, fmt.Errorf("hub %q is not defined; define it in the global options: { sse { hub %s } }", name, name)
	}
	hub := live.Acquire(name)
	a.used[name] = hub
	return hub, nil
}
