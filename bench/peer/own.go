//go:build linux

package peer

import (
	"runtime"

	"github.com/caddy-sse/caddy-sse/bench/load"
)

// bareLoop is package limit.
func bareLoop() Peer {
	return Peer{
		Key: "limit", Name: "bare loop of write(2)", Limit: true,
		Lacks:   func(*Env) string { return "" },
		Version: func(*Env) string { return "bench/limit, " + runtime.Version() },
		Start: func(env *Env) (*Server, error) {
			return startOwn(env, "limit")
		},
	}
}

// tutorial is package hub.
func tutorial() Peer {
	return Peer{
		Key: "hub", Name: "tutorial hub", TLS: true,
		Lacks:   func(*Env) string { return "" },
		Version: func(*Env) string { return "bench/hub, " + runtime.Version() },
		Start: func(env *Env) (*Server, error) {
			s, err := startOwn(env, "hub")
			if err == nil {
				s.Rest = func() error { return call("DELETE", "http://"+s.Plain+"/") }
			}
			return s, err
		},
	}
}

// startOwn starts one of the servers that this program holds.
func startOwn(env *Env, role string) (*Server, error) {
	addrs, err := freeAddrs(2)
	if err != nil {
		return nil, err
	}
	cert, key, err := env.certificate()
	if err != nil {
		return nil, err
	}
	s := &Server{Plain: addrs[0], Secure: addrs[1]}
	listens := addrs
	if role == "limit" {
		s.Secure, listens = "", addrs[:1]
	}
	p, err := run(env, listens, env.Self, "serve", role, addrs[0], addrs[1], cert, key)
	if err != nil {
		return nil, err
	}
	s.processes = []*process{p}
	path := func(topic int) string { return "/?topic=" + topicName(topic) }
	s.Subscribe = func(topic int) (string, []load.Field) { return path(topic), nil }
	s.Publish = func(b []byte, topic int, payload []byte) []byte {
		return post(b, s.Plain, path(topic), "", payload)
	}
	return s, nil
}
