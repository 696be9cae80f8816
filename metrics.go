package sse

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/answers"
	"github.com/caddy-sse/caddy-sse/internal/live"
)

// collector gives the numbers of all hubs to Prometheus. Each config has a registry of its own, but hubs
// outlive configs: their numbers go on.
type collector struct{}

// register adds the hubs' numbers to a config's registry.
func register(registry *prometheus.Registry) error {
	err := registry.Register(collector{})
	if already := (prometheus.AlreadyRegisteredError{}); errors.As(err, &already) {
		return nil
	}
	return err
}

// described are the descriptions of all metrics.
var described []*prometheus.Desc

// describe makes the description of a metric with the label hub.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return describeAll(name, help, append([]string{"hub"}, labels...)...)
}

// describeAll makes the description of a metric that is not of one hub.
func describeAll(name, help string, labels ...string) *prometheus.Desc {
	desc := prometheus.NewDesc("caddy_sse_"+name, help, labels, nil)
	described = append(described, desc)
	return desc
}

var (
	clientsDesc     = describe("clients", "Clients connected now.")
	connectionsDesc = describe("connections_total", "Requests to subscribe, by what became of them.", "result")
	resumesDesc     = describe("resumes_total",
		"Clients that came back with a Last-Event-ID, by what they were told.", "result")
	publishedDesc = describe("messages_published_total", "Messages published through this instance.")
	sentDesc      = describe("messages_sent_total", "Messages that a client's socket has taken.")
	conflatedDesc = describe("messages_conflated_total",
		"Messages that a client did not get because they had given way to newer ones.")
	droppedDesc = describe("messages_dropped_total",
		"Messages that were not delivered, by reason.", "reason")
	disconnectsDesc = describe("disconnects_total", "Streams that have ended, by reason.", "reason")
	deliveryDesc    = describe("delivery_seconds",
		"Time from the log's having a message to a client's socket's having taken it.")
	brokerUpDesc = describe("broker_up", "Whether the broker is in reach and takes messages.")
	historyDesc  = describe("history_bytes", "Bytes of messages kept for clients that come back.")
	lagDesc      = describe("broker_lag_seconds",
		"How far this instance may be behind the broker's log; 0 when it is not.")
	fileDesc = describe("broker_file_bytes", "Size of the broker's file.")
	gapsDesc = describe("gaps_total",
		"Gaps that clients were told, by reason: they may have missed messages.", "reason")
	refusedDesc = describe("publish_refused_total",
		"Requests to publish that were answered with an error, by status.", "status")
	topicsDesc       = describe("topics", "Topics and patterns that have clients or kept messages.")
	answersDesc      = describe("answers", "Answers of upstreams that are kept, by state.", "state")
	answersTotalDesc = describe("answers_total",
		"Answers of upstreams that have ended, by result; passed are those that were nothing to keep.", "result")
	answerResumesDesc = describe("answer_resumes_total",
		"Requests that named an event of an answer, by what became of them.", "result")
	answerAttachedDesc = describe("answer_attached_total",
		"Requests that were given an answer by key or name.")
	answerLocalDesc = describe("answer_claims_local_total",
		"Keys and names that hold on this instance only, since the others could not be asked.")
	answerBytesDesc = describe("answer_bytes", "Bytes of answers kept for readers that come back.")
	buildDesc       = describeAll("build_info", "1, for the version of the module.", "version")
)

// Describe implements prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range described {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (collector) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.MustNewConstMetric(buildDesc, prometheus.GaugeValue, 1, Version())
	for _, hub := range live.All() {
		collect(hub, metrics)
	}
}

// collect sends the numbers of one hub.
func collect(h *live.Hub, metrics chan<- prometheus.Metric) {
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, kind, value, append([]string{h.Name}, labels...)...)
	}
	count := func(desc *prometheus.Desc, n uint64, labels ...string) {
		send(desc, prometheus.CounterValue, float64(n), labels...)
	}
	stats := h.Core.Stats()
	send(clientsDesc, prometheus.GaugeValue, float64(stats.Clients))
	send(historyDesc, prometheus.GaugeValue, float64(stats.HistoryBytes))
	count(connectionsDesc, stats.Accepted, "accepted")
	count(connectionsDesc, stats.Limited, "limited")
	count(connectionsDesc, stats.Refused, "refused")
	count(resumesDesc, stats.ResumedComplete, string(hub.ResumeComplete))
	count(resumesDesc, stats.ResumedGap, string(hub.ResumeGap))
	count(publishedDesc, stats.Published)
	count(sentDesc, stats.Sent)
	count(conflatedDesc, stats.Conflated)
	count(droppedDesc, stats.DroppedSlow, "slow_client")
	count(droppedDesc, stats.DroppedMalformed, "malformed")
	for cause, n := range stats.Disconnects {
		count(disconnectsDesc, n, cause)
	}
	for reason, n := range stats.Gaps {
		count(gapsDesc, n, reason)
	}
	for status, n := range h.RefusedPublishes() {
		count(refusedDesc, n, status)
	}
	send(topicsDesc, prometheus.GaugeValue, float64(stats.Topics))
	metrics <- deliveryMetric(stats.Delivery, h.Name)
	collectAnswers(numbersOf(h.Answers.Stats()), send)
	up := 0.0
	if h.BrokerState().Up {
		up = 1
	}
	send(brokerUpDesc, prometheus.GaugeValue, up)
	if lag, ok := h.Lag(); ok {
		send(lagDesc, prometheus.GaugeValue, lag.Seconds())
	}
	if size, ok := h.FileSize(); ok {
		send(fileDesc, prometheus.GaugeValue, float64(size))
	}
}

