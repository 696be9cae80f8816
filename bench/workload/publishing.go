//go:build linux

package workload

import (
	"context"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/proc"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// publishing is taking messages in that nobody gets.
func publishing() Group {
	rows := []report.Row{
		{Key: "publish", Title: "Nobody listens, 8 publishers back-to-back, a POST per message", Columns: []string{report.Publishes, report.CPUPublish}},
		{Key: "publish-stream", Title: "Nobody listens, one NDJSON stream of messages", Columns: []string{report.Publishes, report.CPUPublish, report.Faster}},
		{Key: "publish-respond", Title: "Nobody listens, 8 publishers, beside a Caddy that answers by `respond`", Columns: []string{report.Publishes, report.CPUPublish, report.OfRespond, report.CPUOfRespond}},
	}
	return Group{
		Key: "publish", Rows: rows, Takes: everyone,
		Run: func(ctx context.Context, b *Bench, p peer.Peer) error {
			s, err := p.Start(b.Env)
			if err != nil {
				return err
			}
			defer s.Stop()
			nobody := load.Nobody(8)
			// Nchan can take a second for the first publish after its start.
			if err := syncFleet(ctx, s, nobody); err != nil {
				return err
			}
			v, err := b.measure(ctx, s, nobody, load.Load{Pace: load.Open, Publishers: 8})
			if err != nil {
				return err
			}
			b.Record("publish", p, v)
			if s.Stream == nil {
				return s.Alive()
			}
			stream, err := b.publishLines(ctx, s)
			if err != nil {
				return err
			}
			stream[report.Faster] = stream[report.Publishes] / v[report.Publishes]
			b.Record("publish-stream", p, stream)
			if !p.Ours {
				return s.Alive()
			}
			return b.besideRespond(ctx, p, s)
		},
	}
}

// besideRespond publishes to a server of ours and to a Caddy that does nothing for it, in turns.
func (b *Bench) besideRespond(ctx context.Context, p peer.Peer, ours *peer.Server) error {
	respond, err := peer.StartRespond(b.Env)
	if err != nil {
		return err
	}
	defer respond.Stop()
	const turns = 3 // of each
	var sums [2]report.Values
	for i, s := range []*peer.Server{ours, respond} {
		sums[i] = report.Values{}
		if err := syncFleet(ctx, s, load.Nobody(8)); err != nil {
			return err
		}
	}
	for turn := range 2 * turns {
		s := []*peer.Server{ours, respond}[turn%2]
		v, err := b.measure(ctx, s, load.Nobody(8), load.Load{Pace: load.Open, Publishers: 8, Measure: b.Measure / 2})
		if err != nil {
			return err
		}
		for _, column := range []string{report.Publishes, report.CPUPublish} {
			sums[turn%2][column] += v[column] / turns
		}
	}
	v := sums[0]
	v[report.OfRespond] = v[report.Publishes] / sums[1][report.Publishes]
	v[report.CPUOfRespond] = v[report.CPUPublish] / max(sums[1][report.CPUPublish], 1e-9)
	b.Record("publish-respond", p, v)
	return respond.Alive()
}

func (b *Bench) publishLines(ctx context.Context, s *peer.Server) (report.Values, error) {
	pids, err := s.PIDs()
	if err != nil {
		return nil, err
	}
	before, err := proc.CPU(pids)
	if err != nil {
		return nil, err
	}
	n, elapsed, err := load.PublishLines(ctx, s.Plain, s.Stream(0), messageSize, b.Measure)
	if err != nil {
		return nil, err
	}
	after, err := proc.CPU(pids)
	return report.Values{
		report.Publishes:  float64(n) / elapsed.Seconds(),
		report.CPUPublish: (after - before).Seconds() * 1e6 / float64(n),
	}, err
}
