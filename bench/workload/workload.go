//go:build linux

// Package workload is what the servers are put through. Every file is one kind of it.
package workload

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// Group is rows of the table that are measured on the same clients of the same server, one after the other.
type Group struct {
	Key  string
	Rows []report.Row
	Slow bool // it takes long and varies little, so that a third of the rounds does
	// Takes reports whether a server takes part.
	Takes func(peer.Peer) bool
	// Run starts a server, measures it once, and stops it.
	Run func(context.Context, *Bench, peer.Peer) error
}

// All returns all groups in the order of the table.
func All() []Group {
	return []Group{
		fanout(),
		latency(),
		topics(),
		idle(),
		stalled(),
		publishing(),
		tlsFanout("tls", "5,000 clients over TLS and HTTP/1.1, 8 messages under way", 0),
		tlsFanout("h2-100", "5,000 clients over HTTP/2, 100 streams a connection, 8 messages under way", 100),
		browsers(),
		cluster(),
		answers(),
		compressed(),
		state(),
	}
}

// Bench is a run of the benchmark: how large everything is, and where results go.
type Bench struct {
	Env     *peer.Env
	Scale   float64 // of the numbers of clients; 1 = as published
	Warmup  time.Duration
	Measure time.Duration
	Settle  time.Duration // how often an idle server's memory is looked at until it is steady
	Profile string        // a directory for CPU profiles of servers that offer them; "" = none
	Record  func(row string, p peer.Peer, v report.Values)
}

// clients scales a number of clients.
func (b *Bench) clients(n int) int { return max(2, int(float64(n)*b.Scale)) }

// everyone is for groups that all servers take part in.
func everyone(peer.Peer) bool { return true }

// target is where a fleet finds a server over HTTP/1.1 in the clear.
func target(s *peer.Server, topics int) load.Target {
	return load.Target{Addrs: append([]string{s.Plain}, s.Others...), Path: func(i int) (string, []load.Field) { return s.Subscribe(i % topics) }}
}

const messageSize = 200

// run puts a load on a server and its fleet, and records what came of it.
func (b *Bench) run(ctx context.Context, row string, p peer.Peer, s *peer.Server, f *load.Fleet, l load.Load) error {
	awaitProfile := b.profile(s, row+"-"+p.Key)
	v, err := b.measure(ctx, s, f, l)
	awaitProfile()
	if err != nil {
		return fmt.Errorf("%s: %w", row, err)
	}
	b.Record(row, p, v)
	return s.Alive()
}

// measure puts a load on a server and its fleet.
func (b *Bench) measure(ctx context.Context, s *peer.Server, f *load.Fleet, l load.Load) (report.Values, error) {
	pids, err := s.PIDs()
	if err != nil {
		return nil, err
	}
	l.Addr, l.Request, l.Size, l.Warmup = s.Plain, s.Publish, messageSize, b.Warmup
	if l.Measure == 0 {
		l.Measure = b.Measure
	}
	var server meter
	began, ended := l.Began, l.Ended
	l.Began = func() {
		if server.read(pids, -1); began != nil {
			began()
		}
	}
	l.Ended = func() {
		if server.read(pids, 1); ended != nil {
			ended()
		}
	}
	r, err := f.Run(ctx, l)
	if err == nil {
		err = server.err
	}
	if err != nil {
		return nil, err
	}
	v := report.Values{
		report.Rate:      float64(r.Deliveries) / r.Elapsed.Seconds(),
		report.Publishes: float64(r.Published) / r.Elapsed.Seconds(),
		report.P50:       r.P50.Seconds() * 1000,
		report.P99:       r.P99.Seconds() * 1000,
		report.Lost:      float64(r.Lost),
		report.CutOff:    float64(r.CutOff),
		report.Disorder:  float64(r.OutOfOrder),
	}
	if r.Deliveries > 0 {
		v[report.CPU] = server.cpu.Seconds() * 1e6 / float64(r.Deliveries)
	}
	if r.Published > 0 {
		v[report.CPUPublish] = server.cpu.Seconds() * 1e6 / float64(r.Published)
	}
	return v, nil
}

// subscribe connects a fleet, and makes sure that everybody gets messages.
func (b *Bench) subscribe(ctx context.Context, s *peer.Server, t load.Target, o load.Options) (*load.Fleet, error) {
	f, err := load.Dial(ctx, t, o)
	if err != nil {
		return nil, err
	}
	if err := syncFleet(ctx, s, f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// syncFleet makes sure that a server takes messages, and that a fleet gets them.
func syncFleet(ctx context.Context, s *peer.Server, f *load.Fleet) error {
	return f.Sync(ctx, load.Load{Addr: s.Plain, Request: s.Publish, Size: messageSize})
}
