//go:build linux

package workload

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// state is values of which the newest counts: published more often than anybody wants them, given to who comes late,
// and polled for.
func state() Group {
	rows := []struct {
		report.Row
		measure func(context.Context, *Bench) (report.Values, error)
	}{
		{report.Row{
			Key: "conflate", Title: "`conflate 100ms`: 10,000 publishes/s of 100 keys to 5,000 clients",
			Columns: []string{report.Rate, report.CPU, report.OfParts},
		}, conflated},
		{report.Row{
			Key: "latest", Title: "1,000 publishes/s to 10 clients, while others begin with the latest of 100,000 topics",
			Columns: []string{report.Connects, report.P50, report.P99, report.OfOthers},
		}, latest},
		{report.Row{
			Key: "polls", Title: "5,000 long polls that wait", Columns: []string{report.Bytes, report.OfStream},
		}, polls},
	}
	g := Group{Key: "state", Slow: true, Takes: func(p peer.Peer) bool { return p.Key == "ours" }}
	for _, row := range rows {
		g.Rows = append(g.Rows, row.Row)
	}
	g.Run = func(ctx context.Context, b *Bench, p peer.Peer) error {
		for _, row := range rows {
			v, err := row.measure(ctx, b)
			if err != nil {
				return fmt.Errorf("%s: %w", row.Key, err)
			}
			b.Record(row.Key, p, v)
		}
		return nil
	}
	return g
}

// priced appends a line that sets one of 100 keys of a topic.
func priced(topic string) func(b []byte, i int) []byte {
	return func(b []byte, i int) []byte {
		return fmt.Appendf(b, `{"topic":%q,"key":"k%d","data":"%d.%02d"}`, topic, i%100, 60_000+i*7919%9000, i%100)
	}
}

const stateTurns = 3

// conflated compares the CPU time of values that are held with that of its parts: taking as many messages for nobody,
// and giving as many to all clients as leave the hub. What is compared is measured in turns.
func conflated(ctx context.Context, b *Bench) (report.Values, error) {
	plain, err := peer.StartOurs(b.Env, "", "")
	if err != nil {
		return nil, err
	}
	defer plain.Stop()
	held, err := peer.StartOurs(b.Env, "topic prices {\n\t\t\tconflate 100ms\n\t\t}", "")
	if err != nil {
		return nil, err
	}
	defer held.Stop()
	every := func(d time.Duration) int { return max(1, int(b.Measure/d)) }
	often := load.Paced{Lines: 20, Every: 2 * time.Millisecond, Times: every(2 * time.Millisecond)}
	seldom := load.Paced{Lines: 100, Every: 100 * time.Millisecond, Times: every(100 * time.Millisecond)}
	phases := []struct {
		server *peer.Server
		topic  string
		lines  load.Paced
		cpu    meter
		given  int64
	}{{held, "prices", often, meter{}, 0}, {plain, "nobody", often, meter{}, 0}, {plain, "prices", seldom, meter{}, 0}}
	readers := make(map[*peer.Server]*load.Readers)
	for _, s := range []*peer.Server{plain, held} {
		if readers[s], err = load.Read(ctx, s.Plain, "/events?topic=prices", b.clients(5000)); err == nil {
			defer readers[s].Close()
			err = awaitClients(ctx, s, b.clients(5000))
		}
		if err != nil {
			return nil, err
		}
	}
	for turn := range stateTurns {
		for i := range phases {
			p := &phases[i]
			pids, err := p.server.PIDs()
			if err != nil {
				return nil, err
			}
			p.lines.Line = priced(p.topic)
			before := readers[p.server].Messages()
			if turn > 0 { // the first is to warm up
				p.cpu.read(pids, -1)
			}
			if err := p.lines.Publish(ctx, p.server.Plain, "/events"); err != nil {
				return nil, err
			}
			time.Sleep(200 * time.Millisecond) // until what is held has left
			if turn > 0 {
				p.cpu.read(pids, 1)
				p.given += readers[p.server].Messages() - before
			}
			if p.cpu.err != nil {
				return nil, p.cpu.err
			}
		}
	}
	all, taking, giving := phases[0], phases[1], phases[2]
	if all.given == 0 || giving.given == 0 {
		return nil, fmt.Errorf("%d values came where some are held, and %d where none is", all.given, giving.given)
	}
	each := all.cpu.cpu.Seconds() / float64(all.given)
	return report.Values{
		report.Rate:    float64(all.given) / ((stateTurns - 1) * b.Measure.Seconds()),
		report.CPU:     each * 1e6,
		report.OfParts: all.cpu.cpu.Seconds() / max((taking.cpu.cpu+giving.cpu.cpu).Seconds(), 1e-9),
	}, held.Alive()
}

