package hub_test

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// nullStream is a stream that costs nothing, so that only the hub's own cost is measured.
type nullStream struct{}

func (nullStream) Wake()         {}
func (nullStream) Abort()        {}
func (nullStream) Blocked() bool { return false }

// crowd is a hub with n clients of one topic, whose streams sleep.
func crowd(b *testing.B, n int) (*hub.Hub, []*hub.Client) {
	b.Helper()
	h := hub.NewHub(hub.Limits{History: hub.HistoryLimits{Count: 1000, Age: time.Hour, Bytes: 256 << 20}})
	clients := make([]*hub.Client, n)
	for i := range clients {
		clients[i] = enterIdle(b, h, "news")
	}
	takeFrom(b, clients)
	b.Cleanup(func() {
		for _, c := range clients {
			h.Leave(c, hub.ErrGone)
		}
		h.Close()
		hub.WantSettled(b, h)
	})
	return h, clients
}

// usual are the defaults of a route, which its clients share.
var usual = &hub.ClientOptions{Queue: 256, QueueBytes: 1 << 20, Heartbeat: 30 * time.Second}

// enterIdle enters a client as a route does.
func enterIdle(b *testing.B, h *hub.Hub, topics ...string) *hub.Client {
	s := hubtest.With(topics...)
	s.ClientOptions = usual
	c, _, err := h.Join(s, nullStream{})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// takeFrom gives every client's stream its turns, until all sleep.
func takeFrom(b *testing.B, clients []*hub.Client) {
	var batch []*hub.Message
	var err error
	for _, c := range clients {
		for {
			if batch, err = c.Take(batch[:0]); err != nil {
				b.Fatal(err)
			}
			if len(batch) == 0 {
				break
			}
		}
	}
}

// deliverNext delivers a message of 200 bytes as the log's next.
func deliverNext(h *hub.Hub, position *hub.Position, payload []byte) {
	position.Major++
	h.Deliver(&hub.Message{To: hub.Topics("news"), Data: payload, Position: *position})
}

// The hub's cost of one message to n clients, the encoding included. It is to grow linearly, at under
// 100 ns a client, without an allocation per delivery.
func BenchmarkDeliver(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			h, clients := crowd(b, n)
			payload, position := make([]byte, 200), hub.Position{}
			for range 2 * hub.Window { // queues of the size that they keep
				deliverNext(h, &position, payload)
				if position.Major%hub.Window == 0 {
					takeFrom(b, clients)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				deliverNext(h, &position, payload)
				if position.Major%hub.Window == 0 {
					b.StopTimer()
					takeFrom(b, clients)
					b.StartTimer()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/client")
			b.StopTimer()
			takeFrom(b, clients)
		})
	}
}

// The same with every client's turns, of 32 messages each.
func BenchmarkDeliverAndTake(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			h, clients := crowd(b, n)
			payload, position := make([]byte, 200), hub.Position{}
			b.ReportAllocs()
			for b.Loop() {
				deliverNext(h, &position, payload)
				if position.Major%hub.Window == 0 {
					takeFrom(b, clients)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/client")
			b.StopTimer()
			takeFrom(b, clients)
		})
	}
}

// What finding the clients costs where there are many topics and patterns beside.
func BenchmarkDeliverAmongManyTopics(b *testing.B) {
	h := hub.NewHub(hub.Limits{History: hub.HistoryLimits{Count: 1000}})
	for i := range 10_000 {
		enterIdle(b, h, fmt.Sprintf("room/%d/chat", i), fmt.Sprintf("room/%d/*", i), fmt.Sprintf("user/%d/**", i))
	}
	clients := []*hub.Client{enterIdle(b, h, "news"), enterIdle(b, h, "*")}
	payload, position := make([]byte, 200), hub.Position{}
	b.ReportAllocs()
	for b.Loop() {
		deliverNext(h, &position, payload)
		takeFrom(b, clients)
	}
}

// An idle client is to cost the hub under 1 KB beside its stream.
func BenchmarkIdleClient(b *testing.B) {
	const n = 50_000
	h := hub.NewHub(hub.Limits{History: hub.HistoryLimits{Count: 1000}})
	clients := make([]*hub.Client, n)
	before := heapInUse()
	for i := range clients {
		clients[i] = enterIdle(b, h, "news")
	}
	takeFrom(b, clients)
	idle := heapInUse() - before
	deliverNext(h, new(hub.Position), make([]byte, 200))
	takeFrom(b, clients)
	b.ReportMetric(float64(idle)/n, "bytes/client")
	b.ReportMetric(float64(heapInUse()-before)/n, "bytes/client-after-a-message")
	b.ReportMetric(0, "ns/op")
	for _, c := range clients {
		h.Leave(c, hub.ErrGone)
	}
	h.Close()
	hub.WantSettled(b, h)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkJoinAndLeave(b *testing.B) {
	for _, n := range []int{0, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			h, _ := crowd(b, n)
			b.ReportAllocs()
			for b.Loop() {
				h.Leave(enterIdle(b, h, "news", "room/1"), hub.ErrGone)
			}
		})
	}
}

// A client that comes back and missed 1000 messages of two topics.
func BenchmarkReplay(b *testing.B) {
	h := hub.NewHub(hub.Limits{History: hub.HistoryLimits{Count: 1000}})
	s := hubtest.With("a", "b")
	s.LastEventID = h.Position().String()
	for i := range 1000 {
		h.Deliver(&hub.Message{To: hub.Topics("a", "b")[i%2 : i%2+1], Data: make([]byte, 200), Position: hub.Position{Major: uint64(i + 1), Minor: 0}})
	}
	b.ReportAllocs()
	for b.Loop() {
		c, _, err := h.Join(s, nullStream{})
		if err != nil {
			b.Fatal(err)
		}
		takeFrom(b, []*hub.Client{c})
		h.Leave(c, hub.ErrGone)
	}
}

// Coming back with nothing missed by a pattern, where there are many topics.
func BenchmarkResumeByPatternAmongManyTopics(b *testing.B) {
	h := hub.NewHub(hub.Limits{History: hub.HistoryLimits{Count: 1000}})
	for i := range 10_000 {
		h.Deliver(&hub.Message{To: hub.Topics("room/" + strconv.Itoa(i)), Position: hub.Position{Major: uint64(i + 1), Minor: 0}})
	}
	s := hubtest.With("room/*")
	s.LastEventID = h.Position().String()
	for b.Loop() {
		c, _, err := h.Join(s, nullStream{})
		if err != nil {
			b.Fatal(err)
		}
		h.Leave(c, hub.ErrGone)
	}
}
