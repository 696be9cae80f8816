//go:build linux

package workload

import (
	"context"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// topics is as many topics as clients: what is measured is taking a message in, finding its client and reaching it.
func topics() Group {
	row := report.Row{
		Key: "topics", Title: "10,000 topics with one client each, 8 publishers back-to-back, a POST per message",
		Columns: []string{report.Publishes, report.CPU, report.P50, report.P99, report.Lost, report.CutOff, report.Disorder},
	}
	return Group{
		Key: "topics", Rows: []report.Row{row}, Takes: everyone,
		Run: func(ctx context.Context, b *Bench, p peer.Peer) error {
			s, err := p.Start(b.Env)
			if err != nil {
				return err
			}
			defer s.Stop()
			n := b.clients(10_000)
			f, err := b.subscribe(ctx, s, target(s, n), load.Options{Clients: n, Topics: n, Publishers: 8})
			if err != nil {
				return err
			}
			defer f.Close()
			return b.run(ctx, row.Key, p, s, f, load.Load{Pace: load.Open, Publishers: 8})
		},
	}
}
