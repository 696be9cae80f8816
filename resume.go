package sse

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/option"
)

func init() { caddy.RegisterModule(Resume{}) }

// Resume makes the streams of the handlers behind it outlive their readers, as those of an AI that
// reverse_proxy asks. It keeps a 200 with text/event-stream or application/x-ndjson to a POST, or to a GET that
// accepts it, and gives its events IDs; who comes back with one goes on there, and the upstream is asked once.
// All else passes untouched.
type Resume struct {
	// The hub whose broker, exit and metrics the answers share. Default: "default".
	Hub string `json:"hub,omitempty"`
	// Whose an answer is: nobody else may read or stop it. Where it comes out empty, whoever knows an
	// answer's ID may. "none": that, and keys and names count for anybody. Default: {http.auth.user.id}
	Bind string `json:"bind,omitempty"`
	// The key of a request: a repetition gets the same answer. Needs bind. Default: none.
	Key string `json:"key,omitempty"`
	// The name of an answer, by which the newest is found: a placeholder, or "json <field>" for a text in the
	// request's JSON body. Needs bind. Default: none.
	Name string `json:"name,omitempty"`
	// Which GETs and DELETEs ask by name: a path with one "*", or a placeholder that is not empty. What it
	// stands for is the name. Needs name. Default: none.
	Lookup string `json:"lookup,omitempty"`
	// What the upstream's own ids mean. "": it resumes by itself, and its stream is passed on. "replace": they
	// are replaced by ours. Default: "".
	IDs string `json:"ids,omitempty"`
	// The time after which an upstream that nobody reads is cancelled. Default: 60s; negative: it may finish.
	OnAbandon caddy.Duration `json:"on_abandon,omitempty"`
	// The time that an answer is kept after its end. Default: 10m.
	TTL caddy.Duration `json:"ttl,omitempty"`
	// The time that an answer may take. Default: 15m.
	MaxTime caddy.Duration `json:"max_time,omitempty"`
	// The bytes that an answer may have. Default: 16 MiB.
	MaxBytes int64 `json:"max_bytes,omitempty"`
	// The bytes that all answers of the hub may have. The longest ended give way. Default: 256 MiB.
	MaxTotal int64 `json:"max_total,omitempty"`
	// The number of upstreams that nobody reads. Of more, those that nobody reads for longest are cancelled.
	// Default: 1000.
	MaxLive int `json:"max_live,omitempty"`
	// The bytes of a request's body. Requests with more pass, and their answers are not kept. Default: 10 MiB.
	MaxBody int64 `json:"max_body,omitempty"`
	// The silence of the upstream after which readers get a comment. Default: 15s; negative: off.
	Heartbeat caddy.Duration `json:"heartbeat,omitempty"`

	live   *live.Hub
	bind   string
	lookup lookup
	logger *zap.Logger
}

// bindNone is the bind of answers that are whoever's who knows their ID, key or name.
const bindNone = "none"

// CaddyModule returns the Caddy module information.
func (Resume) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.sse_resume", New: func() caddy.Module { return new(Resume) }}
}

// Provision fills in the defaults and acquires the hub.
func (h *Resume) Provision(ctx caddy.Context) error {
	option.Default(&h.Hub, defaultHub)
	option.Default(&h.OnAbandon, caddy.Duration(time.Minute))
	option.Default(&h.TTL, caddy.Duration(10*time.Minute))
	option.Default(&h.MaxTime, caddy.Duration(15*time.Minute))
	option.Default(&h.MaxBytes, 16<<20)
	option.Default(&h.MaxTotal, 256<<20)
	option.Default(&h.MaxLive, 1000)
	option.Default(&h.MaxBody, 10<<20)
	option.Default(&h.Heartbeat, caddy.Duration(15*time.Second))
	h.bind = cmp.Or(h.Bind, "{http.auth.user.id}")
	h.lookup = newLookup(h.Lookup)
	h.logger = ctx.Logger()
	app, err := ctx.App("sse")
	if err != nil {
		return err
	}
	if h.live, err = app.(*App).Use(h.Hub); err != nil {
		return err
	}
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterOnShutdown(h.live.ShutDownIfExiting)
	}
	return nil
}

