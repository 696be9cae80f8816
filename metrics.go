package sse

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// collector shows the numbers of every hub to Prometheus. There is one for the process: each config
// has a registry of its own, but hubs outlive configs.
type collector struct{}

// register adds the hubs' numbers to a config's registry.
func register(registry *prometheus.Registry) error {
	err := registry.Register(collector{})
	if already := (prometheus.AlreadyRegisteredError{}); errors.As(err, &already) {
		return nil
	}
	return err
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("caddy_sse_"+name, help, append([]string{"hub"}, labels...), nil)
}

var (
	clientsDesc     = describe("clients", "Clients connected now.")
	connectionsDesc = describe("connections_total", "Requests to subscribe, by what became of them.", "result")
	resumesDesc     = describe("resumes_total", "Clients that came back with a Last-Event-ID, by what they were told.", "result")
	publishedDesc   = describe("messages_published_total", "Messages published through this instance.")
	sentDesc        = describe("messages_sent_total", "Messages that a client's socket has taken.")
	droppedDesc     = describe("messages_dropped_total", "Messages that were not delivered, by reason.", "reason")
	disconnectsDesc = describe("disconnects_total", "Streams that have ended, by reason.", "reason")
	deliveryDesc    = describe("delivery_seconds", "Time from the log's having a message to a client's socket's having taken it.")
	brokerUpDesc    = describe("broker_up", "Whether the broker is in reach and takes messages.")
	historyDesc     = describe("history_bytes", "Bytes of messages kept for clients that come back.")
	lagDesc         = describe("broker_lag_seconds", "How far this instance may be behind the broker's log; 0 when it is not.")
	fileDesc        = describe("broker_file_bytes", "Size of the broker's file.")
)

// Describe implements prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		clientsDesc, connectionsDesc, resumesDesc, publishedDesc, sentDesc, droppedDesc, disconnectsDesc,
		deliveryDesc, brokerUpDesc, lagDesc, historyDesc, fileDesc,
	} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (collector) Collect(metrics chan<- prometheus.Metric) {
	hubs.Range(func(_, value any) bool {
		value.(*sharedHub).collect(metrics)
		return true
	})
}

func (s *sharedHub) collect(metrics chan<- prometheus.Metric) {
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, kind, value, append([]string{s.name}, labels...)...)
	}
	count := func(desc *prometheus.Desc, n uint64, labels ...string) {
		send(desc, prometheus.CounterValue, float64(n), labels...)
	}
	clients, historyBytes := s.Size()
	send(clientsDesc, prometheus.GaugeValue, float64(clients))
	send(historyDesc, prometheus.GaugeValue, float64(historyBytes))
	count(connectionsDesc, s.stats.accepted.Load(), "accepted")
	count(connectionsDesc, s.stats.limited.Load(), "limited")
	count(connectionsDesc, s.stats.refused.Load(), "refused")
	count(resumesDesc, s.stats.resumedComplete.Load(), string(ResumeComplete))
	count(resumesDesc, s.stats.resumedGap.Load(), string(ResumeGap))
	count(publishedDesc, s.stats.published.Load())
	count(sentDesc, s.stats.sent.Load())
	count(droppedDesc, s.stats.droppedSlow.Load(), "slow_client")
	count(droppedDesc, s.stats.droppedMalformed.Load(), "malformed")
	for i, cause := range causes {
		count(disconnectsDesc, s.stats.disconnects[i].Load(), cause.name)
	}
	count(disconnectsDesc, s.stats.disconnects[len(causes)].Load(), otherCause)
	metrics <- s.stats.delivery.metric(s.name)
	up := 0.0
	if s.up() {
		up = 1
	}
	send(brokerUpDesc, prometheus.GaugeValue, up)
	if lag, ok := s.lag(); ok {
		send(lagDesc, prometheus.GaugeValue, lag.Seconds())
	}
	if size, ok := s.fileSize(); ok {
		send(fileDesc, prometheus.GaugeValue, float64(size))
	}
}

// metric returns the histogram as Prometheus has it: buckets count all that is below their bound.
func (l *latencies) metric(hub string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(latencyBounds))
	var count uint64
	for i, bound := range latencyBounds {
		count += l.buckets[i].Load()
		buckets[bound] = count
	}
	count += l.buckets[len(latencyBounds)].Load()
	return prometheus.MustNewConstHistogram(deliveryDesc, count, float64(l.micros.Load())/1e6, buckets, hub)
}
