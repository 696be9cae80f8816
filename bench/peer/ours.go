//go:build linux

package peer

import (
	"fmt"
	"os/exec"

	"github.com/caddy-sse/caddy-sse/bench/load"
)

// direct is this repository's Caddy as it comes.
func direct() Peer {
	return Peer{
		Key: "ours", Name: "caddy-sse", Ours: true, TLS: true, Version: caddyVersion,
		Lacks: func(env *Env) string {
			if !env.hasDirect() {
				return "this build has no direct_writes"
			}
			return ""
		},
		SurvivesStalled: true,
		Start:           func(env *Env) (*Server, error) { return StartOurs(env, "", directOn(env)) },
		Cluster:         func(env *Env) (*Server, error) { return startCluster(env, directOn) },
	}
}

// handler is the same with every stream in Caddy's hands.
func handler() Peer {
	return Peer{
		Key: "handler", Name: "caddy-sse, direct_writes off", Ours: true, TLS: true, Version: caddyVersion,
		Lacks:           func(*Env) string { return "" },
		SurvivesStalled: true,
		Start:           func(env *Env) (*Server, error) { return StartOurs(env, "", directOff(env)) },
		Cluster:         func(env *Env) (*Server, error) { return startCluster(env, directOff) },
	}
}

func directOn(*Env) string { return "direct_writes on" }

// directOff returns the option, which a Caddy that has no direct streams does not know.
func directOff(env *Env) string {
	if !env.hasDirect() {
		return ""
	}
	return "direct_writes off"
}

// hasDirect reports whether the Caddy knows direct streams.
func (e *Env) hasDirect() bool {
	e.directOnce.Do(func() {
		config, err := e.write("direct.Caddyfile", "http://127.0.0.1:1 {\n\tsse /events {\n\t\tdirect_writes on\n\t}\n}\n")
		e.direct = err == nil && exec.Command(e.Caddy, "adapt", "--config", config).Run() == nil
	})
	return e.direct
}

func caddyVersion(env *Env) string {
	return "Caddy " + builtFrom(env.Caddy, "github.com/caddyserver/caddy/v2")
}

// StartOurs starts this repository's Caddy with a hub's options and a route's.
func StartOurs(env *Env, hub, route string) (*Server, error) {
	addrs, err := freeAddrs(3)
	if err != nil {
		return nil, err
	}
	cert, key, err := env.certificate()
	if err != nil {
		return nil, err
	}
	s := &Server{Plain: addrs[0], Secure: addrs[1], Admin: "http://" + addrs[2]}
	config, err := env.write("Caddyfile-"+s.Plain, fmt.Sprintf(`{
	admin %s
	auto_https off
	persist_config off
	sse {
		%s
	}
}
(events) {
	sse /events {
		publish {
			open
		}
		%s
	}
}
http://%s {
	import events
}
https://%s {
	tls %s %s
	import events
}
`, addrs[2], hub, route, s.Plain, s.Secure, cert, key))
	if err != nil {
		return nil, err
	}
	p, err := run(env, addrs, env.Caddy, "run", "--adapter", "caddyfile", "--config", config)
	if err != nil {
		return nil, err
	}
	s.processes = []*process{p}
	path := func(topic int) string { return "/events?topic=" + topicName(topic) }
	s.Subscribe = func(topic int) (string, []load.Field) { return path(topic), nil }
	s.Publish = func(b []byte, topic int, payload []byte) []byte {
		return post(b, s.Plain, path(topic), "", payload)
	}
	s.Stream = path
	s.Rest = func() error { return call("GET", s.Admin+"/debug/pprof/heap?gc=1") }
	return s, nil
}
