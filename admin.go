package sse

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

func init() { caddy.RegisterModule(Admin{}) }

// Admin serves, on Caddy's admin endpoint, what an operator wants to see of the hubs and do to them,
// and a dashboard that shows it. Nothing streams here: Caddy waits for the endpoint at every reload.
type Admin struct {
	mux *http.ServeMux
	log *zap.Logger
}

//go:embed dashboard
var dashboardFiles embed.FS

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.sse", New: func() caddy.Module { return new(Admin) }}
}

// Provision sets the routes up.
func (a *Admin) Provision(ctx caddy.Context) error {
	a.log = ctx.Logger()
	dashboard, err := fs.Sub(dashboardFiles, "dashboard")
	if err != nil {
		return err
	}
	files := http.StripPrefix("/sse/", http.FileServerFS(dashboard))
	a.mux = http.NewServeMux()
	a.mux.Handle("GET /sse/{$}", files)
	a.mux.Handle("GET /sse/assets/", files)
	a.mux.Handle("GET /sse/hubs", adminFunc(a.hubs))
	a.mux.Handle("GET /sse/health", adminFunc(a.health))
	a.mux.Handle("GET /sse/hubs/{hub}/clients", adminFunc(a.clients))
	a.mux.Handle("GET /sse/hubs/{hub}/topics", adminFunc(a.topics))
	a.mux.Handle("GET /sse/hubs/{hub}/messages", adminFunc(a.messages))
	a.mux.Handle("DELETE /sse/hubs/{hub}/clients/{client_id}", adminFunc(a.kick))
	a.mux.Handle("POST /sse/hubs/{hub}/publish", adminFunc(a.publish))
	return nil
}

// Routes implements caddy.AdminRouter.
func (a *Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/sse/", Handler: caddy.AdminHandlerFunc(a.serve)}}
}

func (a *Admin) serve(w http.ResponseWriter, r *http.Request) error {
	if _, pattern := a.mux.Handler(r); pattern == "" {
		return notServed(a.mux, r)
	}
	// Errors are answered as Caddy's admin endpoint words them, but are nothing it need log.
	a.mux.ServeHTTP(w, r)
	return nil
}

// notServed says whether it is the path or the method that is not served.
func notServed(mux *http.ServeMux, r *http.Request) error {
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := mux.Handler(other); pattern != "" {
			return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("method not allowed; use %s", method)}
		}
	}
	return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("there is nothing at this path")}
}

// adminFunc is a handler whose error becomes the answer.
type adminFunc func(w http.ResponseWriter, r *http.Request) error

func (f adminFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := f(w, r)
	if err == nil {
		return
	}
	answer := caddy.APIError{HTTPStatus: http.StatusInternalServerError, Message: err.Error()}
	if failure, ok := errors.AsType[caddy.APIError](err); ok {
		answer.HTTPStatus, answer.Message = failure.HTTPStatus, failure.Err.Error()
	}
	_ = answerJSON(w, answer.HTTPStatus, answer)
}

func answerJSON(w http.ResponseWriter, status int, body any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(body)
}

func badRequest(format string, args ...any) error {
	return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: fmt.Errorf(format, args...)}
}

func notFound(format string, args ...any) error {
	return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf(format, args...)}
}

// runningHubs returns the hubs that routes use, by name.
func runningHubs() (running []*sharedHub) {
	hubs.Range(func(_, value any) bool {
		running = append(running, value.(*sharedHub))
		return true
	})
	slices.SortFunc(running, func(a, b *sharedHub) int { return strings.Compare(a.name, b.name) })
	return running
}

func hubOf(r *http.Request) (*sharedHub, error) {
	name := r.PathValue("hub")
	for _, hub := range runningHubs() {
		if hub.name == name {
			return hub, nil
		}
	}
	return nil, notFound("no route uses a hub %q", name)
}

// parameters reads the query, in which only the named parameters may stand.
func parameters(r *http.Request, names ...string) (map[string]string, error) {
	values := make(map[string]string)
	for name, all := range r.URL.Query() {
		if !slices.Contains(names, name) {
			return nil, badRequest("unknown parameter %q; the parameters here are %s", name, strings.Join(names, ", "))
		}
		values[name] = all[0]
	}
	return values, nil
}

const (
	defaultLimit = 100
	maxLimit     = 1000
)

