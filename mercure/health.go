package mercure

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/internal/problem"
)

func init() { caddy.RegisterModule(Admin{}) }

// Admin answers on Caddy's admin endpoint how the hubs of this protocol are, for orchestrators: 200 if well, 503 if
// not. The admin endpoint's /sse/health tells more.
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.sse_mercure", New: func() caddy.Module { return new(Admin) }}
}

// Routes implements caddy.AdminRouter.
func (*Admin) Routes() []caddy.AdminRoute {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /mercure/health/ready", answerHealth(ready))
	mux.HandleFunc("GET /mercure/health/live", answerHealth(alive))
	mux.HandleFunc("GET /mercure/health/{name}/ready", answerHealth(ready))
	mux.HandleFunc("GET /mercure/health/{name}/live", answerHealth(alive))
	serve := caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		mux.ServeHTTP(w, r)
		return nil
	})
	return []caddy.AdminRoute{{Pattern: "/mercure/health/", Handler: serve}}
}

// ready reports whether a hub has had its log, and the process does not exit. A broker that is away later changes
// nothing: clients stay.
func ready(h *served) bool { return h.Core.HasHadLog() && !caddy.Exiting() }

// alive reports whether the process serves.
func alive(*served) bool { return true }

// answerHealth asks the hub that the path names, or all.
func answerHealth(ask func(*served) bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		found, status := name == "", http.StatusOK
		for _, hub := range allServed() {
			if name != "" && hub.name != name {
				continue
			}
			if found = true; !ask(hub) {
				status = http.StatusServiceUnavailable
			}
		}
		word := "ok"
		switch {
		case !found:
			status, word = http.StatusNotFound, "unknown hub"
		case status != http.StatusOK:
			word = "unavailable"
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = problem.WriteJSON(w, status, map[string]string{"status": word}) // it always encodes
	}
}

var _ caddy.AdminRouter = (*Admin)(nil)
