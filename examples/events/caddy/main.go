// Command caddy is Caddy with the sse module and an event handler: the one in post.go.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-sse/caddy-sse"
)

func main() {
	caddycmd.Main()
}