func limitOf(text string) (int, error) {
	if text == "" {
		return defaultLimit, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maxLimit {
		return 0, badRequest("limit must be a number from 1 to %d", maxLimit)
	}
	return limit, nil
}

// hubInfo is a hub at a glance: its numbers are those of the metrics.
type hubInfo struct {
	Name         string `json:"name"`
	Broker       string `json:"broker"`
	Up           bool   `json:"up"`
	Clients      int    `json:"clients"`
	Connections  uint64 `json:"connections"`
	Limited      uint64 `json:"limited"`
	Refused      uint64 `json:"refused"`
	Reconnects   uint64 `json:"reconnects"`
	Gaps         uint64 `json:"gaps"`
	Published    uint64 `json:"messages_published"`
	Sent         uint64 `json:"messages_sent"`
	Dropped      uint64 `json:"messages_dropped"`
	HistoryBytes int64  `json:"history_bytes"`
}

func (s *sharedHub) info() hubInfo {
	clients, historyBytes := s.Size()
	return hubInfo{
		Name:         s.name,
		Broker:       s.brokerKind(),
		Up:           s.up(),
		Clients:      clients,
		Connections:  s.stats.accepted.Load(),
		Limited:      s.stats.limited.Load(),
		Refused:      s.stats.refused.Load(),
		Reconnects:   s.stats.resumedComplete.Load() + s.stats.resumedGap.Load(),
		Gaps:         s.stats.resumedGap.Load(),
		Published:    s.stats.published.Load(),
		Sent:         s.stats.sent.Load(),
		Dropped:      s.stats.droppedSlow.Load() + s.stats.droppedMalformed.Load(),
		HistoryBytes: historyBytes,
	}
}

func (a *Admin) hubs(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	infos := []hubInfo{}
	for _, hub := range runningHubs() {
		infos = append(infos, hub.info())
	}
	return answerJSON(w, http.StatusOK, map[string]any{"hubs": infos})
}

// health answers 503 while a broker is down.
func (a *Admin) health(w http.ResponseWriter, r *http.Request) error {
	status, down := http.StatusOK, []string{}
	for _, hub := range runningHubs() {
		if !hub.up() {
			status = http.StatusServiceUnavailable
			down = append(down, hub.name)
		}
	}
	return answerJSON(w, status, map[string]any{"healthy": len(down) == 0, "down": down})
}

func (a *Admin) clients(w http.ResponseWriter, r *http.Request) error {
	hub, err := hubOf(r)
	if err != nil {
		return err
	}
	q, err := parameters(r, "topic", "user", "limit", "after")
	if err != nil {
		return err
	}
	query := ClientQuery{Topic: q["topic"], User: q["user"]}
	if query.Limit, err = limitOf(q["limit"]); err != nil {
		return err
	}
	if after := q["after"]; after != "" {
		if query.After, err = strconv.ParseUint(after, 10, 64); err != nil {
			return badRequest("after must be the next of an earlier page")
		}
	}
	page, next := hub.ListClients(query)
	answer := map[string]any{"clients": page}
	if next > 0 {
		answer["next"] = strconv.FormatUint(next, 10)
	}
	return answerJSON(w, http.StatusOK, answer)
}

func (a *Admin) topics(w http.ResponseWriter, r *http.Request) error {
	hub, err := hubOf(r)
	if err != nil {
		return err
	}
	q, err := parameters(r, "limit", "after")
	if err != nil {
		return err
	}
	limit, err := limitOf(q["limit"])
	if err != nil {
		return err
	}
	page, more := hub.ListTopics(q["after"], limit)
	answer := map[string]any{"topics": page}
	if more {
		answer["next"] = page[len(page)-1].Topic
	}
	return answerJSON(w, http.StatusOK, answer)
}

// messages shows the newest kept messages of a topic, for whoever watches it by asking again.
func (a *Admin) messages(w http.ResponseWriter, r *http.Request) error {
	hub, err := hubOf(r)
	if err != nil {
		return err
	}
	q, err := parameters(r, "topic", "limit")
	if err != nil {
		return err
	}
	limit, err := limitOf(q["limit"])
	if err != nil {
		return err
	}
	if err := CheckTopic(q["topic"]); err != nil {
		return badRequest("topic: %v", err)
	}
	return answerJSON(w, http.StatusOK, map[string]any{"messages": hub.ListMessages(q["topic"], limit)})
}

// kick ends all connections of a client, on every instance.
func (a *Admin) kick(w http.ResponseWriter, r *http.Request) error {
	hub, err := hubOf(r)
	if err != nil {
		return err
	}
	id := r.PathValue("client_id")
	if err := CheckClientID(id); err != nil {
		return badRequest("%v", err)
	}
	connections, err := hub.kick(r.Context(), id)
	switch {
	case err != nil:
		return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: fmt.Errorf("reaching the other instances: %w", err)}
	case connections == 0:
		return notFound("no client %q is connected", id)
	}
	a.log.Info("client closed by an operator", zap.String("hub", hub.name), zap.String("client_id", id))
	return answerJSON(w, http.StatusOK, map[string]any{"closed": connections})
}

// publish takes a message in form B. Whoever gets here may publish anything.
func (a *Admin) publish(w http.ResponseWriter, r *http.Request) error {
	hub, err := hubOf(r)
	if err != nil {
		return err
	}
	operator := &Handler{
		Hub:     hub.name,
		Publish: &PublishConfig{Open: true, MaxSize: defaultMaxSize},
		hub:     hub,
		logger:  a.log,
		topics:  newTopicRules(nil),
	}
	ctx := context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	return operator.publish(w, r.WithContext(ctx))
}

// Interface guards
var (
	_ caddy.AdminRouter = (*Admin)(nil)
	_ caddy.Provisioner = (*Admin)(nil)
)
