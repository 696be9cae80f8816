package mercure

import (
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	sse "github.com/caddy-sse/caddy-sse"
	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/origin"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/internal/stream"
)

func init() { caddy.RegisterModule(Handler{}) }

// Path is where the protocol has its hub. Requests for other paths go on to the next handler.
const Path = "/.well-known/mercure"

// Handler is a hub of the Mercure protocol at [Path]: a GET subscribes to updates, a POST publishes one.
type Handler struct {
	// The hub's name in metrics and health. Routes with the same name share a hub. Default: "default".
	Name string `json:"name,omitempty"`
	// The hub of the app "sse" to share with its routes, instead of one with the name. Excludes transport, history and
	// name. Default: none.
	Hub string `json:"hub,omitempty"`
	// Where updates are kept. Default: bolt, in Caddy's data folder; or what TransportURL says.
	Transport *Transport `json:"transport,omitempty"`
	// Where updates are kept, in the old form: bolt://, local:// or redis://. Placeholders are replaced. Default: the
	// environment variable MERCURE_TRANSPORT_URL, if there is no transport.
	TransportURL string `json:"transport_url,omitempty"`
	// The number of updates kept for each topic. Default: 1000.
	HistoryCount int `json:"history_count,omitempty"`
	// The time an update is kept. Default: 24h.
	HistoryAge caddy.Duration `json:"history_age,omitempty"`

	// The key that publishers' tokens are signed with. Default: none.
	PublisherJWT *Key `json:"publisher_jwt,omitempty"`
	// The address of a JSON Web Key Set with such keys: https, http on loopback, or file:///path. Placeholders are
	// replaced. Excludes PublisherJWT. Default: none.
	PublisherJWKS string `json:"publisher_jwks_url,omitempty"`
	// The key that subscribers' tokens are signed with. Needed unless Anonymous. Default: none.
	SubscriberJWT *Key `json:"subscriber_jwt,omitempty"`
	// The address of a key set for subscribers, as PublisherJWKS. Excludes SubscriberJWT. Default: none.
	SubscriberJWKS string `json:"subscriber_jwks_url,omitempty"`
	// Whether subscribers without a token get what is not private. Default: false.
	Anonymous bool `json:"anonymous,omitempty"`
	// Whether those whose token grants it are told who subscribes to what, on all instances: by the subscription API, and
	// by private updates. Default: false.
	Subscriptions bool `json:"subscriptions,omitempty"`
	// The cookie that may hold a token. Default: mercureAuthorization.
	CookieName string `json:"cookie_name,omitempty"`
	// The origins whose pages may use this hub with credentials, exactly as browsers send them; or "*" for any origin
	// without credentials. Default: none but the site itself.
	CORSOrigins []string `json:"cors_origins,omitempty"`
	// The origins whose pages may publish with a token in a cookie, or "*" for any. Default: none but the site itself.
	PublishOrigins []string `json:"publish_origins,omitempty"`

	// The silence after which a client gets a comment. Default: 40s; negative: off.
	Heartbeat caddy.Duration `json:"heartbeat,omitempty"`
	// Whether a client that loses updates in the middle of its stream is told by an event "gap", and goes on. Default:
	// false; the stream ends, and the client comes back.
	GapEvent *bool `json:"gap_event,omitempty"`
	// The number of topic selectors that one client may have. Default: 1000.
	MaxTopics int `json:"max_topics,omitempty"`
	// The number of clients one IP address may have. An IPv6 /64 counts as one address. Default: 0, no limit.
	MaxClientsPerIP int `json:"max_clients_per_ip,omitempty"`
	// The number of updates that a client may be behind before slow_client counts. Default: 256.
	QueueMessages int `json:"queue_messages,omitempty"`
	// The bytes of updates that a client may be behind before slow_client counts. Default: 1 MiB.
	QueueBytes int `json:"queue_bytes,omitempty"`
	// The way to treat a client whose socket takes nothing, as of a route of "sse". Default: catch_up.
	SlowClient hub.SlowClient `json:"slow_client,omitempty"`
	// The size limit of a publisher's request, in bytes. Default: 1 MiB; at most 64 MiB.
	PublishMaxSize int `json:"publish_max_size,omitempty"`
	// The updates that one publisher (token) may publish per second. Default: 0, no limit.
	Rate float64 `json:"rate,omitempty"`
	// The number of updates a publisher may send at once within its rate. Default: the rate, at least 1.
	Burst int `json:"burst,omitempty"`
	// Whether streams are written past what wraps the response, as of a route of "sse". Default: true.
	DirectWrites *bool `json:"direct_writes,omitempty"`
	// The way streams are compressed for clients that accept it, "gzip" or "off", as of a route of "sse". Default: off.
	Compress string `json:"compress,omitempty"`

	live        *live.Hub
	served      *served
	logger      *zap.Logger
	publishers  verifier
	subscribers verifier
	options     *hub.ClientOptions
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.sse_mercure", New: func() caddy.Module { return new(Handler) }}
}

