//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/caddy-sse/caddy-sse/bench/hub"
	"github.com/caddy-sse/caddy-sse/bench/limit"
	"github.com/caddy-sse/caddy-sse/bench/model"
)

// serve is what this program does as a server that is measured: `serve limit|hub|model <plain> <secure> <cert> <key>`.
func serve(args []string) error {
	if len(args) != 5 {
		return errors.New("serve is for the benchmark itself")
	}
	role, plain, secure, cert, key := args[0], args[1], args[2], args[3], args[4]
	switch role {
	case "limit":
		l, err := net.Listen("tcp", plain)
		if err != nil {
			return err
		}
		return limit.Serve(l.(*net.TCPListener))
	case "hub":
		h := hub.New()
		failed := make(chan error)
		go func() { failed <- http.ListenAndServe(plain, h) }()
		go func() { failed <- http.ListenAndServeTLS(secure, cert, key, h) }()
		return <-failed
	case "model":
		return http.ListenAndServe(plain, model.New())
	}
	return fmt.Errorf("no role is called %q", role)
}
