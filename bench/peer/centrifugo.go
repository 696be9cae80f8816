//go:build linux

package peer

import (
	"fmt"
	"net"
	"net/url"

	"github.com/caddy-sse/caddy-sse/bench/load"
)

// centrifugo is Centrifugo with its engine in memory, over its unidirectional SSE. Clients and publishers need no
// tokens. It has one port for clients, which is either in the clear or TLS; it is measured in the clear.
func centrifugo() Peer {
	return Peer{
		Key: "centrifugo", Name: "Centrifugo", SurvivesStalled: true,
		Lacks:   onPath("centrifugo"),
		Version: func(*Env) string { return builtFrom("centrifugo", "github.com/centrifugal/centrifugo/v6") },
		Start:   startCentrifugo,
	}
}

func startCentrifugo(env *Env) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	s := &Server{Plain: addr, Admin: "http://" + addr}
	config, err := env.write("centrifugo-"+addr+".json", fmt.Sprintf(`{
	"http_server": {"address": %q, "port": %s},
	"client": {"insecure": true},
	"channel": {"without_namespace": {"allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true}},
	"uni_sse": {"enabled": true},
	"http_api": {"insecure": true},
	"debug": {"enabled": true},
	"usage_stats": {"disabled": true}
}`, host, port))
	if err != nil {
		return nil, err
	}
	p, err := run(env, []string{addr}, "centrifugo", "--config", config)
	if err != nil {
		return nil, err
	}
	s.processes = []*process{p}
	s.Subscribe = func(topic int) (string, []load.Field) {
		connect := fmt.Sprintf(`{"subs":{%q:{}}}`, topicName(topic))
		return "/connection/uni_sse?cf_connect=" + url.QueryEscape(connect), nil
	}
	s.Publish = func(b []byte, topic int, payload []byte) []byte {
		body := fmt.Appendf(nil, `{"channel":%q,"data":"%s"}`, topicName(topic), payload)
		return post(b, s.Plain, "/api/publish", "Content-Type: application/json\r\n", body)
	}
	s.Rest = func() error { return call("GET", s.Admin+"/debug/pprof/heap?gc=1") }
	return s, nil
}
