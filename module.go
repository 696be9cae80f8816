package sse

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/cli"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/origin"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/internal/stream"
)

func init() {
	caddy.RegisterModule(Handler{})
	caddycmd.RegisterCommand(cli.Command())
}

// Handler is a route of a hub: a GET subscribes to the hub as a stream of server-sent events, a POST
// publishes to it, and a DELETE purges what is kept of a topic.
type Handler struct {
	// The hub's name. Default: "default".
	Hub string `json:"hub,omitempty"`
	// The topics, patterns and topics with placeholders that a client here receives. The placeholder
	// {http.request.uri.query.topic} on its own stands for every ?topic= of the request. Default: that.
	Topics []string `json:"topics,omitempty"`
	// The client's ID. A client whose ID comes out empty gets a generated one.
	// Default: {http.request.uri.query.client_id}
	ClientID string `json:"client_id,omitempty"`
	// The authenticated user. A client whose user comes out empty is anonymous.
	// Default: {http.auth.user.id}
	User string `json:"user,omitempty"`
	// What others see of a client in presence, beside its user; of more than 256 bytes the beginning. Default: none.
	Info string `json:"info,omitempty"`
	// The silence after which a client gets a comment. Default: 30s; negative: off.
	Heartbeat caddy.Duration `json:"heartbeat,omitempty"`
	// The reconnect delay that EventSource is told, from 100ms to 1h. Default: 2s.
	Retry caddy.Duration `json:"retry,omitempty"`
	// The time without a message after which a client is closed. Default: 0, off.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`
	// The age at which a client is closed, less up to a tenth at random. Default: 0, off.
	MaxAge caddy.Duration `json:"max_age,omitempty"`
	// The place where a client begins that brings no ID: "now", "all" that is kept for it, the "latest" of each
	// topic, so many of the newest messages ("-50"), what is kept of the last time ("10m") or since a time
	// ("2026-11-30T08:00:00Z" or Unix seconds). A query may ask for another. Default: now, and for one answer in
	// JSON all.
	Since string `json:"since,omitempty"`
	// The number of messages that a client may be behind before slow_client counts. Default: 256.
	QueueMessages int `json:"queue_messages,omitempty"`
	// The bytes of messages that a client may be behind before slow_client counts; one larger message passes
	// alone. Default: 1 MiB.
	QueueBytes int `json:"queue_bytes,omitempty"`
	// The way to treat a client whose socket takes nothing. "catch_up": it keeps its place and reads on from
	// what is kept; a gap event tells what is not. "disconnect": it is cut once it is further behind than its
	// queue. "drop_oldest": further behind, it goes on with the newest messages that its queue holds, and a
	// gap event. Default: catch_up.
	SlowClient hub.SlowClient `json:"slow_client,omitempty"`
	// The time one write may be stuck, with not one byte taken, before the client is cut. Default: 10s.
	WriteTimeout caddy.Duration `json:"write_timeout,omitempty"`
	// The number of clients one IP address may have. An IPv6 /64 counts as one address. Default: 0, no
	// limit.
	MaxClientsPerIP int `json:"max_clients_per_ip,omitempty"`
	// The number of topics and patterns one client may subscribe to. Default: 100.
	MaxTopics int `json:"max_topics,omitempty"`
	// Whether a stream begins with the event "connected". Default: true.
	ConnectedEvent *bool `json:"connected_event,omitempty"`
	// The origins whose pages may use this route with credentials, exactly as browsers send them; or "*"
	// for any origin without credentials. Default: none but the site itself.
	CORSOrigins []string `json:"cors_origins,omitempty"`
	// Whether streams are written past what wraps the response, where that is safe. Over plain HTTP/1.1 on
	// Linux they go straight to their sockets, without a goroutine and buffers for each. Default: true.
	DirectWrites *bool `json:"direct_writes,omitempty"`
	// The way streams are compressed for clients that accept it: "gzip" or "off". All clients share the work and the
	// memory. Lengths tell of what is compressed: leave it off where strangers may publish to topics that carry
	// secrets of others, and somebody may watch the line. Default: off.
	Compress string `json:"compress,omitempty"`
	// The rules for publishers. Default: none; nobody may publish.
	Publish *PublishConfig `json:"publish,omitempty"`
	// The rules for JSON Web Tokens, which say who may subscribe to what, and publish. Default: none;
	// anybody may subscribe.
	JWT *JWTConfig `json:"jwt,omitempty"`

	live        *live.Hub
	origins     origin.List
	subscribing subscribeRoute
	publishing  publishRoute
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.sse", New: func() caddy.Module { return new(Handler) }}
}

