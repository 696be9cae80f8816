package mercure

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/option"
	"github.com/caddy-sse/caddy-sse/internal/origin"
)

// largestMaxSize bounds publish_max_size: the whole form is in memory.
const largestMaxSize = 64 << 20

// Validate refuses values and combinations that make no sense.
func (h *Handler) Validate() error {
	for _, check := range []func() error{h.checkRoles, h.checkOrigins, h.checkHub, h.checkLimits} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) checkRoles() error {
	for _, role := range h.roles() {
		switch {
		case role.key != nil && role.set != "":
			return option.Wrong(role.name+"_jwks_url", fmt.Sprintf("%[1]s_jwt and %[1]s_jwks_url exclude each other; "+
				"keep one of them", role.name))
		case role.key != nil:
			if err := role.key.check(); err != nil {
				return &option.Error{Option: role.name + "_jwt", Err: err}
			}
		case role.set != "":
			if err := option.UnlessPlaceholder(checkKeySet)(role.set); err != nil {
				return &option.Error{Option: role.name + "_jwks_url", Err: err}
			}
		}
	}
	switch {
	case h.SubscriberJWT == nil && h.SubscriberJWKS == "" && !h.Anonymous:
		return option.Wrong("subscriber_jwt", "nobody could subscribe; give it a key (subscriber_jwt, "+
			"subscriber_jwks_url), or let anybody get what is not private (anonymous)")
	case h.PublisherJWT == nil && h.PublisherJWKS == "" && h.Hub == "":
		return option.Wrong("publisher_jwt", "nobody could publish; give it a key (publisher_jwt, publisher_jwks_url)")
	case h.CookieName != "" && (&http.Cookie{Name: h.CookieName}).Valid() != nil:
		return option.Wrong("cookie_name", fmt.Sprintf("%q can't be the name of a cookie; give it letters and digits",
			h.CookieName))
	}
	return nil
}

func (h *Handler) checkOrigins() error {
	for _, list := range []struct {
		option  string
		origins []string
	}{{"cors_origins", h.CORSOrigins}, {"publish_origins", h.PublishOrigins}} {
		for _, name := range list.origins {
			if err := origin.Check(name); err != nil {
				return &option.Error{Option: list.option, Err: err}
			}
		}
		if len(list.origins) > 1 && origin.List(list.origins).Any() {
			return option.Wrong(list.option, "* stands alone; list origins, or use * for all")
		}
	}
	return nil
}

func (h *Handler) checkHub() error {
	switch {
	case h.Hub != "" && (h.Transport != nil || h.TransportURL != "" || h.Name != ""):
		return option.Wrong("hub", "the hub is that of the global option sse, which says where it keeps its updates "+
			"and how it is called; leave out transport and name, or hub")
	case h.Transport != nil && h.TransportURL != "":
		return option.Wrong("transport_url", "transport and transport_url exclude each other; keep transport")
	case strings.ContainsAny(h.Name, " \t/{}:"):
		return option.Wrong("name", fmt.Sprintf("%q has a space, or one of / { } : in it; name the hub otherwise",
			h.Name))
	}
	if h.Transport != nil {
		if err := h.Transport.check(); err != nil {
			return &option.Error{Option: "transport", Err: err}
		}
	}
	return nil
}

func (h *Handler) checkLimits() error {
	if err := option.CheckCompress(cmp.Or(h.Compress, "off")); err != nil {
		return &option.Error{Option: "compress", Err: err}
	}
	for name, duration := range map[string]caddy.Duration{"heartbeat": h.Heartbeat, "history": h.HistoryAge} {
		if err := option.CheckDuration(duration); err != nil {
			return &option.Error{Option: name, Err: err}
		}
	}
	switch h.SlowClient {
	case "", hub.CatchUp, hub.Disconnect, hub.DropOldest:
	default:
		return option.Wrong("slow_client", fmt.Sprintf("%q is none of catch_up, disconnect and drop_oldest",
			h.SlowClient))
	}
	switch {
	case h.HistoryCount < 0 || h.HistoryAge < 0:
		return option.Wrong("history", "it can't be negative")
	case h.QueueMessages < 0 || h.QueueBytes < 0:
		return option.Wrong("queue", "give it 1 or more updates and bytes")
	case h.MaxTopics < 0 || h.MaxClientsPerIP < 0 || h.Rate < 0 || h.Burst < 0 || h.PublishMaxSize < 0:
		return errors.New("max_topics, max_clients_per_ip, rate and publish_max_size can't be negative")
	case h.PublishMaxSize > largestMaxSize:
		return option.Wrong("publish_max_size", "it can be 64MiB at most")
	case h.Heartbeat > caddy.Duration(time.Hour):
		return option.Wrong("heartbeat", "it can be an hour at most; 0s is off")
	}
	return nil
}
