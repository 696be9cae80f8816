package sse

import (
	"fmt"
	"maps"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

func init() {
	caddy.RegisterModule(Health{})
	httpcaddyfile.RegisterHandlerDirective("sse_health", parseHealth)
}

// Health answers how the hubs of this process are, for load balancers and orchestrators: 200 if well, 503 if
// not. Details are for the admin endpoint.
type Health struct {
	// The question. "": whether every broker is in reach and takes messages. "ready": whether every hub has
	// had its log, and the process does not exit; a broker that is away later changes nothing. "live": whether
	// the process serves. Default: "".
	Question string `json:"question,omitempty"`
}

// healthCheck answers one question about all hubs.
type healthCheck struct {
	name string // the member of the answer that is true or false
	// ask returns whether all is well, and what else the admin endpoint tells.
	ask func() (well bool, details map[string]any)
}

// healthChecks are the questions, by their name in a config.
var healthChecks = map[string]healthCheck{
	"":      {"healthy", brokersUp},
	"ready": {"ready", hubsReady},
	"live":  {"live", func() (bool, map[string]any) { return true, nil }},
}

// brokersUp reports whether every broker is in reach and takes messages.
func brokersUp() (bool, map[string]any) {
	type hubState struct {
		Name string `json:"name"`
		brokerState
	}
	down, hubs := []string{}, []hubState{}
	for _, hub := range live.All() {
		state := stateOf(hub)
		hubs = append(hubs, hubState{hub.Name, state})
		if !state.Up {
			down = append(down, hub.Name)
		}
	}
	return len(down) == 0, map[string]any{"down": down, "hubs": hubs}
}

// hubsReady reports whether every hub has had its log, until the process begins to exit.
func hubsReady() (bool, map[string]any) {
	waiting := []string{}
	for _, hub := range live.All() {
		if !hub.Core.HasHadLog() {
			waiting = append(waiting, hub.Name)
		}
	}
	exiting := caddy.Exiting()
	return len(waiting) == 0 && !exiting, map[string]any{"waiting": waiting, "exiting": exiting}
}

// answer writes the status, and the details if they are wanted.
func (c healthCheck) answer(w http.ResponseWriter, detailed bool) error {
	well, details := c.ask()
	body := map[string]any{c.name: well}
	if detailed {
		maps.Copy(body, details)
	}
	status := http.StatusOK
	if !well {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return problem.WriteJSON(w, status, body)
}

// admin answers on the admin endpoint.
func (c healthCheck) admin(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	return c.answer(w, true)
}

// CaddyModule returns the Caddy module information.
func (Health) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.sse_health", New: func() caddy.Module { return new(Health) }}
}

// Validate refuses a question that there is no answer to.
func (h *Health) Validate() error {
	if _, known := healthChecks[h.Question]; !known {
		return fmt.Errorf("%q is neither ready nor live; leave it out to ask for the brokers", h.Question)
	}
	return nil
}

// ServeHTTP answers GET and HEAD. It never calls the next handler.
func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return problem.Write(w, problem.New(http.StatusMethodNotAllowed, "use GET or HEAD"))
	}
	return healthChecks[h.Question].answer(w, false)
}

// parseHealth sets up the handler. Syntax:
//
//	sse_health [<matcher>] [ready|live]
func parseHealth(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Health)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler. See parseHealth.
func (h *Health) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		h.Question = d.Val()
		if h.Question == "" || h.Validate() != nil {
			return d.Errf("sse_health: %q is neither ready nor live; write: sse_health [ready|live]", h.Question)
		}
	}
	if d.NextArg() || d.NextBlock(0) {
		return d.Errf("sse_health takes one word and no block, not %q; write: sse_health [ready|live]", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ caddy.Validator             = (*Health)(nil)
	_ caddyfile.Unmarshaler       = (*Health)(nil)
	_ caddyhttp.MiddlewareHandler = (*Health)(nil)
)