// Provision fills in the defaults, reads the keys and acquires the hub.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	option.Default(&h.HistoryCount, defaultHistoryCount)
	option.Default(&h.HistoryAge, caddy.Duration(24*time.Hour))
	option.Default(&h.CookieName, "mercureAuthorization")
	option.Default(&h.Heartbeat, caddy.Duration(40*time.Second))
	option.Default(&h.MaxTopics, 1000)
	option.Default(&h.QueueMessages, 256)
	option.Default(&h.QueueBytes, 1<<20)
	option.Default(&h.SlowClient, hub.CatchUp)
	option.Default(&h.PublishMaxSize, 1<<20)
	on, off := true, false
	option.Default(&h.DirectWrites, &on)
	option.Default(&h.GapEvent, &off)
	if h.Rate > 0 && h.Burst == 0 {
		h.Burst = max(1, int(h.Rate))
	}
	if err := h.Validate(); err != nil { // before a key is read
		return err
	}
	if err := h.readKeys(); err != nil {
		return err
	}
	app, err := ctx.App("sse")
	if err != nil {
		return err
	}
	if h.live, err = h.use(ctx, app.(*sse.App)); err != nil {
		return err
	}
	h.live.OwnTopics(Path + "/")
	h.publishers.shareKeys(h.live)
	h.subscribers.shareKeys(h.live)
	h.options = h.clientOptions()
	if err := register(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterOnShutdown(h.live.ShutDownIfExiting)
		server.RegisterConnContext(stream.KeepConn)
	}
	h.serve()
	return nil
}

// retry is what clients are told to wait before they come back when the process exits, besides what spreads them.
const retry = 2 * time.Second

// writeTimeout is how long one write may be stuck before a client is cut.
const writeTimeout = 10 * time.Second

func (h *Handler) clientOptions() *hub.ClientOptions {
	return &hub.ClientOptions{
		Queue:        h.QueueMessages,
		QueueBytes:   h.QueueBytes,
		SlowClient:   h.SlowClient,
		Retry:        retry,
		Heartbeat:    max(0, time.Duration(h.Heartbeat)),
		MaxPerSource: h.MaxClientsPerIP,
		WriteTimeout: writeTimeout,
		GapEvents:    *h.GapEvent,
	}
}

// Cleanup gives the hub back. The last route to do so closes it.
func (h *Handler) Cleanup() error {
	if h.live == nil {
		return nil // Provision did not get that far
	}
	h.unserve()
	return live.Release(h.live.Name)
}

// allowedMethods are those that the hub's own path serves.
const allowedMethods = "GET, HEAD, POST, OPTIONS"

// allowedHeaders are what pages of other origins may send.
const allowedHeaders = "Authorization, Cache-Control, Content-Type, Last-Event-ID, " + origin.LibraryHeaders

// ServeHTTP answers requests for the hub's path and what is below it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.URL.Path != Path && !strings.HasPrefix(r.URL.Path, Path+"/") {
		return next.ServeHTTP(w, r)
	}
	origin.List(h.CORSOrigins).SetHeaders(w, r, "Last-Event-ID")
	switch {
	case h.Subscriptions && (r.URL.Path == subscriptionsPath || strings.HasPrefix(r.URL.Path, subscriptionsPath+"/")):
		return h.subscriptionAPI(w, r)
	case r.URL.Path != Path:
		return problem.Write(w, problem.New(http.StatusNotFound,
			"there is nothing at this path; the hub is at %s, without a slash at the end", Path))
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		return h.subscribe(w, r)
	case r.Method == http.MethodPost:
		return h.publish(w, r)
	case r.Method == http.MethodOptions:
		origin.Preflight(w, r, allowedMethods, allowedHeaders)
		return nil
	}
	w.Header().Set("Allow", allowedMethods)
	return problem.Write(w, problem.New(http.StatusMethodNotAllowed, "use GET to subscribe, and POST to publish"))
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
