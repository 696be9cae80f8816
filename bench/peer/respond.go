//go:build linux

package peer

import "fmt"

// StartRespond starts a Caddy that reads the body of a POST and answers it with `respond`, by as much as ours answers: the
// least that a POST to Caddy can cost.
func StartRespond(env *Env) (*Server, error) {
	addrs, err := freeAddrs(2)
	if err != nil {
		return nil, err
	}
	s := &Server{Plain: addrs[0], Admin: "http://" + addrs[1]}
	config, err := env.write("Caddyfile-"+s.Plain, fmt.Sprintf(`{
	admin %s
	persist_config off
}
http://%s {
	vars body {http.request.body}
	header {
		Content-Type application/json
		Cache-Control no-store
	}
	respond /events %[3]q
}
`, addrs[1], s.Plain, `{"id":"0123456789abcdef-1234567","receivers":0}`+"\n"))
	if err != nil {
		return nil, err
	}
	p, err := run(env, addrs, env.Caddy, "run", "--adapter", "caddyfile", "--config", config)
	if err != nil {
		return nil, err
	}
	s.processes = []*process{p}
	s.Publish = func(b []byte, topic int, payload []byte) []byte {
		return post(b, s.Plain, "/events?topic="+topicName(topic), "", payload)
	}
	return s, nil
}
