//go:build linux

package workload

import (
	"context"
	"strings"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// overTLS is for groups where only those take part that speak it.
func overTLS(p peer.Peer) bool { return p.TLS }

var secureColumns = []string{report.CPU, report.Rate, report.P99, report.Lost, report.CutOff, report.Disorder}

// secureTarget is where a fleet finds a server over TLS.
func secureTarget(s *peer.Server, streamsPerConn int) load.Target {
	t := target(s, 1)
	t.Addrs, t.TLS, t.StreamsPerConn = []string{s.Secure}, true, streamsPerConn
	return t
}

var underWay = load.Load{Pace: load.Closed, Publishers: 8}

// tlsFanout is the fan-out with encryption, over HTTP/1.1 and over HTTP/2 as proxies use it.
func tlsFanout(key, title string, streamsPerConn int) Group {
	row := report.Row{Key: key, Title: title, Columns: secureColumns}
	rest := report.Row{Key: key + "-idle", Title: title[:strings.LastIndex(title, ",")] + ", idle", Columns: []string{report.Bytes}}
	return Group{
		Key: key, Rows: []report.Row{rest, row}, Slow: true, Takes: overTLS,
		Run: func(ctx context.Context, b *Bench, p peer.Peer) error {
			s, err := p.Start(b.Env)
			if err != nil {
				return err
			}
			defer s.Stop()
			m, err := newMemory(ctx, b, s, secureTarget(s, streamsPerConn))
			if err != nil {
				return err
			}
			n := b.clients(5000)
			f, err := b.subscribe(ctx, s, secureTarget(s, streamsPerConn), load.Options{Clients: n, Publishers: 8})
			if err != nil {
				return err
			}
			defer f.Close()
			if err := m.record(ctx, rest.Key, p, n); err != nil {
				return err
			}
			return b.run(ctx, row.Key, p, s, f, underWay)
		},
	}
}

// browsers is HTTP/2 as browsers use it: a connection for each page, since each is another visitor.
func browsers() Group {
	rows := []report.Row{
		{Key: "h2-1-idle", Title: "HTTP/2, one stream a connection, 3,000 idle clients", Columns: []string{report.Bytes}},
		{Key: "h2-1", Title: "HTTP/2, one stream a connection, 3,000 clients, 8 messages under way", Columns: secureColumns},
		{Key: "h2-1-paced", Title: "HTTP/2, one stream a connection, 3,000 clients, 10 messages/s", Columns: secureColumns},
	}
	return Group{
		Key: "h2-1", Rows: rows, Slow: true, Takes: overTLS,
		Run: func(ctx context.Context, b *Bench, p peer.Peer) error {
			s, err := p.Start(b.Env)
			if err != nil {
				return err
			}
			defer s.Stop()
			m, err := newMemory(ctx, b, s, secureTarget(s, 1))
			if err != nil {
				return err
			}
			n := b.clients(3000)
			f, err := b.subscribe(ctx, s, secureTarget(s, 1), load.Options{Clients: n, Publishers: 8})
			if err != nil {
				return err
			}
			defer f.Close()
			if err := m.record(ctx, "h2-1-idle", p, n); err != nil {
				return err
			}
			if err := b.run(ctx, "h2-1", p, s, f, underWay); err != nil {
				return err
			}
			return b.run(ctx, "h2-1-paced", p, s, f, load.Load{Pace: load.Timed, Publishers: 1, PerSecond: 10})
		},
	}
}
