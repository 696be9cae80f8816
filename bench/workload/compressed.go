//go:build linux

package workload

import (
	"context"
	"fmt"

	"github.com/caddy-sse/caddy-sse/bench/load"
	"github.com/caddy-sse/caddy-sse/bench/peer"
	"github.com/caddy-sse/caddy-sse/bench/report"
)

// compressed is streams that are compressed, beside the same server's that are not. The tutorial hub has Caddy's
// `encode gzip` before it, and so a compressor for each client, for which fewer are enough.
func compressed() Group {
	columns := []string{report.Wire, report.OfPlain, report.CPU, report.CPUOfPlain}
	rows := []report.Row{
		{Key: "gzip-ticks", Title: "Compressed streams: JSON ticks of 190 bytes to 5,000 clients (`encode`: 300)", Columns: columns},
		{Key: "gzip-tokens", Title: "Compressed streams: chunks of an AI's answer to 5,000 clients (`encode`: 300)", Columns: columns},
		{Key: "gzip-idle", Title: "What a client costs more whose stream is compressed", Columns: []string{report.Heap}},
	}
	return Group{
		Key: "gzip", Rows: rows,
		Takes: func(p peer.Peer) bool { return p.Key == "ours" || p.Key == "hub" },
		Run: func(ctx context.Context, b *Bench, p peer.Peer) error {
			plain, zipped, err := peer.StartCompressed(b.Env, p)
			if err != nil {
				return err
			}
			defer plain.Stop()
			defer zipped.Stop()
			n := b.clients(5000)
			if !p.Ours {
				n = b.clients(300)
			}
			var sides [2]side
			for i, s := range []*peer.Server{plain, zipped} {
				defer sides[i].close()
				if err := sides[i].open(ctx, b, s, n, i == 1); err != nil {
					return err
				}
			}
			b.Record("gzip-idle", p, report.Values{report.Heap: sides[1].heap - sides[0].heap})
			for row, text := range map[string]func(int) string{"gzip-ticks": tick, "gzip-tokens": token} {
				v, err := compareSides(ctx, &sides, text)
				if err != nil {
					return fmt.Errorf("%s: %w", row, err)
				}
				b.Record(row, p, v)
			}
			return zipped.Alive()
		},
	}
}

// side is a server with its clients: plain, or compressed.
type side struct {
	server    *peer.Server
	crowd     *load.Crowd
	publisher *load.Publisher
	pids      []int
	heap      float64 // bytes a client
	sent      int

	cpu        meter
	deliveries float64
	bytes      float64
}

func (s *side) open(ctx context.Context, b *Bench, server *peer.Server, n int, gzip bool) error {
	s.server = server
	if err := s.warmUp(ctx, b); err != nil {
		return err
	}
	before, err := server.Heap()
	if err != nil {
		return err
	}
	path, _ := server.Subscribe(0)
	if s.crowd, err = load.Assemble(ctx, server.Plain, path, gzip, n); err != nil {
		return err
	}
	if s.publisher, err = load.DialPublisher(server.Plain); err != nil {
		return err
	}
	for range 20 {
		if err := s.publish(tick, false); err != nil {
			return err
		}
	}
	now, err := server.Heap()
	s.heap = float64(now-before) / float64(n)
	return err
}

// warmUp has a server do once what it does for its first clients.
func (s *side) warmUp(ctx context.Context, b *Bench) (err error) {
	if s.pids, err = s.server.PIDs(); err != nil {
		return err
	}
	f, err := b.subscribe(ctx, s.server, target(s.server, 1), load.Options{Clients: 50, Publishers: 1})
	if err == nil {
		f.Close()
	}
	return err
}

func (s *side) close() {
	if s.crowd != nil {
		s.crowd.Close()
	}
	if s.publisher != nil {
		s.publisher.Close()
	}
}

func (s *side) publish(text func(int) string, alike bool) error {
	s.sent++
	return s.crowd.Publish(s.publisher, s.server.Publish(nil, 0, []byte(text(s.sent))), alike)
}

const gzipTurns, perTurn = 8, 100 // messages

// compareSides publishes to both in turns, so that what the machine does meanwhile spoils both alike.
func compareSides(ctx context.Context, sides *[2]side, text func(int) string) (report.Values, error) {
	for i := range sides {
		sides[i].cpu, sides[i].deliveries, sides[i].bytes = meter{}, 0, 0
		for range 20 { // until what came before is no longer context
			if err := sides[i].publish(text, false); err != nil {
				return nil, err
			}
		}
	}
	for turn := range gzipTurns {
		s := &sides[turn%2]
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		before := s.crowd.Bytes()
		s.cpu.read(s.pids, -1)
		for range perTurn {
			if err := s.publish(text, true); err != nil {
				return nil, err
			}
		}
		s.cpu.read(s.pids, 1)
		s.deliveries += perTurn * float64(s.crowd.Clients())
		s.bytes += float64(s.crowd.Bytes() - before)
		if s.cpu.err != nil {
			return nil, s.cpu.err
		}
	}
	plain, zipped := &sides[0], &sides[1]
	wire, cpu := zipped.bytes/zipped.deliveries, zipped.cpu.cpu.Seconds()*1e6/zipped.deliveries
	return report.Values{
		report.Wire: wire, report.OfPlain: wire / (plain.bytes / plain.deliveries),
		report.CPU: cpu, report.CPUOfPlain: cpu / max(plain.cpu.cpu.Seconds()*1e6/plain.deliveries, 1e-9),
	}, nil
}

// tick is a message as those who follow prices get it.
func tick(i int) string {
	return fmt.Sprintf(`{"type":"quote","symbol":"BTC-EUR","bid":%d.%02d,"ask":%d.%02d,"volume":%d,`+
		`"time":"2026-11-30T08:00:%02d.%03dZ","venue":"exchange-7","status":"open","currency":"EUR","seq":%d}`,
		61_234+i%7, i*37%100, 61_236+i%9, i*53%100, 1000+i*7919%9000, i%60, i*313%1000, 500_000+i)
}

var words = []string{" the", " of", " a", " stream", " that", " is", " never", " left", " guess", "ing", " what", " it", " missed", "."}

// token is a chunk of an answer, as models that are like OpenAI's send it.
func token(i int) string {
	return fmt.Sprintf(`{"id":"chatcmpl-AbC123dEf456","object":"chat.completion.chunk","created":1796026266,`+
		`"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}`, words[i*7%len(words)])
}
