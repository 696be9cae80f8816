package sse

import (
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/cli"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/internal/stream"
)

func init() {
	caddy.RegisterModule(new(App))
	caddy.RegisterModule(Handler{})
	caddycmd.RegisterCommand(cli.Command())
}

// Handler serves a hub's messages: GET subscribes to the hub as a stream of server-sent events, POST
// publishes to it.
type Handler struct {
	// The hub. Default: "default".
	Hub string `json:"hub,omitempty"`
	// What a client here receives: topics, patterns, and topics with placeholders. A placeholder
	// {http.request.uri.query.topic} on its own stands for every ?topic= of the request. Default: that.
	Topics []string `json:"topics,omitempty"`
	// The client's ID; where it comes out empty one is generated.
	// Default: {http.request.uri.query.client_id}
	ClientID string `json:"client_id,omitempty"`
	// The authenticated user; where it comes out empty the client is anonymous.
	// Default: {http.auth.user.id}
	User string `json:"user,omitempty"`
	// A comment is sent to a client that was silent that long. Default: 30s; negative: off.
	Heartbeat caddy.Duration `json:"heartbeat,omitempty"`
	// The reconnect delay told to EventSource. Default: 2s; negative: 0.
	Retry caddy.Duration `json:"retry,omitempty"`
	// Closes a client that got no message for that long. Default: 0, off.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`
	// Closes a client that is connected that long, less up to a tenth at random. Default: 0, off.
	MaxAge caddy.Duration `json:"max_age,omitempty"`
	// How many messages may wait for a client. Default: 256.
	QueueMessages int `json:"queue_messages,omitempty"`
	// How many bytes may wait for a client; one larger message passes alone. Default: 1 MiB.
	QueueBytes int `json:"queue_bytes,omitempty"`
	// What happens to a client whose queue is full while its socket takes nothing: "disconnect", so
	// that it reconnects and resumes, or "drop_oldest", told with a gap event. Default: disconnect.
	SlowClient hub.SlowClient `json:"slow_client,omitempty"`
	// How long one write may be stuck, with not one byte taken, before the client is cut. Default: 10s.
	WriteTimeout caddy.Duration `json:"write_timeout,omitempty"`
	// How many clients one IP address may have, an IPv6 /64 counting as one. Default: 0, no limit.
	MaxClientsPerIP int `json:"max_clients_per_ip,omitempty"`
	// How many topics and patterns one client may subscribe to. Default: 100.
	MaxTopics int `json:"max_topics,omitempty"`
	// Whether a stream begins with the event "connected". Default: true.
	ConnectedEvent *bool `json:"connected_event,omitempty"`
	// Origins whose pages may use this route with credentials, exactly as browsers send them; or "*"
	// for any without credentials. Default: none but the site itself.
	CORSOrigins []string `json:"cors_origins,omitempty"`
	// Whether streams are written past what wraps the response where that is safe; over plain HTTP/1.1 on Linux to their
	// sockets, without a goroutine and buffers for each. Default: true.
	DirectWrites *bool `json:"direct_writes,omitempty"`
	// Who may publish, and what. Default: nobody.
	Publish *PublishConfig `json:"publish,omitempty"`
	// Lets JSON Web Tokens say who may subscribe to what, and publish. Default: none; anybody may
	// subscribe.
	JWT *JWTConfig `json:"jwt,omitempty"`

	hub         *live.Hub
	origins     origins
	subscribing subscribeRoute
	publishing  publishRoute
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.sse", New: func() caddy.Module { return new(Handler) }}
}

// Provision fills in the defaults and joins the hub.
func (h *Handler) Provision(ctx caddy.Context) error {
	option.Default(&h.Hub, defaultHub)
	option.Default(&h.ClientID, "{http.request.uri.query.client_id}")
	option.Default(&h.User, "{http.auth.user.id}")
	option.Default(&h.Heartbeat, caddy.Duration(30*time.Second))
	option.Default(&h.Retry, caddy.Duration(2*time.Second))
	option.Default(&h.QueueMessages, 256)
	option.Default(&h.QueueBytes, 1<<20)
	option.Default(&h.SlowClient, hub.Disconnect)
	option.Default(&h.WriteTimeout, caddy.Duration(10*time.Second))
	option.Default(&h.MaxTopics, 100)
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
	if h.hub, err = app.(*App).use(h.Hub); err != nil {
		return err
	}
	if h.JWT != nil && h.JWT.address != "" {
		h.JWT.verifier.Set = h.hub.KeySet(h.JWT.address)
	}
	h.wire(ctx.Logger())
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterOnShutdown(h.drainIfExiting)
		server.RegisterConnContext(stream.KeepConn)
	}
	return nil
}

// wire gives the parts of the route what they need of its config.
func (h *Handler) wire(logger *zap.Logger) {
	h.origins = h.CORSOrigins
	topics := newTopicRules(h.Topics)
	access := &access{hub: h.hub, user: h.User, publish: h.Publish, jwt: h.JWT, origins: h.origins, topics: topics}
	h.subscribing = subscribeRoute{
		hub:            h.hub,
		access:         access,
		topics:         topics,
		maxTopics:      h.MaxTopics,
		clientID:       h.ClientID,
		options:        h.clientOptions(),
		connectedEvent: *h.ConnectedEvent,
		directWrites:   *h.DirectWrites,
		logger:         logger,
	}
	h.publishing = publishRoute{hub: h.hub, access: access, topics: topics, config: h.Publish, logger: logger}
}

func (h *Handler) clientOptions() *hub.ClientOptions {
	return &hub.ClientOptions{
		Queue:        h.QueueMessages,
		QueueBytes:   h.QueueBytes,
		SlowClient:   h.SlowClient,
		Retry:        max(0, time.Duration(h.Retry)),
		Heartbeat:    max(0, time.Duration(h.Heartbeat)),
		IdleTimeout:  time.Duration(h.IdleTimeout),
		MaxAge:       time.Duration(h.MaxAge),
		MaxPerSource: h.MaxClientsPerIP,
		WriteTimeout: time.Duration(h.WriteTimeout),
	}
}

// drainIfExiting runs when a server shuts down, because of a reload or of the end. The process waits
// for every request, and so for every stream, before it goes.
func (h *Handler) drainIfExiting() {
	if caddy.Exiting() {
		h.hub.ShutDown()
	}
}

// Validate refuses settings that make no sense.
func (h *Handler) Validate() error { return h.check() }

// Cleanup gives the hub back; the last route to do so closes it.
func (h *Handler) Cleanup() error {
	if h.hub == nil {
		return nil // Provision did not get that far
	}
	return live.Release(h.Hub)
}

// ServeHTTP answers requests by method. It never calls the next handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	h.origins.setHeaders(w, r)
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return h.subscribing.serve(w, r)
	case http.MethodPost:
		return h.publishing.serve(w, r)
	case http.MethodOptions:
		return preflight(w, r)
	}
	w.Header().Set("Allow", allowedMethods)
	return problem.Write(w, problem.New(http.StatusMethodNotAllowed, "use GET to subscribe and POST to publish"))
}

// Interface guards
var (
	_ caddy.App                   = (*App)(nil)
	_ caddy.Provisioner           = (*App)(nil)
	_ caddy.Validator             = (*App)(nil)
	_ caddy.CleanerUpper          = (*App)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddy.Destructor            = (*live.Hub)(nil)
)
