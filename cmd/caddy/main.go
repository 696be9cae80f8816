// Command caddy is Caddy with the sse and mercure modules built in: the whole product in one program.
package main

import (
	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	sse "github.com/caddy-sse/caddy-sse"
	_ "github.com/caddy-sse/caddy-sse/mercure"
)

func main() {
	// `caddy version` tells this before Caddy's own version.
	caddy.CustomVersion = "caddy-sse " + sse.Version() + ", Caddy"
	caddycmd.Main()
}
