package mercure

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// collector gives the numbers of all hubs of this protocol to Prometheus, under the names that its dashboards know.
// Those of "sse" tell more, hub by hub.
type collector struct{}

// register adds the numbers to a config's registry.
func register(registry *prometheus.Registry) error {
	err := registry.Register(collector{})
	if already := (prometheus.AlreadyRegisteredError{}); errors.As(err, &already) {
		return nil
	}
	return err
}

var (
	connectedDesc   = prometheus.NewDesc("mercure_subscribers_connected", "Subscribers connected now.", nil, nil)
	subscribersDesc = prometheus.NewDesc("mercure_subscribers_total", "Subscribers that have connected.", nil, nil)
	updatesDesc     = prometheus.NewDesc("mercure_updates_total", "Updates published through this instance.", nil, nil)
)

// Describe implements prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- connectedDesc
	descs <- subscribersDesc
	descs <- updatesDesc
}

// Collect implements prometheus.Collector.
func (collector) Collect(metrics chan<- prometheus.Metric) {
	var connected, subscribers, updates float64
	for _, hub := range allServed() {
		stats := hub.Core.Stats()
		connected += float64(stats.Clients)
		subscribers += float64(stats.Accepted)
		updates += float64(stats.Published)
	}
	metrics <- prometheus.MustNewConstMetric(connectedDesc, prometheus.GaugeValue, connected)
	metrics <- prometheus.MustNewConstMetric(subscribersDesc, prometheus.CounterValue, subscribers)
	metrics <- prometheus.MustNewConstMetric(updatesDesc, prometheus.CounterValue, updates)
}
