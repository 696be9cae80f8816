//go:build linux

package workload

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// answers is sse_resume before a model, beside reverse_proxy alone.
func answers() Group {
	rows := []report.Row{
		{
			Key: "answer", Title: "400 answers of an AI at once, 25 events/s each",
			Columns: []string{report.CPU, report.Rate, report.OfProxy},
		},
		{
			Key: "answer-json", Title: "JSON that passes sse_resume, 8 clients back-to-back",
			Columns: []string{report.Requests, report.OfProxy},
		},
		{Key: "answer-kept", Title: "400,000 events of answers that are kept", Columns: []string{report.Kept}},
		{
			Key: "answer-redis", Title: "40 answers of an AI at once, 25 events/s each, with Redis",
			Columns: []string{report.Calls},
		},
	}
	return Group{
		Key: "answers", Rows: rows,
		Takes: func(p peer.Peer) bool { return p.Key == "ours" },
		Run: func(ctx context.Context, b *Bench, p peer.Peer) error {
			s, err := peer.StartProxy(b.Env, false)
			if err != nil {
				return err
			}
			defer s.Stop()
			readers := newReaders(s)
			defer readers.client.CloseIdleConnections()
			for _, row := range []struct {
				key     string
				measure func(context.Context, *Bench) (report.Values, error)
			}{
				{"answer-json", readers.documents},
				{"answer-kept", readers.kept},
				{"answer", readers.streams},
				{"answer-redis", withStore},
			} {
				v, err := row.measure(ctx, b)
				if err != nil {
					return fmt.Errorf("%s: %w", row.key, err)
				}
				b.Record(row.key, p, v)
			}
			return s.Alive()
		},
	}
}

// readers ask for answers over a Caddy.
type readers struct {
	server *peer.Server
	client *http.Client
}

func newReaders(s *peer.Server) *readers {
	return &readers{s, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}}}
}

// ask reads one answer, and counts its events as they come.
func (r *readers) ask(ctx context.Context, addr, target string, events *atomic.Int64) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+target, http.NoBody)
	if err != nil {
		return err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	buffer := make([]byte, 4<<10)
	for {
		n, err := response.Body.Read(buffer)
		events.Add(int64(bytes.Count(buffer[:n], []byte("data: "))))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// many has n readers ask again and again, until measuring is over. It returns the CPU time of the server for each
// unit of what count counts, and how many units there were a second.
func (r *readers) many(
	ctx context.Context, b *Bench, n int, ask func(context.Context) error, count func() int64,
) (each, rate float64, err error) {
	pids, err := r.server.PIDs()
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, n)
	var running sync.WaitGroup
	for range n {
		running.Go(func() {
			for ctx.Err() == nil {
				if err := ask(ctx); err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
			}
		})
	}
	time.Sleep(b.Warmup)
	var server meter
	server.read(pids, -1)
	from, began := count(), time.Now()
	select {
	case <-time.After(b.Measure):
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	server.read(pids, 1)
	units, took := float64(count()-from), time.Since(began)
	cancel()
	running.Wait()
	return server.cpu.Seconds() / max(units, 1), units / took.Seconds(), errors.Join(err, server.err)
}

const turns = 8 // in which each of the two is measured

// inTurns measures with sse_resume and without, in turns, so that what the machine does meanwhile spoils both alike.
func (r *readers) inTurns(measure func(addr string) (cpu, rate float64, err error)) (with, without [2]float64, err error) {
	for range turns {
		for addr, sum := range map[string]*[2]float64{r.server.Plain: &with, r.server.Others[0]: &without} {
			cpu, rate, err := measure(addr)
			if err != nil {
				return with, without, err
			}
			sum[0] += cpu / turns
			sum[1] += rate / turns
		}
	}
	return with, without, nil
}

func (r *readers) streams(ctx context.Context, b *Bench) (report.Values, error) {
	target := "/stream?events=1000000&pace=40ms"
	with, without, err := r.inTurns(func(addr string) (float64, float64, error) {
		var events atomic.Int64
		return r.many(ctx, b, b.clients(400), func(ctx context.Context) error {
			return r.ask(ctx, addr, target, &events)
		}, events.Load)
	})
	if err != nil {
		return nil, err
	}
	v := report.Values{report.CPU: with[0] * 1e6, report.Rate: with[1]}
	v[report.OfProxy] = with[0] / max(without[0], 1e-9)
	return v, nil
}

func (r *readers) documents(ctx context.Context, b *Bench) (report.Values, error) {
	with, without, err := r.inTurns(func(addr string) (float64, float64, error) {
		var none, done atomic.Int64
		return r.many(ctx, b, 8, func(ctx context.Context) error {
			err := r.ask(ctx, addr, "/json", &none)
			done.Add(1)
			return err
		}, done.Load)
	})
	if err != nil {
		return nil, err
	}
	// By CPU time, of which there is as much for both; the clock also counts what others do on the machine.
	return report.Values{report.Requests: with[1], report.OfProxy: without[0] / max(with[0], 1e-9)}, nil
}

// kept has answers kept, and compares what is resident with what was before.
func (r *readers) kept(ctx context.Context, b *Bench) (report.Values, error) {
	pids, err := r.server.PIDs()
	if err != nil {
		return nil, err
	}
	m := &memory{b: b, s: r.server, pids: pids}
	if m.before, err = m.settled(ctx); err != nil {
		return nil, err
	}
	var events atomic.Int64
	const each = 4000
	n := b.clients(100)
	for range n {
		if err := r.ask(ctx, r.server.Plain, fmt.Sprintf("/stream?events=%d&pace=0s", each), &events); err != nil {
			return nil, err
		}
	}
	r.client.CloseIdleConnections()
	now, err := m.settled(ctx)
	return report.Values{report.Kept: float64(now-m.before) / float64(n*each)}, err
}

// withStore counts the commands of Redis while answers stream.
func withStore(ctx context.Context, b *Bench) (report.Values, error) {
	s, err := peer.StartProxy(b.Env, true)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	r := newReaders(s)
	defer r.client.CloseIdleConnections()
	idle, err := r.calls(ctx, b, 0)
	if err != nil {
		return nil, err
	}
	n := b.clients(40)
	busy, err := r.calls(ctx, b, n)
	if err != nil {
		return nil, err
	}
	return report.Values{report.Calls: max(busy-idle, 0) / float64(n) * 0.05}, s.Alive()
}

// calls returns the commands a second that Redis has while n answers stream.
func (r *readers) calls(ctx context.Context, b *Bench, n int) (float64, error) {
	var events atomic.Int64
	var countErr error
	_, rate, err := r.many(ctx, b, n, func(ctx context.Context) error {
		return r.ask(ctx, r.server.Plain, "/stream?events=1000000&pace=40ms", &events)
	}, func() (commands int64) {
		commands, countErr = redisCommands(r.server.StoreAddr)
		return commands
	})
	return rate, errors.Join(err, countErr)
}

// redisCommands returns how many commands a Redis has processed.
func redisCommands(addr string) (n int64, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "INFO stats\r\n"); err != nil {
		return 0, err
	}
	for scanner := bufio.NewScanner(conn); scanner.Scan(); {
		if value, found := strings.CutPrefix(scanner.Text(), "total_commands_processed:"); found {
			_, err := fmt.Sscan(value, &n)
			return n, err
		}
	}
	return 0, errors.New("the store does not count its commands")
}
