package redislog

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// These benchmarks compare the log with the best that a program could do with Redis by itself. They measure
// both in one run and report the ratio.

// nearAndFar runs a benchmark with a Redis on this machine, where the processors decide, and over a line of
// half a millisecond each way, as between machines.
func nearAndFar(b *testing.B, benchmark func(b *testing.B, url string)) {
	b.Run("here", func(b *testing.B) { benchmark(b, e2etest.RedisServer(b).URL()) })
	b.Run("1ms-away", func(b *testing.B) {
		proxy := e2etest.NewProxy(b, e2etest.RedisServer(b).Addr())
		proxy.Slow(500*time.Microsecond, 0)
		benchmark(b, proxy.URL())
	})
}

var benchmarkData = bytes.Repeat([]byte("x"), 200)

func median(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)/2]
}

// BenchmarkPublishToReceive measures the time from Publish on one instance to the stream of a client on
// another, against XADD and XREAD BLOCK on two bare connections. The ratio is to stay below 1.5.
func BenchmarkPublishToReceive(b *testing.B) { nearAndFar(b, publishToReceive) }

func publishToReceive(b *testing.B, url string) {
	here, there := start(b, url), start(b, url)
	received := receive(b, there, hubtest.With("a"))
	bare, reader := admin(b, url), admin(b, url)
	came := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		last := "0"
		for {
			args := &redis.XReadArgs{Streams: []string{"bare", last}, Block: time.Minute}
			streams, err := reader.XRead(b.Context(), args).Result()
			if err != nil {
				return // the end
			}
			for _, m := range streams[0].Messages {
				last = m.ID
				came <- struct{}{}
			}
		}
	})
	defer func() { _ = reader.Close(); reading.Wait() }()

	var ours, best []time.Duration
	for b.Loop() {
		began := time.Now()
		args := &redis.XAddArgs{Stream: "bare", Values: []any{"topic", "a", "data", benchmarkData}}
		if err := bare.XAdd(b.Context(), args).Err(); err != nil {
			b.Fatal(err)
		}
		<-came
		best = append(best, time.Since(began))

		began = time.Now()
		if _, err := here.tryPublish(newPublication(string(benchmarkData), hub.Topics("a")...)); err != nil {
			b.Fatal(err)
		}
		<-received
		ours = append(ours, time.Since(began))
	}
	o, best50 := median(ours), median(best)
	b.ReportMetric(redisTime(b, bare)/float64(len(ours)), "script-us")
	b.ReportMetric(float64(o.Microseconds()), "p50-us")
	b.ReportMetric(float64(best50.Microseconds()), "bare-p50-us")
	b.ReportMetric(float64(o)/float64(best50), "ratio")
}

// redisTime returns how many microseconds Redis has spent in scripts.
func redisTime(b *testing.B, client *redis.Client) float64 {
	b.Helper()
	stats := client.Info(b.Context(), "commandstats").Val()
	_, rest, _ := strings.Cut(stats, "cmdstat_evalsha:calls=")
	_, rest, _ = strings.Cut(rest, "usec=")
	text, _, _ := strings.Cut(rest, ",")
	spent, err := strconv.ParseFloat(text, 64)
	if err != nil {
		b.Fatal(err)
	}
	return spent
}

// receive enters a client and returns what its stream sends to for each message.
func receive(b *testing.B, i *instance, s hub.Subscription) <-chan struct{} {
	b.Helper()
	received := make(arrivals, 1024)
	client, _, err := i.Join(s, received)
	if err != nil {
		b.Fatal(err)
	}
	client.Post(1)
	b.Cleanup(func() { _ = i.Leave(client, hub.ErrGone) })
	return received
}

// arrivals is a stream that takes everything.
type arrivals chan struct{}

func (a arrivals) Send(frames []*hub.Frame, _ error) (taken int, ready bool) {
	for range frames {
		a <- struct{}{}
	}
	return len(frames), true
}

