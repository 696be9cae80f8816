package sse

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	"go.uber.org/zap"
)

// This file finds routes that no request reaches, because something that Caddy orders before them takes the requests:
// the try_files of a single-page app, a rewrite, a handle or route for all paths. Caddy says nothing of that, and the
// page gets 200 with text/html. A request is made up for each route, and followed through the config. What this file
// does not know, it takes for something that lets the request pass: it warns of nothing that works.

// warnOfUnreached logs the routes of a config that no request reaches.
func (a *App) warnOfUnreached() {
	if len(a.used) == 0 {
		return
	}
	app, err := a.context.AppIfConfigured("http")
	if err != nil {
		return
	}
	for _, u := range findUnreached(app.(*caddyhttp.App)) {
		a.logger.Warn(fmt.Sprintf("requests for %s do not reach sse: %s", u.path, u.because),
			zap.String("instead", fmt.Sprintf("give each a block of its own: handle %s { sse } and, "+
				"for the rest, handle { ... }", u.path)))
	}
}

// unreached is a path whose requests never get to the handler that is there for them.
type unreached struct{ path, because string }

// findUnreached looks at all servers, in the order of their names.
func findUnreached(app *caddyhttp.App) (all []unreached) {
	for _, name := range slices.Sorted(maps.Keys(app.Servers)) {
		server := app.Servers[name]
		eachRoute(server.Routes, nil, func(handler *Handler, within []*caddyhttp.Route) {
			for _, path := range pathsFor(within) {
				alone := journey{to: handler, only: within}
				whole := journey{to: handler}
				if alone.through(server, path, within) && !whole.through(server, path, within) && whole.because != "" {
					all = append(all, unreached{path, whole.because})
					return
				}
			}
		})
	}
	return all
}

// eachRoute calls found with every handler of ours, and the routes that stand around it, the outermost first.
func eachRoute(routes caddyhttp.RouteList, around []*caddyhttp.Route, found func(*Handler, []*caddyhttp.Route)) {
	for i := range routes {
		within := append(slices.Clone(around), &routes[i])
		for _, handler := range routes[i].Handlers {
			switch h := handler.(type) {
			case *Handler:
				found(h, within)
			case *caddyhttp.Subroute:
				eachRoute(h.Routes, within, found)
			}
		}
	}
}

// pathsFor makes up a path for each pattern of the innermost path matcher of some routes.
func pathsFor(within []*caddyhttp.Route) (paths []string) {
	for _, route := range slices.Backward(within) {
		for matcher := range matchersOf(route) {
			if patterns, ok := matcher.(caddyhttp.MatchPath); ok {
				for _, pattern := range patterns {
					if strings.HasPrefix(pattern, "/") && !strings.ContainsAny(pattern, "{%") {
						paths = append(paths, strings.ReplaceAll(pattern, "*", "x"))
					}
				}
			}
		}
		if len(paths) > 0 {
			return paths
		}
	}
	return []string{"/events"} // it is there for any
}

// matchersOf yields the matchers of a route, as values.
func matchersOf(route *caddyhttp.Route) func(yield func(any) bool) {
	return func(yield func(any) bool) {
		for _, set := range route.MatcherSets {
			for _, matcher := range set {
				if !yield(valueOf(matcher)) {
					return
				}
			}
		}
	}
}

// valueOf returns what a matcher points to, of the kinds that are looked at here.
func valueOf(matcher any) any {
	switch m := matcher.(type) {
	case *caddyhttp.MatchPath:
		return *m
	case *caddyhttp.MatchHost:
		return *m
	case *caddyhttp.MatchMethod:
		return *m
	case *caddyhttp.MatchNot:
		return *m
	case *fileserver.MatchFile:
		return *m
	}
	return matcher
}

// journey is the way of a made-up request.
type journey struct {
	to   *Handler
	only []*caddyhttp.Route // the routes that exist; nil for all

	request *http.Request
	values  *caddy.Replacer
	groups  map[string]bool // those of which a route was taken
	because string          // what changed the request's path, or took the request
}

// outcome is what becomes of a request in some routes.
type outcome int

const (
	passes  outcome = iota // it goes on behind them
	arrives                // it reaches the handler
	taken                  // something else answers it
)

