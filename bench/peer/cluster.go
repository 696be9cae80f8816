//go:build linux

package peer

// startCluster starts two Caddies with a Redis that keeps its log in memory.
func startCluster(env *Env, route func(*Env) string) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	store, err := startRedis(env, addr)
	if err != nil {
		return nil, err
	}
	hub := "broker redis redis://" + addr
	s, err := StartOurs(env, hub, route(env))
	if err != nil {
		store.stop()
		return nil, err
	}
	s.store = store
	second, err := StartOurs(env, hub, route(env))
	if err != nil {
		s.Stop()
		return nil, err
	}
	s.Others = []string{second.Plain}
	s.processes = append(s.processes, second.processes...)
	return s, nil
}
