//go:build linux

package workload

import (
	"context"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// cluster is two instances that Redis joins, each with half of the clients; all messages are published on one.
func cluster() Group {
	columns := []string{report.CPU, report.CPURedis, report.Rate, report.P50, report.P99, report.Lost, report.CutOff, report.Disorder}
	rows := []report.Row{
		{Key: "redis-closed", Title: "Two instances over Redis, 2,500 clients each, 8 messages under way", Columns: columns},
		{Key: "redis-8", Title: "Two instances over Redis, 2,500 clients each, 8 publishers back-to-back", Columns: columns},
	}
	loads := []load.Load{{Pace: load.Closed, Publishers: 8}, {Pace: load.Open, Publishers: 8}}
	return Group{
		Key: "redis", Rows: rows, Slow: true,
		Takes: func(p peer.Peer) bool { return p.Cluster != nil },
		Run: func(ctx context.Context, b *Bench, p peer.Peer) error {
			s, err := p.Cluster(b.Env)
			if err != nil {
				return err
			}
			defer s.Stop()
			f, err := b.subscribe(ctx, s, target(s, 1), load.Options{Clients: b.clients(5000), Publishers: 8})
			if err != nil {
				return err
			}
			defer f.Close()
			for i, l := range loads {
				if err := b.runWithStore(ctx, rows[i].Key, p, s, f, l); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// runWithStore is run that tells also what the store consumed, for each delivery.
func (b *Bench) runWithStore(ctx context.Context, row string, p peer.Peer, s *peer.Server, f *load.Fleet, l load.Load) error {
	var redis meter
	l.Began = func() { redis.read(s.StorePIDs(), -1) }
	l.Ended = func() { redis.read(s.StorePIDs(), 1) }
	v, err := b.measure(ctx, s, f, l)
	if err == nil {
		err = redis.err
	}
	if err != nil {
		return err
	}
	if v[report.Rate] > 0 {
		v[report.CPURedis] = redis.cpu.Seconds() * 1e6 / (v[report.Rate] * b.Measure.Seconds())
	}
	b.Record(row, p, v)
	return s.Alive()
}