// Validate refuses values and combinations that make no sense.
func (h *Resume) Validate() error {
	for name, duration := range map[string]caddy.Duration{
		"on_abandon": h.OnAbandon, "ttl": h.TTL, "max_time": h.MaxTime, "heartbeat": h.Heartbeat,
	} {
		if err := option.CheckDuration(duration); err != nil {
			return &option.Error{Option: name, Err: err}
		}
	}
	for name, value := range map[string]string{
		"bind": h.Bind, "key": h.Key, "name": h.Name, "lookup": h.Lookup,
	} {
		if err := option.CheckPlaceholders(value); err != nil {
			return &option.Error{Option: name, Err: err}
		}
	}
	for name, value := range map[string]string{"key": h.Key, "name": h.Name} {
		if value != "" && h.Bind == "" {
			return option.Wrong(name, "keys and names can be guessed, so write out whose an answer is: "+
				"bind {http.auth.user.id}; or bind none if anybody may read what anybody asked")
		}
	}
	switch {
	case h.Key != "" && len(option.Placeholders(h.Key)) == 0:
		return option.Wrong("key", "it is the same for all requests; give it a placeholder, "+
			"such as {header.Idempotency-Key}")
	case h.Name != "" && !isJSONName(h.Name) && len(option.Placeholders(h.Name)) == 0:
		return option.Wrong("name", "it is the same for all requests; give it a placeholder, or json <field>")
	case h.Lookup != "" && h.Name == "":
		return option.Wrong("lookup", "there are no names to look up; add name")
	case h.IDs != "" && h.IDs != "replace":
		return option.Wrong("ids", fmt.Sprintf("%q is not replace; leave it out to pass on streams with ids", h.IDs))
	case h.TTL < 0 || h.MaxTime < 0:
		return errors.New("ttl and max_time can't be negative")
	case h.MaxBytes < 0 || h.MaxTotal < 0 || h.MaxLive < 0 || h.MaxBody < 0:
		return errors.New("max_bytes, max_total, max_live and max_body can't be negative")
	}
	return checkLookup(h.Lookup)
}

// Cleanup gives the hub back. The last route to do so closes it.
func (h *Resume) Cleanup() error {
	if h.live == nil {
		return nil // Provision did not get that far
	}
	return live.Release(h.Hub)
}

func (h *Resume) bounds() answers.Bounds {
	return answers.Bounds{
		MaxBytes: h.MaxBytes,
		MaxTime:  time.Duration(h.MaxTime),
		MaxTotal: h.MaxTotal,
		MaxLive:  h.MaxLive,
		Abandon:  max(0, time.Duration(h.OnAbandon)),
		TTL:      time.Duration(h.TTL),
	}
}

// jsonName is how a name begins that stands in a request's body.
const jsonName = "json "

func isJSONName(name string) bool { return strings.HasPrefix(name, jsonName) }

// ServeHTTP answers what asks for an answer that is kept, and has the next handler answer all else.
func (h *Resume) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	asked := h.ask(r)
	switch r.Method {
	case http.MethodDelete:
		if asked.byID || asked.byName {
			return h.stop(w, r, asked)
		}
	case http.MethodGet, http.MethodPost:
		switch {
		case asked.refusal != nil:
			return h.refuse(w, asked.refusal)
		case asked.status:
			return h.tellStatus(w, r, asked)
		case asked.byID:
			return h.resume(w, r, asked)
		case asked.byName:
			return h.resumeNamed(w, r, asked)
		case mayStream(r):
			return h.record(w, r, next, asked)
		}
	}
	return next.ServeHTTP(w, r)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Resume)(nil)
	_ caddy.Validator             = (*Resume)(nil)
	_ caddy.CleanerUpper          = (*Resume)(nil)
	_ caddyhttp.MiddlewareHandler = (*Resume)(nil)
)
