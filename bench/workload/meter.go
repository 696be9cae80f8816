//go:build linux

package workload

import (
	"time"

	"github.com/caddy-sse/caddy-sse/bench/proc"
)

// meter adds up CPU time between two readings.
type meter struct {
	cpu time.Duration
	err error
}

// read is called with -1 when measuring begins, and with 1 when it ends.
func (m *meter) read(pids []int, sign time.Duration) {
	now, err := proc.CPU(pids)
	if err != nil {
		m.err = err
	}
	m.cpu += sign * now
}
