package sse

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/live"
	"github.com/caddy-sse/caddy-sse/internal/problem"
	"github.com/caddy-sse/caddy-sse/topic"
)

func init() { caddy.RegisterModule(Admin{}) }

// Admin is the part of Caddy's admin endpoint for operators of hubs, with a dashboard. Nothing streams here:
// Caddy waits for its admin endpoint at every reload.
//
// Caddy lets a browser open a page of its admin endpoint only if an empty origin is among the endpoint's
// origins; see examples/dashboard.
type Admin struct {
	mux    *http.ServeMux
	logger *zap.Logger
}

//go:embed dashboard/index.html dashboard/assets
var dashboardFiles embed.FS

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.sse", New: func() caddy.Module { return new(Admin) }}
}

// Provision sets the routes up.
func (a *Admin) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	a.mux = http.NewServeMux()
	for pattern, handler := range map[string]adminFunc{
		"GET /sse/{$}":                               a.page,
		"GET /sse/assets/{file}":                     a.asset,
		"GET /sse/hubs":                              a.hubs,
		"GET /sse/health":                            healthChecks[""].admin,
		"GET /sse/health/ready":                      healthChecks["ready"].admin,
		"GET /sse/health/live":                       healthChecks["live"].admin,
		"GET /sse/hubs/{hub}/clients":                a.clients,
		"GET /sse/hubs/{hub}/topics":                 a.topics,
		"DELETE /sse/hubs/{hub}/topics":              a.purge, // ?topic=
		"GET /sse/hubs/{hub}/messages":               a.messages,
		"GET /sse/hubs/{hub}/presence":               a.presence,
		"DELETE /sse/hubs/{hub}/clients/{client_id}": a.kick,
		"DELETE /sse/hubs/{hub}/clients":             a.kick, // ?client_id=, which may be "." or ".."
		"GET /sse/hubs/{hub}/answers":                a.answers,
		"DELETE /sse/hubs/{hub}/answers/{id}":        a.stopAnswer,
		"POST /sse/hubs/{hub}/publish":               a.publish,
		anyPath:                                      a.notServed,
	} {
		a.mux.Handle(pattern, handler)
	}
	return nil
}

// anyPath is the pattern for every request that no other pattern is for.
const anyPath = "/sse/"

// Routes implements caddy.AdminRouter. Caddy gets no errors, or it would log them; they are answered in its
// form.
func (a *Admin) Routes() []caddy.AdminRoute {
	serve := caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		a.mux.ServeHTTP(w, r)
		return nil
	})
	return []caddy.AdminRoute{{Pattern: anyPath, Handler: serve}}
}

// notServed answers a request whose path, or whose method, is not served.
func (a *Admin) notServed(w http.ResponseWriter, r *http.Request) error {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := a.mux.Handler(other); pattern != anyPath {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		return notFound("there is nothing at this path")
	}
	methods := strings.Join(allowed, ", ")
	w.Header().Set("Allow", methods)
	return caddy.APIError{
		HTTPStatus: http.StatusMethodNotAllowed,
		Err:        fmt.Errorf("method not allowed; use %s", methods),
	}
}

// page serves the dashboard. No page may have it in a frame.
func (a *Admin) page(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Security-Policy", "frame-ancestors 'none'")
	return serveDashboard(w, r, "dashboard/index.html")
}

// asset serves what the dashboard's page loads.
func (a *Admin) asset(w http.ResponseWriter, r *http.Request) error {
	return serveDashboard(w, r, "dashboard/assets/"+r.PathValue("file"))
}

// serveDashboard serves a file of the dashboard. Browsers ask again each time: files are small, and another
// version may serve the next request.
func serveDashboard(w http.ResponseWriter, r *http.Request, name string) error {
	content, err := dashboardFiles.ReadFile(name)
	if err != nil {
		return notFound("there is nothing at this path")
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	return nil
}

// adminFunc is a handler. Its error becomes the answer.
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

// hubOf returns the hub that the path names.
func hubOf(r *http.Request) (*live.Hub, error) {
	name := r.PathValue("hub")
	for _, hub := range live.All() {
		if hub.Name == name {
			return hub, nil
		}
	}
	return nil, notFound("no route uses a hub %q", name)
}

// parameters reads the query. It may hold only the named parameters, each once.
func parameters(r *http.Request, names ...string) (map[string]string, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query can't be read: %v", err)
	}
	values := make(map[string]string)
	for name, all := range query {
		switch {
		case len(names) == 0:
			return nil, badRequest("unknown parameter %q; there are none here", name)
		case !slices.Contains(names, name):
			return nil, badRequest("unknown parameter %q; the parameters here are %s", name, strings.Join(names, ", "))
		case len(all) > 1:
			return nil, badRequest("the parameter %q stands there %d times", name, len(all))
		}
		values[name] = all[0]
	}
	return values, nil
}

// Entries on a page.
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

// hubs shows the numbers of all hubs.
func (a *Admin) hubs(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	summaries := []summary{}
	for _, hub := range live.All() {
		summaries = append(summaries, summarize(hub))
	}
	return answerJSON(w, http.StatusOK, map[string]any{"hubs": summaries})
}