// Provision fills in the defaults and acquires the hub.
func (h *Handler) Provision(ctx caddy.Context) error {
	option.Default(&h.Hub, defaultHub)
	option.Default(&h.ClientID, "{http.request.uri.query.client_id}")
	option.Default(&h.User, "{http.auth.user.id}")
	option.Default(&h.Heartbeat, caddy.Duration(30*time.Second))
	option.Default(&h.Retry, caddy.Duration(2*time.Second))
	option.Default(&h.QueueMessages, 256)
	option.Default(&h.QueueBytes, 1<<20)
	option.Default(&h.SlowClient, hub.CatchUp)
	option.Default(&h.WriteTimeout, caddy.Duration(10*time.Second))
	option.Default(&h.MaxTopics, 100)
	h.spellBackendHeaders()
	on := true
	option.Default(&h.ConnectedEvent, &on)
	option.Default(&h.DirectWrites, &on)
	if h.Publish != nil {
		if err := h.Publish.provision(); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	if h.JWT != nil {
		if err := h.JWT.provision(); err != nil {
			return err
		}
	}
	app, err := ctx.App("sse")
	if err != nil {
		return err
	}
	if h.live, err = app.(*App).Use(h.Hub); err != nil {
		return err
	}
	if h.JWT != nil && h.JWT.address != "" {
		h.JWT.verifier.Set = h.live.KeySet(h.JWT.address)
	}
	h.wire(ctx.Logger())
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterOnShutdown(h.live.ShutDownIfExiting)
		server.RegisterConnContext(stream.KeepConn)
	}
	return nil
}

// wire gives the parts of the route what they need.
func (h *Handler) wire(logger *zap.Logger) {
	h.origins = h.CORSOrigins
	topics := newTopicRules(h.Topics)
	var tokenParameter string
	if h.JWT != nil {
		tokenParameter = h.JWT.Query
	}
	urls := newURLRules(tokenParameter, slices.Concat(h.Topics, []string{h.ClientID, h.User})...)
	urls.name(h.Info)
	access := &access{
		hub:     h.live,
		user:    h.User,
		publish: h.Publish,
		jwt:     h.JWT,
		origins: h.origins,
		topics:  topics,
	}
	h.subscribing = subscribeRoute{
		hub:            h.live,
		access:         access,
		topics:         topics,
		urls:           urls,
		maxTopics:      h.MaxTopics,
		clientID:       h.ClientID,
		info:           h.Info,
		options:        h.clientOptions(),
		polling:        h.pollingOptions(),
		since:          h.startingPoint(),
		connectedEvent: *h.ConnectedEvent,
		directWrites:   *h.DirectWrites,
		compress:       h.Compress == "gzip",
		logger:         logger,
	}
	h.publishing = publishRoute{
		hub:    h.live,
		access: access,
		topics: topics,
		urls:   urls,
		config: h.Publish,
		logger: logger,
	}
}

func (h *Handler) clientOptions() *hub.ClientOptions {
	return &hub.ClientOptions{
		Queue:        h.QueueMessages,
		QueueBytes:   h.QueueBytes,
		SlowClient:   h.SlowClient,
		Retry:        time.Duration(h.Retry),
		Heartbeat:    max(0, time.Duration(h.Heartbeat)),
		IdleTimeout:  time.Duration(h.IdleTimeout),
		MaxAge:       time.Duration(h.MaxAge),
		MaxPerSource: h.MaxClientsPerIP,
		WriteTimeout: time.Duration(h.WriteTimeout),
	}
}

// pollingOptions are the options of clients that get one answer. How long they are there is for them to say.
func (h *Handler) pollingOptions() *hub.ClientOptions {
	o := h.clientOptions()
	o.Heartbeat, o.IdleTimeout, o.MaxAge = 0, 0, 0
	return o
}

