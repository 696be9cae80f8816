//go:build linux

package peer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/caddy-sse/caddy-sse/bench/load"
)

const (
	mercureKey  = "a-key-of-this-benchmark-of-32-bytes-or-more"
	mercurePath = "/.well-known/mercure"
)

// mercure is the Mercure hub with its local transport, which is its fastest: it keeps no history.
func mercure() Peer {
	return Peer{
		Key: "mercure", Name: "Mercure, local transport", TLS: true, SurvivesStalled: true,
		Lacks:   onPath("mercure"),
		Version: func(*Env) string { return builtFrom("mercure", "github.com/dunglas/mercure") },
		Start:   startMercure,
	}
}

func startMercure(env *Env) (*Server, error) {
	addrs, err := freeAddrs(3)
	if err != nil {
		return nil, err
	}
	cert, key, err := env.certificate()
	if err != nil {
		return nil, err
	}
	s := &Server{Plain: addrs[0], Secure: addrs[1], Admin: "http://" + addrs[2]}
	config, err := env.write("mercure-"+s.Plain, fmt.Sprintf(`{
	admin %s
	auto_https off
	persist_config off
}
(hub) {
	route {
		mercure {
			transport local
			publisher_jwt %s
			anonymous
		}
	}
}
http://%s {
	import hub
}
https://%s {
	tls %s %s
	import hub
}
`, addrs[2], mercureKey, s.Plain, s.Secure, cert, key))
	if err != nil {
		return nil, err
	}
	p, err := run(env, addrs, "mercure", "run", "--adapter", "caddyfile", "--config", config)
	if err != nil {
		return nil, err
	}
	s.processes = []*process{p}
	s.Subscribe = func(topic int) (string, []load.Field) { return mercurePath + "?topic=" + topicName(topic), nil }
	fields := "Content-Type: application/x-www-form-urlencoded\r\nAuthorization: Bearer " + mercureToken() + "\r\n"
	s.Publish = func(b []byte, topic int, payload []byte) []byte {
		form := []byte("topic=" + topicName(topic) + "&data=")
		return post(b, s.Plain, mercurePath, fields, append(form, payload...))
	}
	s.Rest = func() error { return call("GET", s.Admin+"/debug/pprof/heap?gc=1") }
	return s, nil
}

// mercureToken returns a token that may publish anything.
func mercureToken() string {
	encode := base64.RawURLEncoding.EncodeToString
	token := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(`{"mercure":{"publish":["*"]}}`))
	mac := hmac.New(sha256.New, []byte(mercureKey))
	mac.Write([]byte(token))
	return token + "." + encode(mac.Sum(nil))
}
