package mercure

import (
	"cmp"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/internal/live"
)

// served is a hub that routes of this protocol have, by the name that operators know.
type served struct {
	name string
	*live.Hub
	roster *roster
}

// Destruct implements caddy.Destructor. The pool calls it for the last route.
func (s *served) Destruct() error {
	s.roster.end()
	return nil
}

// pool has them by the names of the hubs, as long as routes have them.
var pool = caddy.NewUsagePool()

// serve adds the route's hub to those that health and metrics tell of.
func (h *Handler) serve() {
	value, _, _ := pool.LoadOrNew(h.live.Name, func() (caddy.Destructor, error) {
		return &served{cmp.Or(h.Hub, h.Name, "default"), h.live, newRoster(h.live)}, nil
	})
	if h.served = value.(*served); h.Subscriptions {
		h.served.roster.open()
	}
}

// unserve takes it back.
func (h *Handler) unserve() { _, _ = pool.Delete(h.live.Name) }

// allServed returns the hubs of all routes, sorted by name.
func allServed() (all []*served) {
	pool.Range(func(_, value any) bool {
		all = append(all, value.(*served))
		return true
	})
	slices.SortFunc(all, func(a, b *served) int { return cmp.Compare(a.name, b.name) })
	return all
}
