//go:build linux

package load

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
)

// worker is one publisher of a run. It publishes to every count-th topic, or to the only one.
type worker struct {
	Load
	fleet     *Fleet
	conn      *Publisher
	index     int
	count     int
	gather    *gather // nil unless the pace is Closed
	published atomic.Uint64

	payload, request []byte // scratch
}

func (w *worker) run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	topic := w.index % w.fleet.topics
	due := time.Now().Add(w.interval() / time.Duration(w.count) * time.Duration(w.index))
	for ctx.Err() == nil {
		at := now()
		if w.Pace == Timed {
			due = due.Add(w.interval())
			if pause := time.Until(due); pause > 0 {
				sleep(ctx, pause)
				at = now()
			} else {
				at = int64(due.Sub(epoch)) // the server kept us
			}
		}
		if err := w.publish(topic, at); err != nil {
			return err
		}
		topic = (topic + w.count) % w.fleet.topics
	}
	return nil
}

// interval is the time between this publisher's messages.
func (w *worker) interval() time.Duration {
	if w.Pace != Timed {
		return 0
	}
	return time.Second * time.Duration(w.Load.Publishers) / time.Duration(w.PerSecond)
}

// publish sends one message. Its latency counts from when it was due: a server that keeps publishers waiting does
// not get better figures by that.
func (w *worker) publish(topic int, due int64) error {
	sent := &w.fleet.sent[topic*w.fleet.publishers+w.index]
	number := *sent
	w.payload = appendPayload(w.payload[:0], header{w.index, number, due}, w.Size)
	w.request = w.Request(w.request[:0], topic, w.payload)
	if w.gather != nil {
		w.gather.expect(w.index)
	}
	status, err := w.conn.Do(w.request)
	if err != nil {
		return err
	}
	if status < 200 || status > 299 {
		return fmt.Errorf("a publish was answered %d", status)
	}
	*sent++
	w.published.Add(1)
	if w.gather != nil {
		w.gather.wait(w.index, number, patience) // what does not come is found lost at the end
	}
	return nil
}
