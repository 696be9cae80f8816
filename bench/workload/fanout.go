//go:build linux

package workload

import (
	"context"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

var fanoutColumns = []string{report.CPU, report.Rate, report.P50, report.P99, report.Lost, report.CutOff, report.Disorder}

// fanout is 5,000 clients of one topic.
func fanout() Group {
	loads := []load.Load{
		{Pace: load.Closed, Publishers: 8},
		{Pace: load.Open, Publishers: 1},
		{Pace: load.Open, Publishers: 8},
	}
	rows := []report.Row{
		{Key: "fanout-closed", Title: "5,000 clients of one topic, 8 messages under way", Columns: fanoutColumns},
		{Key: "fanout-1", Title: "5,000 clients of one topic, 1 publisher back-to-back", Columns: fanoutColumns},
		{Key: "fanout-8", Title: "5,000 clients of one topic, 8 publishers back-to-back", Columns: fanoutColumns},
	}
	return Group{
		Key: "fanout", Rows: rows, Takes: everyone,
		Run: func(ctx context.Context, b *Bench, p peer.Peer) error {
			s, err := p.Start(b.Env)
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
				if err := b.run(ctx, rows[i].Key, p, s, f, l); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
