//go:build linux

package workload

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/proc"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// stalled is clients that stopped reading, beside some who read. The bare loop and the tutorial hub take no part: they
// wait for whoever does not read, so nobody gets anything any more.
func stalled() Group {
	row := report.Row{
		Key: "stalled", Title: "500 clients that stopped reading, beside 10 who read 1,000 messages/s",
		Columns: []string{report.Bytes, report.P99, report.Lost, report.CutOff, report.Disorder},
	}
	return Group{
		Key: "stalled", Rows: []report.Row{row}, Slow: true,
		Takes: func(p peer.Peer) bool { return p.SurvivesStalled },
		Run: func(ctx context.Context, b *Bench, p peer.Peer) error {
			s, err := p.Start(b.Env)
			if err != nil {
				return err
			}
			defer s.Stop()
			readers, err := b.subscribe(ctx, s, target(s, 1), load.Options{Clients: 10, Publishers: 1})
			if err != nil {
				return err
			}
			defer readers.Close()
			publish := load.Load{Pace: load.Timed, Publishers: 1, PerSecond: 1000}
			before, _, err := b.peak(ctx, s, readers, publish)
			if err != nil {
				return err
			}
			n := b.clients(500)
			crowd, err := load.Stall(target(s, 1), n)
			if err != nil {
				return err
			}
			defer crowd.Close()
			after, v, err := b.peak(ctx, s, readers, publish)
			if err != nil {
				return err
			}
			v[report.Bytes] = float64(after-before) / float64(n)
			b.Record(row.Key, p, v)
			return s.Alive()
		},
	}
}

// peak puts a load on a server and returns the most that it had resident meanwhile.
func (b *Bench) peak(ctx context.Context, s *peer.Server, f *load.Fleet, l load.Load) (bytes int, v report.Values, err error) {
	pids, err := s.PIDs()
	if err != nil {
		return 0, nil, err
	}
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	var watchErr error
	watcher.Go(func() {
		for watching.Err() == nil && watchErr == nil {
			var now int
			now, watchErr = proc.Memory(pids)
			bytes = max(bytes, now)
			time.Sleep(20 * time.Millisecond)
		}
	})
	v, err = b.measure(ctx, s, f, l)
	stop()
	watcher.Wait()
	if err == nil {
		err = watchErr
	}
	return bytes, v, err
}
