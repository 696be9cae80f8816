package sse

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/ingest"
	"github.com/caddy-sse/caddy-sse/internal/problem"
)

// purge answers DELETE: whoever may publish to some topics, a client_id or a user may remove what is kept for them.
func (route *publishRoute) purge(w http.ResponseWriter, r *http.Request) error {
	if err := route.hub.WaitReady(r.Context()); err != nil {
		return problem.Write(w, problem.OfPurge(err))
	}
	defer route.hub.CloseAtExit(r)()
	who, what, refusal := route.checkPurge(r)
	if refusal == nil {
		refusal = route.hub.Allow(who.name(), route.config.Rate, route.config.Burst, 1)
	}
	if refusal == nil {
		if err := route.hub.Purge(r.Context(), what); err != nil {
			refusal = problem.OfPurge(err)
			route.hub.Failures.Do(func() {
				route.logger.Warn("purging failed", zap.String("hub", route.hub.Name), zap.Error(err))
			})
		}
	}
	if refusal != nil {
		route.hub.LogRefusal(route.logger, r, refusal)
		return problem.Write(w, refusal)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// checkPurge returns who purges, and what, or why this may not be.
func (route *publishRoute) checkPurge(r *http.Request) (who publisher, what hub.Purge, p *problem.Problem) {
	if who, p = route.access.authorizePublish(r); p != nil {
		return who, what, p
	}
	query, p := route.urls.read(r, purgeParameters)
	if p != nil {
		return who, what, p
	}
	for _, name := range []string{"event", "retry", "ephemeral"} {
		if query.Has(name) {
			return who, what, problem.New(http.StatusBadRequest, "%s in the URL means nothing to a DELETE; leave it out", name)
		}
	}
	if n := len(query["key"]); n > 1 {
		return who, what, problem.New(http.StatusBadRequest, "key stands in the URL %d times; give it once", n)
	}
	to, p := urlTarget(query)
	if p != nil {
		return who, what, p
	}
	topics, p := route.topics.of(r)
	if p != nil {
		return who, what, p
	}
	what = hub.Purge{To: to, Key: query.Get("key")}
	switch {
	case len(to) == 0:
		return who, what, problem.New(http.StatusBadRequest,
			"name what to purge in the URL: ?topic=, ?client_id= or ?user=")
	case len(to) > ingest.MaxTargets:
		return who, what, problem.New(http.StatusBadRequest,
			"a purge of %d topics; name %d or fewer in the URL", len(to), ingest.MaxTargets)
	case query.Has("key") && what.Key == "":
		return who, what, problem.New(http.StatusBadRequest, "key in the URL is empty; leave it out to purge all")
	}
	if err := what.Check(); err != nil {
		return who, what, problem.New(http.StatusBadRequest, "%v", err)
	}
	return who, what, route.access.checkAddresses(who, to, topics)
}
