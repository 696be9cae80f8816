package load

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestPayloadTellsWhatItWasMadeOf(t *testing.T) {
	for _, h := range []header{{}, {255, 1<<32 - 1, 1<<63 - 1}, {7, 0xabcdef, 1234567890}} {
		payload := appendPayload(nil, h, 200)
		if len(payload) != 200 {
			t.Errorf("it has %d bytes", len(payload))
		}
		line := append([]byte(`data: {"pub":{"data":"`), payload...)
		if got, found := findHeader(line); !found || got != h {
			t.Errorf("%+v came back as %+v, %v", h, got, found)
		}
	}
	for _, line := range []string{"", "data: hello", "data: ~short", "data: ~00000000000000000000000000_ no end"} {
		if h, found := findHeader([]byte(line)); found {
			t.Errorf("%q is taken for %+v", line, h)
		}
	}
}

func TestHistogramIsWithinThreePercent(t *testing.T) {
	var h, other Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("nothing was counted")
	}
	for i := range 100_000 {
		into := &h
		if rand.N(2) == 0 {
			into = &other
		}
		into.Add(time.Duration(i)*time.Microsecond, 1)
	}
	h.Merge(&other)
	for _, q := range []float64{0.001, 0.5, 0.99, 0.9999} {
		want := time.Duration(q*100_000) * time.Microsecond
		if got := h.Quantile(q); got < want*97/100 || got > want*103/100 {
			t.Errorf("the quantile %v is %v; want %v", q, got, want)
		}
	}
}