// clients shows a page of a hub's clients.
func (a *Admin) clients(w http.ResponseWriter, r *http.Request) error {
	liveHub, err := hubOf(r)
	if err != nil {
		return err
	}
	q, err := parameters(r, "topic", "user", "limit", "after")
	if err != nil {
		return err
	}
	query := hub.ClientQuery{Topic: q["topic"], User: q["user"]}
	if query.Limit, err = limitOf(q["limit"]); err != nil {
		return err
	}
	if after := q["after"]; after != "" {
		if query.After, err = strconv.ParseUint(after, 10, 64); err != nil {
			return badRequest("after must be the next of an earlier page")
		}
	}
	page, last := liveHub.Core.ListClients(query)
	next := ""
	if last > 0 {
		next = strconv.FormatUint(last, 10)
	}
	return answerJSON(w, http.StatusOK, map[string]any{"clients": page, "next": next})
}

// topics shows a page of the topics that a hub keeps messages of.
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
	page, next := hub.Core.ListTopics(q["after"], limit)
	return answerJSON(w, http.StatusOK, map[string]any{"topics": page, "next": next})
}

// messages shows the newest kept messages of a topic.
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
	if err := topic.Check(q["topic"]); err != nil {
		return badRequest("topic: %v", err)
	}
	return answerJSON(w, http.StatusOK, map[string]any{"messages": hub.Core.ListMessages(q["topic"], limit)})
}

// presence shows who is at a topic.
func (a *Admin) presence(w http.ResponseWriter, r *http.Request) error {
	hub, err := hubOf(r)
	if err != nil {
		return err
	}
	q, err := parameters(r, "topic")
	if err != nil {
		return err
	}
	if err := topic.Check(q["topic"]); err != nil {
		return badRequest("topic: %v", err)
	}
	now, ok := hub.Core.PresenceOf(q["topic"])
	if !ok {
		return badRequest("topic %q has no presence", q["topic"])
	}
	return answerJSON(w, http.StatusOK, now)
}

// kick ends all connections of a client, on every instance.
func (a *Admin) kick(w http.ResponseWriter, r *http.Request) error {
	liveHub, err := hubOf(r)
	if err != nil {
		return err
	}
	id := r.PathValue("client_id")
	if id == "" {
		q, err := parameters(r, "client_id")
		if err != nil {
			return err
		}
		id = q["client_id"]
	} else if _, err := parameters(r); err != nil {
		return err
	}
	if err := hub.CheckClientID(id); err != nil {
		return badRequest("%v", err)
	}
	connections, err := liveHub.Kick(r.Context(), id)
	switch {
	case err != nil:
		return caddy.APIError{
			HTTPStatus: http.StatusServiceUnavailable,
			Err:        fmt.Errorf("reaching the other instances: %w", err),
		}
	case connections == 0:
		return notFound("no client %q is connected", id)
	}
	a.logger.Info("client closed by an operator", zap.String("hub", liveHub.Name), zap.String("client_id", id))
	return answerJSON(w, http.StatusOK, map[string]any{"closed": connections})
}

// purge removes what is kept of a topic, on every instance.
func (a *Admin) purge(w http.ResponseWriter, r *http.Request) error {
	liveHub, err := hubOf(r)
	if err != nil {
		return err
	}
	q, err := parameters(r, "topic", "key")
	if err != nil {
		return err
	}
	p := hub.Purge{To: hub.Topics(q["topic"]), Key: q["key"]}
	if err := p.Check(); err != nil {
		return badRequest("%v", err)
	}
	if err := liveHub.Purge(r.Context(), p); err != nil {
		refusal := problem.OfPurge(err)
		return caddy.APIError{HTTPStatus: refusal.Status, Err: refusal}
	}
	a.logger.Info("topic purged by an operator", zap.String("hub", liveHub.Name), zap.String("topic", q["topic"]))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// answers shows the answers of upstreams that are under way.
func (a *Admin) answers(w http.ResponseWriter, r *http.Request) error {
	hub, err := hubOf(r)
	if err != nil {
		return err
	}
	q, err := parameters(r, "limit")
	if err != nil {
		return err
	}
	limit, err := limitOf(q["limit"])
	if err != nil {
		return err
	}
	items, all := hub.Answers.List(limit)
	return answerJSON(w, http.StatusOK, map[string]any{
		"answers": append([]answers.Item{}, items...), "all": all, "next": "",
	})
}

// stopAnswer stops an answer that is under way on this instance, and so its upstream.
func (a *Admin) stopAnswer(w http.ResponseWriter, r *http.Request) error {
	hub, err := hubOf(r)
	if err != nil {
		return err
	}
	if _, err := parameters(r); err != nil {
		return err
	}
	if !hub.Answers.StopByOperator(r.PathValue("id")) {
		return notFound("no answer of this ID is under way on this instance")
	}
	a.logger.Info("answer stopped by an operator", zap.String("hub", hub.Name))
	return answerJSON(w, http.StatusOK, map[string]any{"stopped": true})
}

// publish takes messages in form B. Everybody who reaches the admin endpoint may publish anything.
func (a *Admin) publish(w http.ResponseWriter, r *http.Request) error {
	hub, err := hubOf(r)
	if err != nil {
		return err
	}
	if _, err := parameters(r); err != nil {
		return err // a target in the URL would make the body the data
	}
	config := &PublishConfig{Open: true, MaxSize: defaultMaxSize}
	allTopics := newTopicRules(nil)
	route := &publishRoute{
		hub:    hub,
		access: &access{hub: hub, publish: config, topics: allTopics},
		topics: allTopics,
		config: config,
		logger: a.logger,
	}
	ctx := context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	return route.serve(w, r.WithContext(ctx))
}

// Interface guards
var (
	_ caddy.AdminRouter = (*Admin)(nil)
	_ caddy.Provisioner = (*Admin)(nil)
)