// answerNumbers are the numbers of a hub's answers.
type answerNumbers struct {
	States   map[string]int    `json:"states"`
	Results  map[string]uint64 `json:"results"`
	Resumes  map[string]uint64 `json:"resumes"`
	Attached uint64            `json:"attached"`
	Local    uint64            `json:"claims_local"`
	Bytes    int64             `json:"bytes"`
}

func numbersOf(stats answers.Stats) answerNumbers {
	return answerNumbers{
		States: map[string]int{"pending": stats.Pending, "live": stats.Live, "kept": stats.Kept},
		Results: map[string]uint64{
			"done": stats.Done, "stopped": stats.Stopped, "aborted": stats.Aborted, "abandoned": stats.Abandoned,
			"passed": stats.Passed,
		},
		Resumes:  map[string]uint64{"complete": stats.Complete, "gone": stats.Gone, "unknown": stats.Unknown},
		Attached: stats.Attached,
		Local:    stats.Alone,
		Bytes:    stats.Bytes,
	}
}

// collectAnswers sends the numbers of a hub's answers.
func collectAnswers(
	numbers answerNumbers, send func(*prometheus.Desc, prometheus.ValueType, float64, ...string),
) {
	for state, n := range numbers.States {
		send(answersDesc, prometheus.GaugeValue, float64(n), state)
	}
	for result, n := range numbers.Results {
		send(answersTotalDesc, prometheus.CounterValue, float64(n), result)
	}
	for result, n := range numbers.Resumes {
		send(answerResumesDesc, prometheus.CounterValue, float64(n), result)
	}
	send(answerAttachedDesc, prometheus.CounterValue, float64(numbers.Attached))
	send(answerLocalDesc, prometheus.CounterValue, float64(numbers.Local))
	send(answerBytesDesc, prometheus.GaugeValue, float64(numbers.Bytes))
}

func deliveryMetric(delivery hub.Histogram, hub string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(delivery.Buckets))
	for _, b := range delivery.Buckets {
		buckets[b.Bound] = b.Count
	}
	return prometheus.MustNewConstHistogram(deliveryDesc, delivery.Count, delivery.Seconds, buckets, hub)
}

// brokerState is a hub's broker on the admin endpoint.
type brokerState struct {
	Broker string     `json:"broker"`
	Up     bool       `json:"up"`
	Since  *time.Time `json:"broker_since,omitempty"` // since when it is up, or not
	Error  string     `json:"broker_error,omitempty"` // why it is not up
}

func stateOf(h *live.Hub) brokerState {
	state := h.BrokerState()
	told := brokerState{Broker: h.BrokerKind(), Up: state.Up}
	if !state.Since.IsZero() {
		told.Since = &state.Since
	}
	if state.Err != nil {
		told.Error = state.Err.Error()
	}
	return told
}

// summary is a hub on the admin endpoint. It has the numbers of the metrics.
type summary struct {
	Name string `json:"name"`
	brokerState
	Clients      int               `json:"clients"`
	Topics       int               `json:"topics"`
	Policies     []policySummary   `json:"policies"`
	Connections  uint64            `json:"connections"`
	Limited      uint64            `json:"limited"`
	Refused      uint64            `json:"refused"`
	Reconnects   uint64            `json:"reconnects"`     // gaps included
	Gaps         uint64            `json:"gaps"`           // told on reconnect
	GapsBy       map[string]uint64 `json:"gaps_by_reason"` // told on reconnect or later
	Published    uint64            `json:"messages_published"`
	Refusals     map[string]uint64 `json:"publish_refused"` // by status
	Sent         uint64            `json:"messages_sent"`
	Conflated    uint64            `json:"messages_conflated"`
	Dropped      uint64            `json:"messages_dropped"`
	DroppedBy    map[string]uint64 `json:"dropped_by_reason"`
	Disconnects  map[string]uint64 `json:"disconnects"` // by reason
	Delivery     hub.Histogram     `json:"delivery"`
	HistoryBytes int64             `json:"history_bytes"`
	FileBytes    *int64            `json:"broker_file_bytes,omitempty"`
	Lag          *float64          `json:"broker_lag_seconds,omitempty"`
	Answers      answerNumbers     `json:"answers"`
}

func summarize(h *live.Hub) summary {
	stats := h.Core.Stats()
	all := summary{
		Name:         h.Name,
		brokerState:  stateOf(h),
		Clients:      stats.Clients,
		Topics:       stats.Topics,
		Policies:     summarizePolicies(h.Core.Limits().Policies),
		Connections:  stats.Accepted,
		Limited:      stats.Limited,
		Refused:      stats.Refused,
		Reconnects:   stats.ResumedComplete + stats.ResumedGap,
		Gaps:         stats.ResumedGap,
		GapsBy:       stats.Gaps,
		Refusals:     h.RefusedPublishes(),
		Published:    stats.Published,
		Sent:         stats.Sent,
		Conflated:    stats.Conflated,
		Dropped:      stats.DroppedSlow + stats.DroppedMalformed,
		DroppedBy:    map[string]uint64{"slow_client": stats.DroppedSlow, "malformed": stats.DroppedMalformed},
		Disconnects:  stats.Disconnects,
		Delivery:     stats.Delivery,
		HistoryBytes: stats.HistoryBytes,
		Answers:      numbersOf(h.Answers.Stats()),
	}
	if size, ok := h.FileSize(); ok {
		all.FileBytes = &size
	}
	if lag, ok := h.Lag(); ok {
		seconds := lag.Seconds()
		all.Lag = &seconds
	}
	return all
}