func (arrivals) Notice(hub.News) (ready bool) { return true }
func (arrivals) Abort()                       {}
func (arrivals) Blocked() bool                { return false }

// BenchmarkPublishers measures 64 concurrent publishers, against 64 that make one XADD per round trip, and
// against one that does so. The ratio to one is to stay above 5.
func BenchmarkPublishers(b *testing.B) { nearAndFar(b, publishersAtOnce) }

func publishersAtOnce(b *testing.B, url string) {
	const publishers, atOnce = 64, 200
	i := start(b, url)
	o := *admin(b, url).Options()
	o.PoolSize = publishers
	bare := redis.NewClient(&o)
	b.Cleanup(func() { _ = bare.Close() })
	xadd := func() error {
		return bare.XAdd(b.Context(), &redis.XAddArgs{
			Stream: "bare", MaxLen: 100_000, Approx: true, Values: []any{"topic", "a", "data", benchmarkData},
		}).Err()
	}
	publish := func() error {
		_, err := i.tryPublish(newPublication(string(benchmarkData), hub.Topics("a")...))
		return err
	}
	perSecond := func(n int, do func() error) float64 {
		var running sync.WaitGroup
		began := time.Now()
		for range n {
			running.Go(func() {
				for range atOnce {
					if err := do(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		running.Wait()
		return float64(n*atOnce) / time.Since(began).Seconds()
	}
	var ours, many, one []float64
	for b.Loop() {
		ours = append(ours, perSecond(publishers, publish))
		many = append(many, perSecond(publishers, xadd))
		one = append(one, perSecond(1, xadd))
	}
	b.ReportMetric(redisTime(b, bare)/float64(len(ours)*publishers*atOnce), "script-us")
	middle := func(all []float64) float64 { slices.Sort(all); return all[len(all)/2] }
	b.ReportMetric(middle(ours), "publishes/s")
	b.ReportMetric(middle(ours)/middle(one), "times-one")
	b.ReportMetric(middle(ours)/middle(many), "times-64")
}

// BenchmarkPublishBesideManyInstances measures the processor time that a publish to ten topics costs Redis
// beside 99 other instances, against one to one topic with no other. The ratio is to stay below 2. A part of it
// is the message: the ratio of ten topics with no other instance is told as well.
func BenchmarkPublishBesideManyInstances(b *testing.B) {
	ten, fields := tenTopics()
	type side struct {
		client *redis.Client
		i      *instance
		topics []hub.Address
		spent  []float64 // seconds, of each round
	}
	newSide := func(topics []hub.Address, others int) *side {
		server := e2etest.RedisServer(b)
		s := &side{client: admin(b, server.URL()), i: start(b, server.URL()), topics: topics}
		if others > 0 {
			simulate(b, s.client, others, fields...)
		}
		awaitReceivers(b, s.i, others*len(topics), topics...)
		return s
	}
	processorTime := func(s *side) (sum float64) {
		for line := range strings.Lines(s.client.Info(b.Context(), "cpu").Val()) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if name == "used_cpu_user" || name == "used_cpu_sys" {
				seconds, err := strconv.ParseFloat(value, 64)
				if err != nil {
					b.Fatal(err)
				}
				sum += seconds
			}
		}
		return sum
	}
	alone, aloneTen, beside := newSide(ten[:1], 0), newSide(ten, 0), newSide(ten, 99)
	const publishes = 1000
	for b.Loop() {
		for _, s := range []*side{alone, aloneTen, beside} {
			before := processorTime(s)
			for range publishes {
				s.i.publish(string(benchmarkData), s.topics...)
			}
			s.spent = append(s.spent, processorTime(s)-before)
		}
	}
	middle := func(s *side) float64 { slices.Sort(s.spent); return s.spent[len(s.spent)/2] / publishes * 1e6 }
	b.ReportMetric(middle(alone), "us-alone")
	b.ReportMetric(middle(aloneTen)/middle(alone), "ratio-ten-topics")
	b.ReportMetric(middle(beside)/middle(alone), "ratio")
}
