//go:build linux

package workload

import (
	"context"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// latency is 1,000 clients at a pace where nothing piles up.
func latency() Group {
	row := report.Row{
		Key: "latency", Title: "1,000 clients of one topic, 50 messages/s",
		Columns: []string{report.CPU, report.P50, report.P99, report.Lost, report.CutOff, report.Disorder},
	}
	return Group{
		Key: "latency", Rows: []report.Row{row}, Takes: everyone,
		Run: func(ctx context.Context, b *Bench, p peer.Peer) error {
			s, err := p.Start(b.Env)
			if err != nil {
				return err
			}
			defer s.Stop()
			f, err := b.subscribe(ctx, s, target(s, 1), load.Options{Clients: b.clients(1000), Publishers: 1})
			if err != nil {
				return err
			}
			defer f.Close()
			return b.run(ctx, row.Key, p, s, f, load.Load{Pace: load.Timed, Publishers: 1, PerSecond: 50, Measure: 2 * b.Measure})
		},
	}
}
