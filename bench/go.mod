module github.com/caddy-sse/caddy-sse/bench

go 1.26.0

require (
	golang.org/x/net v0.60.0
	golang.org/x/sync v0.23.0
	golang.org/x/sys v0.48.0
)

require golang.org/x/text v0.42.0 // indirect
