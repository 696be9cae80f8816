package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/eventstream"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

// openSite is one route that anybody may publish on.
const openSite = `
http://127.0.0.1:{{port}} {
	sse /events {
		publish {
			open
		}
	}
}
`

// siteOptions are lines for the parts of [tlsSite].
type siteOptions struct {
	global string // options of Caddy
	hub    string // options of the hub
	route  string // options of the route
	site   string // beside the route
}

// tlsSite is openSite with more to say, and with https://localhost:{{tls}} beside it.
func tlsSite(o siteOptions) string {
	return strings.NewReplacer("GLOBAL", o.global, "HUB", o.hub, "ROUTE", o.route, "SITE", o.site).Replace(`
{
	skip_install_trust
	auto_https disable_redirects
	GLOBAL
	sse {
		HUB
	}
}
(site) {
	sse /events {
		publish {
			open
		}
		ROUTE
	}
	SITE
}
http://127.0.0.1:{{port}} {
	import site
}
https://localhost:{{tls}} {
	tls internal
	import site
}
`)
}

// awaitTLS makes the start of a server with tlsSite wait for its certificate.
var awaitTLS = e2etest.AwaitTLS("localhost:{{tls}}")

func atLeast(n int) func([]eventstream.Event) bool {
	return func(events []eventstream.Event) bool { return len(events) >= n }
}

// decodeLoosely parses what a test wants to know of an answer.
func decodeLoosely(t testing.TB, answer e2etest.Answer, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(answer.Body), into); err != nil {
		t.Errorf("decoding %q: %v", answer.Body, err)
	}
}
