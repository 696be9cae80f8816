package sse

// hubInfo is a hub at a glance: its numbers are those of the metrics.
type hubInfo struct {
	Name         string            `json:"name"`
	Broker       string            `json:"broker"`
	Up           bool              `json:"up"`
	Clients      int               `json:"clients"`
	Connections  uint64            `json:"connections"`
	Limited      uint64            `json:"limited"`
	Refused      uint64            `json:"refused"`
	Reconnects   uint64            `json:"reconnects"` // gaps included
	Gaps         uint64            `json:"gaps"`
	Published    uint64            `json:"messages_published"`
	Sent         uint64            `json:"messages_sent"`
	Dropped      uint64            `json:"messages_dropped"`
	DroppedBy    map[string]uint64 `json:"dropped_by_reason"`
	Disconnects  map[string]uint64 `json:"disconnects"` // by reason
	Delivery     latencyInfo       `json:"delivery"`
	HistoryBytes int64             `json:"history_bytes"`
	FileBytes    *int64            `json:"broker_file_bytes,omitempty"`
	Lag          *float64          `json:"broker_lag_seconds,omitempty"`
}

// latencyInfo is a histogram as Prometheus has it: each bucket counts all that is below its bound.
type latencyInfo struct {
	Count   uint64       `json:"count"`
	Seconds float64      `json:"sum_seconds"`
	Buckets []bucketInfo `json:"buckets"`
}

type bucketInfo struct {
	Below float64 `json:"le"`
	Count uint64  `json:"count"`
}

func (s *sharedHub) info() hubInfo {
	clients, historyBytes := s.Size()
	complete, gaps := s.stats.resumedComplete.Load(), s.stats.resumedGap.Load()
	slow, malformed := s.stats.droppedSlow.Load(), s.stats.droppedMalformed.Load()
	info := hubInfo{
		Name:         s.name,
		Broker:       s.brokerKind(),
		Up:           s.up(),
		Clients:      clients,
		Connections:  s.stats.accepted.Load(),
		Limited:      s.stats.limited.Load(),
		Refused:      s.stats.refused.Load(),
		Reconnects:   complete + gaps,
		Gaps:         gaps,
		Published:    s.stats.published.Load(),
		Sent:         s.stats.sent.Load(),
		Dropped:      slow + malformed,
		DroppedBy:    map[string]uint64{"slow_client": slow, "malformed": malformed},
		Disconnects:  map[string]uint64{otherCause: s.stats.disconnects[len(causes)].Load()},
		Delivery:     s.stats.delivery.info(),
		HistoryBytes: historyBytes,
	}
	for i, cause := range causes {
		info.Disconnects[cause.name] = s.stats.disconnects[i].Load()
	}
	if size, ok := s.fileSize(); ok {
		info.FileBytes = &size
	}
	if lag, ok := s.lag(); ok {
		seconds := lag.Seconds()
		info.Lag = &seconds
	}
	return info
}

func (l *latencies) info() latencyInfo {
	info := latencyInfo{Seconds: float64(l.micros.Load()) / 1e6}
	for i, bound := range latencyBounds {
		info.Count += l.buckets[i].Load()
		info.Buckets = append(info.Buckets, bucketInfo{bound, info.Count})
	}
	info.Count += l.buckets[len(latencyBounds)].Load()
	return info
}
