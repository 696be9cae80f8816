//go:build linux

package peer

import (
	"errors"
	"net"
	"os/exec"
)

// startCluster starts two Caddies with a Redis that keeps its log in memory.
func startCluster(env *Env, route func(*Env) string) (*Server, error) {
	redis, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errors.New("redis-server is not on the PATH")
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	store, err := run(env, []string{addr}, redis, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, err
	}
	hub := "broker redis redis://" + addr
	s, err := startCaddy(env, hub, route(env))
	if err != nil {
		store.stop()
		return nil, err
	}
	s.store = store
	second, err := startCaddy(env, hub, route(env))
	if err != nil {
		s.Stop()
		return nil, err
	}
	s.Others = []string{second.Plain}
	s.processes = append(s.processes, second.processes...)
	return s, nil
}
