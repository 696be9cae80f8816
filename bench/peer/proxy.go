//go:build linux

package peer

import (
	"fmt"
	"net"
	"os/exec"
)

// StartProxy starts a Caddy before the model that this program holds: with sse_resume at the server's Plain, and
// without at its Others. With redis there is a store that shares the answers. What nobody reads is cancelled at
// once, or it would be measured with what follows.
func StartProxy(env *Env, redis bool) (*Server, error) {
	addrs, err := freeAddrs(5)
	if err != nil {
		return nil, err
	}
	with, without, admin, model, store := addrs[0], addrs[1], addrs[2], addrs[3], addrs[4]
	s := &Server{Plain: with, Others: []string{without}, Admin: "http://" + admin, StoreAddr: store}
	broker := "memory"
	if redis {
		broker = "redis redis://" + store
		if s.store, err = startRedis(env, store); err != nil {
			return nil, err
		}
	}
	s.behind, err = run(env, []string{model}, env.Self, "serve", "model", model, "", "", "")
	if err != nil {
		s.Stop()
		return nil, err
	}
	config, err := env.write("Caddyfile-"+with, fmt.Sprintf(`{
	admin %s
	persist_config off
	sse {
		broker %s
	}
}
http://%s {
	sse_resume {
		max_total 10GiB
		on_abandon cancel 50ms
	}
	reverse_proxy %[4]s
}
http://%[5]s {
	reverse_proxy %[4]s
}
`, admin, broker, with, model, without))
	if err != nil {
		s.Stop()
		return nil, err
	}
	caddy, err := run(env, addrs[:3], env.Caddy, "run", "--adapter", "caddyfile", "--config", config)
	if err != nil {
		s.Stop()
		return nil, err
	}
	s.processes = []*process{caddy}
	s.Rest = func() error { return call("GET", s.Admin+"/debug/pprof/heap?gc=1") }
	return s, nil
}

// startRedis starts a Redis that keeps all in memory.
func startRedis(env *Env, addr string) (*process, error) {
	redis, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return run(env, []string{addr}, redis, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
}
