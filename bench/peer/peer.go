//go:build linux

// Package peer starts the servers that are compared: each a process of its own, with the settings that it comes with
// unless its file says why not.
package peer

import (
	"fmt"
	"net/http"
	"os/exec"
	"strconv"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/proc"
)

// Peer is a kind of server.
type Peer struct {
	Key   string // what flags call it
	Name  string // what tables call it
	Ours  bool   // this repository's
	Limit bool   // what others are compared with
	TLS   bool   // serves TLS, over HTTP/1.1 and 2

	SurvivesStalled bool // a client that does not read does not stop it

	// Lacks says why the peer can't run on this machine; "" = it can.
	Lacks func(*Env) string
	// Version is asked only if it can.
	Version func(*Env) string
	Start   func(*Env) (*Server, error)
	// Cluster starts two instances that a store joins; nil = it knows none.
	Cluster func(*Env) (*Server, error)
}

// Server is a running peer.
type Server struct {
	Plain  string   // address for HTTP/1.1 in the clear, of subscribers and publishers
	Others []string // other instances' addresses, for subscribers
	Secure string   // address for TLS; "" = none
	Admin  string   // base URL with Go's /debug/pprof; "" = none

	// Subscribe returns a subscriber's request target and header fields.
	Subscribe func(topic int) (path string, fields []load.Field)
	// Publish appends a whole request that publishes a payload.
	Publish func(b []byte, topic int, payload []byte) []byte
	// Stream returns the request target for an NDJSON stream of messages; nil = the server takes none.
	Stream func(topic int) string
	// Rest does at once what the server does by itself within minutes of idleness: collecting garbage. nil = nothing.
	Rest func() error

	// StoreAddr is the address of what joins instances, if there is one.
	StoreAddr string

	processes []*process
	store     *process // what joins instances; nil = nothing
	behind    *process // the model behind a proxy, which does not count; nil = none
}

// PIDs returns all processes of the server.
func (s *Server) PIDs() (pids []int, err error) {
	for _, p := range s.processes {
		tree, err := proc.Tree(p.pid())
		if err != nil {
			return nil, err
		}
		pids = append(pids, tree...)
	}
	return pids, nil
}

// StorePIDs returns the processes of what joins the instances.
func (s *Server) StorePIDs() []int { return []int{s.store.pid()} }

// Stop ends the server.
func (s *Server) Stop() {
	for _, p := range s.processes {
		p.stop()
	}
	for _, p := range []*process{s.store, s.behind} {
		if p != nil {
			p.stop()
		}
	}
}

// Alive returns an error if the server has ended by itself.
func (s *Server) Alive() error {
	for _, p := range s.processes {
		if err := p.alive(); err != nil {
			return err
		}
	}
	return nil
}

// All returns the peers in the order of the tables.
func All() []Peer {
	return []Peer{bareLoop(), direct(), handler(), nchan(), tutorial(), mercure(), centrifugo()}
}

// topicName is a topic's name.
func topicName(topic int) string { return "t" + strconv.Itoa(topic) }

// post appends a POST with a body.
func post(b []byte, addr, path, fields string, body []byte) []byte {
	b = append(b, "POST "...)
	b = append(b, path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, addr...)
	b = append(b, "\r\n"...)
	b = append(b, fields...)
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	return append(b, body...)
}

// call makes a request that is no part of what is measured.
func call(method, url string) error {
	request, err := http.NewRequest(method, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s was answered %s", method, url, response.Status)
	}
	return nil
}

// onPath says that a program is not there; "" = it is.
func onPath(program string) func(*Env) string {
	return func(*Env) string {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not on the PATH"
		}
		return ""
	}
}
