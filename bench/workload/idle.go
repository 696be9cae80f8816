//go:build linux

package workload

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/proc"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// idle is a storm of clients that come all at once, and what they cost when they are there and nothing happens.
func idle() Group {
	rows := []report.Row{
		{Key: "storm", Title: "10,000 clients connect as fast as they are answered", Columns: []string{report.Connects, report.CPUConnect}},
		{Key: "idle", Title: "10,000 idle clients", Columns: []string{report.Bytes}},
	}
	return Group{
		Key: "idle", Rows: rows,
		Takes: everyone,
		Run: func(ctx context.Context, b *Bench, p peer.Peer) error {
			s, err := p.Start(b.Env)
			if err != nil {
				return err
			}
			defer s.Stop()
			m, err := newMemory(ctx, b, s, target(s, 1))
			if err != nil {
				return err
			}
			cpu, err := proc.CPU(m.pids)
			if err != nil {
				return err
			}
			n, began := b.clients(10_000), time.Now()
			f, err := load.Dial(ctx, target(s, 1), load.Options{Clients: n, Publishers: 1})
			if err != nil {
				return err
			}
			defer f.Close()
			took := time.Since(began)
			after, err := proc.CPU(m.pids)
			if err != nil {
				return err
			}
			b.Record("storm", p, report.Values{
				report.Connects:   float64(n) / took.Seconds(),
				report.CPUConnect: float64((after - cpu).Microseconds()) / float64(n),
			})
			return m.record(ctx, "idle", p, n)
		},
	}
}

// memory compares what a server has resident with what it had before its clients came.
type memory struct {
	b      *Bench
	s      *peer.Server
	pids   []int
	before int
}

// newMemory notes what a server has resident that has served a few clients already, so that what it needs once, for
// the first of them, is not counted.
func newMemory(ctx context.Context, b *Bench, s *peer.Server, t load.Target) (*memory, error) {
	f, err := b.subscribe(ctx, s, t, load.Options{Clients: 50, Publishers: 1})
	if err != nil {
		return nil, err
	}
	f.Close()
	pids, err := s.PIDs()
	if err != nil {
		return nil, err
	}
	m := &memory{b: b, s: s, pids: pids}
	m.before, err = m.settled(ctx)
	return m, err
}

// record records how many bytes more are resident for each client.
func (m *memory) record(ctx context.Context, row string, p peer.Peer, clients int) error {
	now, err := m.settled(ctx)
	if err != nil {
		return err
	}
	m.b.Record(row, p, report.Values{report.Bytes: float64(now-m.before) / float64(clients)})
	return m.s.Alive()
}

// settled waits until a server that has nothing to do has given back what it does not need.
func (m *memory) settled(ctx context.Context) (bytes int, err error) {
	const (
		steady = 4  // steps without much change
		most   = 40 // steps
	)
	last, since := 0, 0
	for n := 0; n < most && since < steady && ctx.Err() == nil; n++ {
		if m.s.Rest != nil && n%steady == 0 {
			if err := m.s.Rest(); err != nil {
				return 0, fmt.Errorf("letting the server rest: %w", err)
			}
		}
		time.Sleep(m.b.Settle)
		if bytes, err = proc.Memory(m.pids); err != nil {
			return 0, err
		}
		if since++; bytes < last-last/100 || bytes > last+last/100 {
			last, since = bytes, 0
		}
	}
	return bytes, ctx.Err()
}
