package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestStalledReaderDelaysNoOtherClientUnderLoad(t *testing.T) {
	const (
		messages = 800
		size     = 64 << 10
		most     = 512 << 20 // resident memory; the deliveries are 10 GB
	)
	server := e2etest.Start(t, openSite, e2etest.Plain())
	url := server.URL("/events?topic=load")
	f := newFleet(t)
	f.dial(t, url, 200)
	e2etest.Stall(t, url)
	begin := time.Now()
	l := startLoad(t, url, 2, size)
	peak := int64(0)
	for l.published() < messages {
		l.awaitMore(t, 1)
		if rss, err := server.RSS(); err == nil {
			peak = max(peak, rss)
		}
	}
	published := l.stop(t)
	f.await(t, published)
	took := time.Since(begin)
	t.Logf("200 clients got %d MB each within %v; the server's memory reached %d MB", published*size>>20, took, peak>>20)
	if peak > most {
		t.Errorf("the server's memory reached %d MB", peak>>20)
	}
	metrics := e2etest.Send(t, http.MethodGet, server.AdminURL("/metrics"), "").Body
	if strings.Contains(metrics, `reason="write_timeout"} 0`+"\n") && !strings.Contains(metrics, `caddy_sse_clients{hub="default"} 201`+"\n") {
		t.Errorf("the stalled reader has neither kept its place nor run into write_timeout:\n%s", metrics)
	}
}

func TestFiveThousandClientsLoseNothingUnderLoad(t *testing.T) {
	const clients = 5000
	const period = 15 * time.Second
	needFiles(t, clients)
	server := e2etest.Start(t, openSite, e2etest.Plain()) // which is more of a load
	f := newFleet(t)
	f.dial(t, server.URL("/events?topic=load"), clients)
	l := newLoad(server.URL("/events?topic=load"), 200)
	for _, n := range []int{1, publishers} {
		before := l.published()
		begin := time.Now()
		l.start(t, n)
		for time.Since(begin) < period {
			l.awaitMore(t, 1)
			f.check(t)
		}
		total := l.stop(t)
		stopped := time.Now()
		f.await(t, total)
		took := time.Since(begin)
		t.Logf("publishers: %d; messages: %d; deliveries/s: %.0f; the last %v after publishing ended",
			n, total-before, float64((total-before)*clients)/took.Seconds(), time.Since(stopped))
		if total-before < 10 {
			t.Errorf("%d messages within %v are no load", total-before, period)
		}
	}
}
