package sse

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
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

func init() { caddy.RegisterModule(new(App)) }

// App defines the hubs. A hub is what routes share, and it outlives config reloads.
type App struct {
	// The hubs by name. "default" always exists, with the defaults if it is not given here.
	Hubs map[string]*HubConfig `json:"hubs,omitempty"`

	context caddy.Context
	events  *caddyevents.App
	logger  *zap.Logger
	used    map[string]*live.Hub         // the hubs that routes of this config use
	own     map[string]string            // the configs of those that routes define themselves, in JSON
	offers  map[*live.Hub]*live.Settings // the settings that Start has offered
}

// defaultHub is the hub of a route that names none.
const defaultHub = "default"

// HubConfig says what one hub keeps, and how much it takes.
type HubConfig struct {
	// The broker, which orders and keeps the hub's log. Default: memory.
	BrokerRaw json.RawMessage `json:"broker,omitempty" caddy:"namespace=sse.brokers inline_key=type"`
	// The number of messages kept for each topic, client and user. Default: 1000; negative: none.
	HistoryCount int `json:"history_count,omitempty"`
	// The time a message is kept. Default: 1h.
	HistoryAge caddy.Duration `json:"history_age,omitempty"`
	// The bytes of messages kept in all. Topics without a new message for longest give way first.
	// Default: 256 MiB.
	HistoryBytes int64 `json:"history_bytes,omitempty"`
	// The rules for some topics instead of the hub's own. Of those that cover a topic the first counts. Default:
	// none.
	Topics []*TopicConfig `json:"topics,omitempty"`
	// The number of clients that may be connected. More get a 503. Default: 0, no limit.
	MaxClients int `json:"max_clients,omitempty"`
	// The time over which clients spread their return when the process exits. Default: 5s; negative: they
	// all return after their retry.
	DrainSpread caddy.Duration `json:"drain_spread,omitempty"`

	broker broker.Module
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "sse", New: func() caddy.Module { return new(App) }}
}

// Provision fills in the defaults and loads the brokers. It touches no hub: routes ask for those they use.
func (a *App) Provision(ctx caddy.Context) error {
	a.context, a.logger = ctx, ctx.Logger()
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	a.events = events.(*caddyevents.App)
	a.used, a.own = make(map[string]*live.Hub), make(map[string]string)
	if err := register(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if a.Hubs == nil {
		a.Hubs = make(map[string]*HubConfig)
	}
	if _, defined := a.Hubs[defaultHub]; !defined {
		a.Hubs[defaultHub] = nil
	}
	for name, config := range a.Hubs {
		if config == nil { // it is null in JSON
			config = new(HubConfig)
			a.Hubs[name] = config
		}
		if err := config.provision(ctx); err != nil {
			return fmt.Errorf("hub %s: %w", name, err)
		}
	}
	return nil
}

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
	for name, config := range a.Hubs {
		if err := checkHubName(name); err != nil {
			return err
		}
		if err := config.validate(); err != nil {
			return fmt.Errorf("hub %s: %w", name, err)
		}
	}
	return nil
}

func (c *HubConfig) validate() error {
	for option, err := range map[string]error{
		"history_age":  option.CheckDuration(c.HistoryAge),
		"drain_spread": option.CheckDuration(c.DrainSpread),
		"topics":       checkTopicConfigs(c.Topics),
	} {
		if err != nil {
			return fmt.Errorf("%s: %w", option, err)
		}
	}
	switch {
	case c.HistoryBytes < 0:
		return errors.New("history_bytes must be more than 0")
	case c.HistoryAge < 0:
		return errors.New("history_age must be more than 0")
	case c.MaxClients < 0:
		return errors.New("max_clients must be 0 (no limit) or more")
	}
	return nil
}

// Use acquires the hub of that name for a route. The route gives it back by [live.Release].
func (a *App) Use(name string) (*live.Hub, error) {
	if _, own := a.own[name]; own || a.Hubs[name] == nil {
		return nil, fmt.Errorf("hub %w", notDefined(name))
	}
	return a.acquire(name), nil
}

func (a *App) acquire(name string) *live.Hub {
	hub := live.Acquire(name)
	a.used[name] = hub
	return hub
}

// UseOwn is [App.Use] for a hub that routes define themselves. Those that name the same hub must define it alike.
func (a *App) UseOwn(ctx caddy.Context, name string, config *HubConfig) (*live.Hub, error) {
	definition, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	switch before, defined := a.own[name]; {
	case defined && before != string(definition):
		return nil, fmt.Errorf("hub %s: another route defines it otherwise; write the same there, "+
			"or give one of them another name", name)
	case defined:
		return a.acquire(name), nil
	case a.Hubs[name] != nil:
		return nil, fmt.Errorf("hub %s: the global option sse defines it, too; give one of them another name", name)
	}
	if err := cmp.Or(checkHubName(name), config.validate()); err != nil {
		return nil, fmt.Errorf("hub %s: %w", name, err)
	}
	if err := config.provision(ctx); err != nil {
		return nil, fmt.Errorf("hub %s: %w", name, err)
	}
	a.Hubs[name], a.own[name] = config, string(definition)
	return a.acquire(name), nil
}

// notDefined is the error for a route whose hub the config does not define.
func notDefined(hub string) error {
	return fmt.Errorf("%q is not defined; define it in the global options: { sse { hub %s } }", hub, hub)
}

// Start offers this config's settings to the hubs that its routes use. They count once the config before has
// stopped. An error leaves everything as it was.
func (a *App) Start() error {
	brokers := make(map[string]broker.Module)
	for name := range a.used {
		brokers[name] = a.Hubs[name].broker
	}
	if err := checkBoltFiles(brokers); err != nil {
		return err
	}
	a.offers = make(map[*live.Hub]*live.Settings)
	for name, hub := range a.used {
		config := a.Hubs[name]
		settings := &live.Settings{
			Limits: config.limits(),
			Module: config.broker,
			Logger: a.logger,
			Emit:   a.emit,
		}
		if err := hub.Offer(settings); err != nil {
			a.withdraw()
			return fmt.Errorf("hub %s: %w", name, err)
		}
		a.offers[hub] = settings
	}
	a.warnOfUnreached()
	return nil
}

// Stop takes the settings back. It touches no client: clients go on in the next config, or end with the
// process or the last route.
func (a *App) Stop() error {
	a.withdraw()
	return nil
}

// Cleanup takes the settings back, too: Caddy does not call Stop if a later part of the config fails.
func (a *App) Cleanup() error {
	a.withdraw()
	return nil
}

func (a *App) withdraw() {
	for hub, settings := range a.offers {
		hub.Withdraw(settings)
	}
	a.offers = nil
}

func (c *HubConfig) limits() hub.Limits {
	return hub.Limits{
		History: hub.HistoryLimits{
			Count: max(0, c.HistoryCount),
			Age:   time.Duration(c.HistoryAge),
			Bytes: c.HistoryBytes,
		},
		Policies:    c.policies(),
		MaxClients:  c.MaxClients,
		DrainSpread: max(0, time.Duration(c.DrainSpread)),
	}
}

// emit emits one of Caddy's events, if anybody listens.
func (a *App) emit(name string, data map[string]any) {
	if a.events.ShouldEmit(name) {
		ctx := a.context // it may end before the last clients of a hub do
		ctx.Context = context.WithoutCancel(ctx.Context)
		a.events.Emit(ctx, name, data)
	}
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