// through reports whether a request for a path reaches the handler. It has the host and method that the routes
// around the handler ask for.
func (j *journey) through(server *caddyhttp.Server, path string, within []*caddyhttp.Route) bool {
	host, method := "example.com", http.MethodGet
	for _, route := range within {
		for matcher := range matchersOf(route) {
			switch m := matcher.(type) {
			case caddyhttp.MatchHost:
				host = strings.ReplaceAll(m[0], "*", "x")
			case caddyhttp.MatchMethod:
				method = m[0]
			}
		}
	}
	request, err := http.NewRequest(method, path, http.NoBody)
	if err != nil {
		return false
	}
	request.Host, request.RequestURI, request.RemoteAddr = host, path, "127.0.0.1:1"
	j.values, j.groups = caddy.NewReplacer(), make(map[string]bool)
	j.request = caddyhttp.PrepareRequest(request, j.values, nil, server)
	return j.routes(server.Routes) == arrives
}

// routes follows the request as Caddy does: in order, of each group one.
func (j *journey) routes(routes caddyhttp.RouteList) outcome {
	for i := range routes {
		route := &routes[i]
		if j.only != nil && !slices.Contains(j.only, route) || j.groups[route.Group] || !j.matches(route.MatcherSets) {
			continue
		}
		if route.Group != "" {
			j.groups[route.Group] = true
		}
		for _, handler := range route.Handlers {
			if o := j.handler(handler); o != passes {
				return o
			}
		}
		if route.Terminal {
			break
		}
	}
	return passes
}

func (j *journey) handler(handler caddyhttp.MiddlewareHandler) outcome {
	switch h := handler.(type) {
	case *Handler:
		if h == j.to {
			return arrives
		}
		return taken // which is another route's, as its config says
	case *caddyhttp.Subroute:
		return j.routes(h.Routes)
	case *rewrite.Rewrite:
		before := j.request.URL.Path
		h.Rewrite(j.request, j.values)
		if after := j.request.URL.Path; after != before {
			j.because = fmt.Sprintf("try_files or rewrite comes first, and makes %s of %s", after, before)
		}
		return passes
	case *fileserver.FileServer:
		return j.takenUnless(h.PassThru, "a file_server")
	case *reverseproxy.Handler:
		return j.takenUnless(len(h.HandleResponse) > 0, "a reverse_proxy") // as forward_auth, which lets pass
	case *caddyhttp.StaticResponse:
		return j.takenUnless(h.Headers.Get("Location") != "", "a respond")
	}
	return passes
}

func (j *journey) takenUnless(letsPass bool, by string) outcome {
	if letsPass {
		return passes
	}
	j.because = cmp.Or(j.because, by+" in a handle or route that comes first takes them")
	return taken
}

func (j *journey) matches(sets caddyhttp.MatcherSets) bool {
	if len(sets) == 0 {
		return true
	}
	return slices.ContainsFunc(sets, func(set caddyhttp.MatcherSet) bool {
		for _, matcher := range set {
			if !j.matchesOne(valueOf(matcher)) {
				return false
			}
		}
		return true
	})
}

// matchesOne asks a matcher whose answer depends on host, method and path alone. Of try_files the last name counts, if it
// is one file for all: no file has the name that the request asks for.
func (j *journey) matchesOne(matcher any) bool {
	switch m := matcher.(type) {
	case caddyhttp.MatchPath:
		return m.Match(j.request)
	case caddyhttp.MatchHost:
		return m.Match(j.request)
	case caddyhttp.MatchMethod:
		return m.Match(j.request)
	case caddyhttp.MatchNot:
		return !slices.ContainsFunc(m.MatcherSets, func(set caddyhttp.MatcherSet) bool {
			return len(set) > 0 && j.matches(caddyhttp.MatcherSets{set})
		})
	case fileserver.MatchFile:
		if len(m.TryFiles) == 0 {
			return false
		}
		last := m.TryFiles[len(m.TryFiles)-1]
		if strings.Contains(last, "{") || strings.HasPrefix(last, "=") {
			return false
		}
		j.values.Set("http.matchers.file.relative", last)
		return true
	}
	return false
}