// awaitClients waits until a server has so many clients.
func awaitClients(ctx context.Context, s *peer.Server, n int) error {
	var hubs struct{ Hubs []struct{ Clients int } }
	for range 200 {
		response, err := http.Get(s.Admin + "/sse/hubs")
		if err != nil {
			return err
		}
		err = json.NewDecoder(response.Body).Decode(&hubs)
		response.Body.Close()
		if err != nil {
			return err
		}
		if len(hubs.Hubs) == 1 && hubs.Hubs[0].Clients == n {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("%d clients were to come; there are %v", n, hubs)
}

// latest publishes while others come late, and while they do so at another server: so the machine has as much to do.
func latest(ctx context.Context, b *Bench) (report.Values, error) {
	var servers [2]*peer.Server
	topics := b.clients(100_000)
	for i := range servers {
		s, err := peer.StartOurs(b.Env, "history_bytes 1GiB", "")
		if err != nil {
			return nil, err
		}
		defer s.Stop()
		fill := load.Paced{Lines: 100, Times: (topics + 99) / 100, Line: func(b []byte, i int) []byte {
			return fmt.Appendf(b, `{"topic":"state/%d/value","data":"%d"}`, i, i)
		}}
		if err := fill.Publish(ctx, s.Plain, "/events"); err != nil {
			return nil, err
		}
		servers[i] = s
	}
	f, err := b.subscribe(ctx, servers[0], target(servers[0], 1), load.Options{Clients: 10, Publishers: 1})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var came int
	var beside, elsewhere report.Values
	for range stateTurns {
		for i, v := range []*report.Values{&beside, &elsewhere} {
			late := goLate(ctx, servers[i].Plain, topics)
			got, err := b.measure(ctx, servers[0], f, load.Load{Pace: load.Timed, Publishers: 1, PerSecond: 1000})
			n, lateErr := late()
			if err == nil {
				err = lateErr
			}
			if err != nil {
				return nil, err
			}
			if i == 0 {
				came += n
			}
			if *v == nil || got[report.P99] < (*v)[report.P99] {
				*v = got
			}
		}
	}
	beside[report.Connects] = float64(came) / (stateTurns * (b.Measure + b.Warmup).Seconds())
	beside[report.OfOthers] = beside[report.P99] / max(elsewhere[report.P99], 1e-9)
	return beside, servers[0].Alive()
}

// goLate has two clients come again and again, each until it has the latest of all topics. The function that it
// returns ends that, and tells how often they did.
func goLate(ctx context.Context, addr string, topics int) (stop func() (came int, err error)) {
	ctx, cancel := context.WithCancel(ctx)
	var n atomic.Int64
	var running sync.WaitGroup
	failed := make(chan error, 2)
	for range 2 {
		running.Go(func() {
			for ctx.Err() == nil {
				err := load.Replay(ctx, addr, "/events?topic=state/**&since=latest", topics)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					failed <- err
					return
				}
				n.Add(1)
			}
		})
	}
	return func() (int, error) {
		cancel()
		running.Wait()
		close(failed)
		return int(n.Load()), <-failed
	}
}

// polls compares what polls that wait have resident with idle streams that go through the response.
func polls(ctx context.Context, b *Bench) (report.Values, error) {
	n := b.clients(5000)
	resident := func(path string) (float64, error) {
		s, err := peer.StartOurs(b.Env, "", "direct_writes off")
		if err != nil {
			return 0, err
		}
		defer s.Stop()
		m, err := newMemory(ctx, b, s, target(s, 1))
		if err != nil {
			return 0, err
		}
		r, err := load.Read(ctx, s.Plain, path, n)
		if err != nil {
			return 0, err
		}
		defer r.Close()
		if err := awaitClients(ctx, s, n); err != nil {
			return 0, err
		}
		now, err := m.settled(ctx)
		if err == nil {
			err = awaitClients(ctx, s, n) // none has been answered meanwhile
		}
		return float64(now-m.before) / float64(n), err
	}
	streams, err := resident("/events?topic=t0")
	if err != nil {
		return nil, err
	}
	waiting, err := resident("/events?topic=t0&format=json&since=now&wait=60s")
	return report.Values{report.Bytes: waiting, report.OfStream: waiting / max(streams, 1)}, err
}
