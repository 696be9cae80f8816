package boltlog

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
)

// BenchmarkPublishOnDisk compares, in one run, 64 publishers that share commits with a single publisher.
func BenchmarkPublishOnDisk(b *testing.B) {
	const publishers = 64
	d := newDiskHub(b, hub.Limits{History: hub.HistoryLimits{Count: 1000}})
	text := string(make([]byte, 200))
	publish := func(publishers int, last time.Time) (n int64) {
		var under sync.WaitGroup
		var total atomic.Int64
		for range publishers {
			under.Go(func() {
				for time.Now().Before(last) {
					d.publish(hub.Topics("a"), text)
					total.Add(1)
				}
			})
		}
		under.Wait()
		return total.Load()
	}
	const slice = 250 * time.Millisecond
	var alone, together int64
	for b.Loop() { // in turns, since the disk may be busy at times
		alone += publish(1, time.Now().Add(slice))
		together += publish(publishers, time.Now().Add(slice))
	}
	seconds := float64(b.N) * slice.Seconds()
	b.ReportMetric(float64(alone)/seconds, "publishes/s-alone")
	b.ReportMetric(float64(together)/seconds, "publishes/s-64")
	b.ReportMetric(float64(together)/float64(alone), "ratio")
	b.ReportMetric(0, "ns/op")
}
