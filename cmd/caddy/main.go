// Command caddy is Caddy with the sse and mercure modules built in: the whole product in one program.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-sse/caddy-sse"
	_ "github.com/caddy-sse/caddy-sse/mercure"
)

func main() {
	caddycmd.Main()
}