// startingPoint returns where clients begin that don't say; nil if the route doesn't either.
func (h *Handler) startingPoint() *since {
	if h.Since == "" {
		return nil
	}
	s, _ := parseSince(h.Since) // Validate refuses the rest
	return &s
}

// Bounds of the reconnect delay that a route tells.
const (
	minRouteRetry = caddy.Duration(100 * time.Millisecond)
	maxRouteRetry = caddy.Duration(time.Hour)
)

// Validate refuses values and combinations that make no sense.
func (h *Handler) Validate() error {
	for _, topic := range h.Topics {
		if err := checkRouteTopic(topic); err != nil {
			return &option.Error{Option: "topics", Err: err}
		}
	}
	for _, name := range h.CORSOrigins {
		if err := origin.Check(name); err != nil {
			return &option.Error{Option: "cors_origins", Err: err}
		}
	}
	if err := checkClientID(h.ClientID); h.ClientID != "" && err != nil {
		return &option.Error{Option: "client_id", Err: err}
	}
	if err := checkUser(h.User); h.User != "" && err != nil {
		return &option.Error{Option: "user", Err: err}
	}
	if err := checkSlowClient(cmp.Or(string(h.SlowClient), string(hub.CatchUp))); err != nil {
		return &option.Error{Option: "slow_client", Err: err}
	}
	if err := option.CheckCompress(cmp.Or(h.Compress, "off")); err != nil {
		return &option.Error{Option: "compress", Err: err}
	}
	if err := checkSince(cmp.Or(h.Since, "now")); err != nil {
		return &option.Error{Option: "since", Err: err}
	}
	for name, duration := range map[string]caddy.Duration{
		"heartbeat": h.Heartbeat, "retry": h.Retry, "idle_timeout": h.IdleTimeout, "max_age": h.MaxAge,
		"write_timeout": h.WriteTimeout,
	} {
		if err := option.CheckDuration(duration); err != nil {
			return &option.Error{Option: name, Err: err}
		}
	}
	switch {
	case len(h.CORSOrigins) > 1 && slices.Contains(h.CORSOrigins, "*"):
		return option.Wrong("cors_origins",
			"* stands alone; list origins to allow credentials, or use * for all without them")
	case h.QueueMessages < 0 || h.QueueBytes < 0:
		return errors.New("queue: give it 1 or more messages and bytes")
	case h.MaxTopics < 0 || h.MaxClientsPerIP < 0:
		return errors.New("max_topics and max_clients_per_ip can't be negative")
	case h.IdleTimeout < 0 || h.MaxAge < 0 || h.WriteTimeout < 0:
		return errors.New("idle_timeout, max_age and write_timeout can't be negative")
	case h.Retry != 0 && (h.Retry < minRouteRetry || h.Retry > maxRouteRetry):
		return option.Wrong("retry", fmt.Sprintf("%v is not within 100ms and 1h; 2s is the default",
			time.Duration(h.Retry)))
	}
	if h.JWT != nil {
		if err := h.JWT.validate(); err != nil {
			return err
		}
	}
	if h.Publish == nil {
		return nil
	}
	if !h.Publish.Open && len(h.Publish.Tokens) == 0 && h.JWT == nil {
		return option.Wrong("publish",
			"give it a token, or a jwt block beside it, or open if other directives guard this route")
	}
	return h.Publish.validate(!newTopicRules(h.Topics).fromQuery)
}

// Cleanup gives the hub back. The last route to do so closes it.
func (h *Handler) Cleanup() error {
	if h.live == nil {
		return nil // Provision did not get that far
	}
	return live.Release(h.Hub)
}

// ServeHTTP answers requests by method. It never calls the next handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	h.origins.SetHeaders(w, r, exposedHeaders)
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return h.subscribing.serve(w, r)
	case http.MethodPost:
		return h.publishing.serve(w, r)
	case http.MethodDelete:
		return h.publishing.purge(w, r)
	case http.MethodOptions:
		origin.Preflight(w, r, allowedMethods, allowedHeaders)
		return nil
	}
	w.Header().Set("Allow", allowedMethods)
	return problem.Write(w, problem.New(http.StatusMethodNotAllowed,
		"use GET to subscribe, POST to publish, and DELETE to purge"))
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
