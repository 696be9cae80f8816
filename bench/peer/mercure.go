//go:build linux

package peer

import "errors"

func mercure() Peer {
	return Peer{Key: "mercure", Name: "Mercure", TLS: true, Lacks: onPath("mercure"), Version: func(*Env) string { return output("mercure", "version") }, Start: func(*Env) (*Server, error) { return nil, errors.New("x") }}
}

func centrifugo() Peer {
	return Peer{Key: "centrifugo", Name: "Centrifugo", Lacks: onPath("centrifugo"), Version: func(*Env) string { return output("centrifugo", "version") }, Start: func(*Env) (*Server, error) { return nil, errors.New("x") }}
}
