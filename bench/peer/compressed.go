//go:build linux

package peer

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// StartCompressed starts a peer twice: as it is, and with its streams compressed. Ours does that itself; others have
// Caddy's `encode gzip` and reverse_proxy before them, and the plain ones reverse_proxy alone.
func StartCompressed(env *Env, p Peer) (plain, zipped *Server, err error) {
	start := func(gzip bool) (*Server, error) {
		switch {
		case !p.Ours:
			return startBehindEncode(env, p, gzip)
		case gzip:
			return StartOurs(env, "", "compress gzip")
		}
		return StartOurs(env, "", "")
	}
	if plain, err = start(false); err != nil {
		return nil, nil, err
	}
	if zipped, err = start(true); err != nil {
		plain.Stop()
	}
	return plain, zipped, err
}

// startBehindEncode starts a peer with a Caddy before it. What is measured is that.
func startBehindEncode(env *Env, p Peer, gzip bool) (*Server, error) {
	behind, err := p.Start(env)
	if err != nil {
		return nil, err
	}
	addrs, err := freeAddrs(2)
	if err != nil {
		behind.Stop()
		return nil, err
	}
	encode := ""
	if gzip {
		encode = "encode gzip"
	}
	config, err := env.write("Caddyfile-"+addrs[0], fmt.Sprintf(
		"{\n\tadmin %s\n\tpersist_config off\n}\nhttp://%s {\n\t%s\n\treverse_proxy %s\n}\n", addrs[1], addrs[0], encode, behind.Plain))
	if err != nil {
		behind.Stop()
		return nil, err
	}
	caddy, err := run(env, addrs, env.Caddy, "run", "--adapter", "caddyfile", "--config", config)
	if err != nil {
		behind.Stop()
		return nil, err
	}
	s := *behind
	s.Plain, s.Secure, s.Admin = addrs[0], "", "http://"+addrs[1]
	s.processes = append([]*process{caddy}, behind.processes...)
	s.Publish = func(b []byte, topic int, payload []byte) []byte {
		return []byte(strings.Replace(string(behind.Publish(b, topic, payload)), behind.Plain, addrs[0], 1))
	}
	s.Rest = func() error { return call("GET", s.Admin+"/debug/pprof/heap?gc=1") }
	return &s, nil
}

// Heap returns how many bytes a server that has Go's profiles has allocated, after a collection.
func (s *Server) Heap() (bytes int, err error) {
	for range 2 { // finalizers have run by the second
		if bytes, err = s.heap(); err != nil {
			return 0, err
		}
	}
	return bytes, nil
}

func (s *Server) heap() (bytes int, err error) {
	response, err := http.Get(s.Admin + "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if number, found := strings.CutPrefix(lines.Text(), "# HeapAlloc = "); found {
			return strconv.Atoi(number)
		}
	}
	return 0, errors.New("the heap profile does not tell how much there is")
}
